from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs patchcut[server]")

from patchcut.output import read_label_map

from .conftest import Served

if TYPE_CHECKING:
    from pathlib import Path

    from patchcut_server import Model


def test_a_picture_gets_what_the_segmenter_finds(
    served: Served, model: Model, jpeg: bytes, image: np.ndarray
) -> None:
    reply = served.segment(jpeg)
    assert reply.status == 200 and reply.headers["content-type"] == "application/json"
    want = model.now(image).to_dict(masks="rle")
    assert len(want["regions"]) >= 2
    for name in ("size_hw", "labels", "regions"):
        assert reply.said[name] == want[name]
    assert {"queue", "decode", "backbone", "masks"} <= reply.said["timings_ms"].keys()
    assert "backbone;dur=" in reply.headers["server-timing"]


def test_masks_are_cocos_run_lengths(served: Served, model: Model, jpeg: bytes, image: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="the reader is pycocotools")
    masks = [coco.decode(one["mask"]) for one in served.segment(jpeg).said["regions"]]
    np.testing.assert_array_equal(np.stack(masks).astype(bool), model.now(image).masks)


def test_labels_overlay_and_cutout(
    served: Served, model: Model, jpeg: bytes, image: np.ndarray, tmp_path: Path
) -> None:
    result = model.now(image)
    for reply in (served.segment(jpeg, Accept="image/png"), served.segment(jpeg, "?output=labels")):
        assert reply.headers["content-type"] == "image/png"
        (tmp_path / "labels.png").write_bytes(reply.body)
        np.testing.assert_array_equal(read_label_map(tmp_path / "labels.png"), result.label_map)
    for reply in (
        served.segment(jpeg, Accept="text/html;q=1, image/jpeg;q=0.5"),
        served.segment(jpeg, "?output=overlay"),
    ):
        assert reply.headers["content-type"] == "image/jpeg"
        shown = cv2.imdecode(np.frombuffer(reply.body, np.uint8), cv2.IMREAD_COLOR).astype(int)
        assert np.abs(shown - result.overlay()).mean() < 4 < np.abs(shown - image).mean()
    cut = cv2.imdecode(
        np.frombuffer(served.segment(jpeg, "?output=cutout").body, np.uint8), cv2.IMREAD_UNCHANGED
    )
    np.testing.assert_array_equal(cut, result.cutout())


def test_what_nothing_can_give_is_not_acceptable(served: Served, jpeg: bytes) -> None:
    reply = served.segment(jpeg, Accept="text/html, image/png;q=0")
    assert reply.status == 406 and "[Accept]" in reply.said["error"]
    assert served.segment(jpeg, "?output=gif").status == 400


@pytest.mark.parametrize("quoted", ["x-7", '"x-7"'])
def test_a_form_as_curl_sends_it(served: Served, jpeg: bytes, quoted: str) -> None:
    head = b'Content-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg'
    before = b'--x-7\r\nContent-Disposition: form-data; name="note"\r\n\r\nmine\r\n'
    form = before + b"--x-7\r\n" + head + b"\r\n\r\n" + jpeg + b"\r\n--x-7--\r\n"
    reply = served.segment(form, Content_Type=f"multipart/form-data; boundary={quoted}")
    assert reply.status == 200 and reply.said["regions"] == served.segment(jpeg).said["regions"]
    for wrong, kind in (
        (form, "boundary=other"),
        (form, "charset=utf-8"),
        (before + b"--x-7--", "boundary=x-7"),
        (form[:-20], "boundary=x-7"),
    ):
        reply = served.segment(wrong, Content_Type=f"multipart/form-data; {kind}")
        assert reply.status == 400 and "[form]" in reply.said["error"]


def test_settings_of_one_request(served: Served, model: Model, jpeg: bytes, image: np.ndarray) -> None:
    plain = served.segment(jpeg).said
    single = served.segment(jpeg, "?single=true&refine=guided").said
    assert len(single["regions"]) == 1 < len(plain["regions"])
    want = model.now.with_settings(single=True, refine="guided")(image)
    assert single["regions"] == want.to_dict(masks="rle")["regions"]
    parts = served.segment(jpeg, "?head=kmeans&mode=parts").said
    assert parts["labels"] == list(model.now.with_settings(head="kmeans", mode="parts")(image).labels)
    least = plain["regions"][0]["score"]
    assert served.segment(jpeg, f"?min_score={least + 0.001}").said["regions"] == []
    assert served.segment(jpeg).said["regions"] == plain["regions"], "the others are as they were"


def test_what_is_pointed_at(served: Served, model: Model, jpeg: bytes, image: np.ndarray) -> None:
    reply = served.segment(jpeg, "?point=250,120&box=10,10,200,300")
    want = model.now(image, points=[(250, 120)], boxes=[(10, 10, 200, 300)])
    assert [one["track_id"] for one in reply.said["regions"]] == want.track_ids.tolist()
    assert reply.said["regions"] == want.to_dict(masks="rle")["regions"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?nonsense=1", "[query] has no 'nonsense'; there are head, "),
        ("?device=cuda", "[query] has no 'device'"),
        ("?min_score=2", "[min_score] must be a number from 0 to 1, got 2"),
        ("?min_score=x", "[min_score] must be a number, got 'x'"),
        ("?min_score=nan", "[min_score] must be a number from 0 to 1"),
        ("?single=perhaps", "[single] must be true or false"),
        ("?single=1&single=0", "[query] has single twice"),
        ("?refine=sharp", "[refine] must be one of"),
        ("?head=gnn-fit:steps=100000", "[head] must be the name of a head, without settings"),
        ("?head=nobody", "[head] must be one of"),
        ("?parts=kmeans", "[parts] needs the mode"),
        ("?concepts=dog", "[head] "),
        ("?point=1", "[point] must be X,Y"),
        ("?point=1,9999", "[point"),
        ("?box=3,3,1,1", "[box] must be x0, y0, x1, y1"),
        ("?output=json&output=labels", "[query] has output twice"),
        ("?" + "&".join(["point=1,1"] * 33), "[query] points at more than 32"),
    ],
)
def test_a_query_that_is_wrong(served: Served, jpeg: bytes, query: str, words: str) -> None:
    reply = served.segment(jpeg, query)
    assert reply.status == 400
    assert reply.said["error"].startswith(words), reply.said


def test_the_description_names_every_setting(served: Served) -> None:
    from patchcut_server.model import OF_REQUESTS

    described = served.ask("GET", "/openapi.json").said
    named = {one["name"] for one in described["paths"]["/v1/segment"]["post"]["parameters"]}
    assert named == {*OF_REQUESTS, "point", "box", "output"}
    assert "/v2/models/{model}/infer" in described["paths"]


def test_unknown_ways_and_methods(served: Served) -> None:
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/v1/segment", 405),
        ("POST", "/metrics", 405),
    ):
        reply = served.ask(method, path)
        assert reply.status == status and reply.said["error"].startswith(f"[{path}]")


def test_turned_pictures_are_upright(served: Served, image: np.ndarray) -> None:
    jpeg = cv2.imencode(".jpg", image[:300])[1].tobytes()
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"Exif\0\0" + tiff
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    assert served.segment(jpeg).said["size_hw"] == [300, 512]
    assert served.segment(turned).said["size_hw"] == [512, 300]
