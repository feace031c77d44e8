from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs patchcut[server]")


from .conftest import Served

triton = pytest.importorskip("tritonclient.http", reason="the client is tritonclient")

if TYPE_CHECKING:
    from patchcut_server import Model


@pytest.fixture
def client(served: Served) -> Iterator[Any]:
    one = triton.InferenceServerClient(served.url)
    yield one
    one.close()


def pixels(image: np.ndarray, *, binary: bool = True) -> Any:
    tensor = triton.InferInput("image", image.shape, "UINT8")
    tensor.set_data_from_numpy(image, binary_data=binary)
    return tensor


def file(data: bytes) -> Any:
    tensor = triton.InferInput("encoded", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([data], object))
    return tensor


def test_health_and_metadata(client: Any, model: Model) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("toy") and client.is_model_ready("toy", str(model.version))
    assert not client.is_model_ready("other") and not client.is_model_ready("toy", "999")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("toy")
    assert metadata["name"] == "toy" and metadata["versions"] == [str(model.version)]
    assert [one["name"] for one in metadata["inputs"]] == ["image", "encoded"]
    assert {"boxes", "masks", "label_map"} <= {one["name"] for one in metadata["outputs"]}


@pytest.mark.parametrize("binary", [True, False])
def test_pixels_get_what_the_segmenter_finds(
    client: Any, model: Model, image: np.ndarray, binary: bool
) -> None:
    small = np.ascontiguousarray(image[100:260, 150:350])
    wanted = [
        triton.InferRequestedOutput(name, binary_data=binary)
        for name in ("boxes", "scores", "areas", "label_ids", "label_names", "label_map", "region_ids")
    ]
    got = client.infer("toy", [pixels(small, binary=binary)], request_id="7", outputs=wanted)
    want = model.now(small)
    assert got.get_response()["id"] == "7" and got.get_response()["model_name"] == "toy"
    assert len(want) >= 2
    for name in ("boxes", "scores", "areas", "label_map", "region_ids"):
        array = got.as_numpy(name)
        assert array.dtype == getattr(want, name).dtype
        np.testing.assert_array_equal(array, getattr(want, name))
    np.testing.assert_array_equal(got.as_numpy("label_ids"), want.region_labels)
    names = [one.decode() if isinstance(one, bytes) else one for one in got.as_numpy("label_names")]
    assert names == list(want.label_names)


def test_a_file_and_its_masks(client: Any, model: Model, jpeg: bytes, image: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="the reader is pycocotools")
    got = client.infer("toy", [file(jpeg)])
    counts = got.as_numpy("masks")
    masks = [coco.decode({"size": [512, 512], "counts": one}) for one in counts]
    np.testing.assert_array_equal(np.stack(masks).astype(bool), model.now(image).masks)


def test_parameters_are_settings(client: Any, model: Model, image: np.ndarray) -> None:
    got = client.infer(
        "toy", [pixels(image)], parameters={"single": True, "min_score": 0.01, "head": "kmeans"}
    )
    want = model.now.with_settings(single=True, min_score=0.01, head="kmeans")(image)
    np.testing.assert_array_equal(got.as_numpy("boxes"), want.boxes)
    rgb = client.infer("toy", [pixels(np.ascontiguousarray(image[..., ::-1]))], parameters={"color": "rgb"})
    np.testing.assert_array_equal(rgb.as_numpy("label_map"), model.now(image).label_map)


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_packed_requests(client: Any, jpeg: bytes, packing: str) -> None:
    plain, packed = (
        client.infer("toy", [file(jpeg)], request_compression_algorithm=how) for how in (None, packing)
    )
    np.testing.assert_array_equal(plain.as_numpy("boxes"), packed.as_numpy("boxes"))


@pytest.mark.parametrize(
    ("inputs", "parameters", "words"),
    [
        ([("image", [4, 4, 4], "UINT8")], {}, r"\[input image\] must be \[H, W, 3\]"),
        ([("image", [0, 4, 3], "UINT8")], {}, r"\[input image\] must be \[H, W, 3\]"),
        ([("image", [4, 4, 3], "FP32")], {}, r"\[input image\] must be \[H, W, 3\] UINT8"),
        ([("other", [4, 4, 3], "UINT8")], {}, r"\[inputs\] must be image"),
        ([("image", [4, 4, 3], "UINT8"), ("more", [1], "FP32")], {}, r"\[inputs\] must be one"),
        ([("image", [4, 4, 3], "UINT8")], {"color": "hsv"}, r"\[parameters\] color"),
        ([("image", [4, 4, 3], "UINT8")], {"color": 1}, r"\[parameters\] color"),
        ([("image", [4, 4, 3], "UINT8")], {"device": "cpu"}, r"\[parameters\] has no 'device'"),
        ([("image", [4, 4, 3], "UINT8")], {"min_score": 7}, r"\[min_score\] must be"),
        ([("image", [2100, 2100, 3], "UINT8")], {}, r"pixels, more than max_pixels"),
    ],
)
def test_what_is_wrong_is_one_line(
    client: Any, inputs: list[Any], parameters: dict[str, Any], words: str
) -> None:
    tensors = []
    for name, shape, datatype in inputs:
        tensor = triton.InferInput(name, shape, datatype)
        tensor.set_data_from_numpy(np.zeros(shape, triton.triton_to_np_dtype(datatype)))
        tensors.append(tensor)
    with pytest.raises(triton.InferenceServerException, match=words):
        client.infer("toy", tensors, parameters=parameters)


def test_an_output_or_a_model_that_is_not_there(client: Any, image: np.ndarray) -> None:
    for name, outputs, words in (
        ("toy", [triton.InferRequestedOutput("depth")], r"\[outputs\] must be of boxes"),
        ("other", None, r"\[model\] is toy, not 'other'"),
    ):
        with pytest.raises(triton.InferenceServerException, match=words):
            client.infer(name, [pixels(image)], outputs=outputs)


def test_the_repository_lists_the_model(client: Any) -> None:
    (entry,) = client.get_model_repository_index()
    assert entry["name"] == "toy" and entry["state"] == "READY"


def test_packed_bombs_are_refused_before_they_are_unpacked(served: Served) -> None:
    bomb = gzip.compress(bytes(32 << 20), 1)
    assert len(bomb) < 200_000
    reply = served.ask("POST", "/v2/models/toy/infer", bomb, {"Content-Encoding": "gzip"})
    assert reply.status == 413 and "[body] has more than" in reply.said["error"]
    for packed, packing, status in (
        (b"no gzip", "gzip", 400),
        (bomb[:-9], "gzip", 413),
        (gzip.compress(b"x")[:-9], "gzip", 400),
        (b"x", "br", 415),
    ):
        reply = served.ask("POST", "/v2/models/toy/infer", packed, {"Content-Encoding": packing})
        assert reply.status == status, (packing, reply.said)


def test_answers_without_binary_data_are_json(served: Served) -> None:
    tensor = {
        "name": "image",
        "shape": [2, 2, 3],
        "datatype": "UINT8",
        "data": [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [0, 1, 2]]],
    }
    reply = served.ask("POST", "/v2/models/toy/versions/1/infer", json.dumps({"inputs": [tensor]}).encode())
    assert reply.status in (200, 404)
    reply = served.ask("POST", "/v2/models/toy/infer", json.dumps({"inputs": [tensor]}).encode())
    assert reply.status == 200 and reply.headers["content-type"] == "application/json"
    assert {one["name"]: one["shape"] for one in reply.said["outputs"]}["label_map"] == [2, 2]


def test_the_example_draws_what_the_server_finds(
    served: Served, model: Model, image: np.ndarray, tmp_path: Path
) -> None:
    photo, overlay = tmp_path / "photo.png", tmp_path / "overlay.png"
    cv2.imwrite(str(photo), image)
    example = Path(__file__).parents[2] / "docs/examples/triton_client.py"
    words = [sys.executable, example, photo, overlay, "--model", "toy", "--address", served.url]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = model.now(image)
    assert len(done.stdout.splitlines()) == len(result) > 0
    changed = (cv2.imread(str(overlay)) != image).any(axis=2)
    assert changed[result.foreground].mean() > 0.9 and not changed.all()
    wrong = subprocess.run([*words[:-3], "other", *words[-2:]], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1 and len(wrong.stderr.splitlines()) == 1
