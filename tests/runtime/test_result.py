from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import numpy as np
import pytest
from patchcut import Frame, OptionError, PatchcutError, Segmenter
from patchcut.settings import Mode
from patchcut.stages.regions import Regions
from pycocotools import mask as coco

from tests.runtime.results import made_result


def test_masks_are_the_regions_best_first() -> None:
    result = made_result()
    assert result.masks.shape == (2, 4, 6)
    np.testing.assert_array_equal(result.masks[0], result.region_ids == 1)
    np.testing.assert_array_equal(result.masks[1], result.region_ids == 2)
    assert result.masks is result.masks
    assert result.foreground.sum() == 8 and len(result) == 2


def test_a_soft_mask_says_how_sure_the_mask_is() -> None:
    result = made_result()
    np.testing.assert_array_equal(result.soft_mask, np.where(result.foreground, 0.75, 0))
    unsure = dataclasses.replace(result, confidence=np.full((4, 6), 0.375, np.float32))
    assert np.all(unsure.soft_mask == 0.5), "of three columns the winner may have less than half"


def test_no_regions_is_a_result() -> None:
    result = made_result(0)
    assert result.masks.shape == (0, 4, 6) and not result.foreground.any() and len(result) == 0
    assert result.to_dict()["regions"] == []


def test_a_result_without_regions_is_still_true() -> None:
    assert made_result(0) and not len(made_result(0))


def test_to_dict_is_ready_for_json() -> None:
    described = json.loads(json.dumps(made_result().to_dict()))
    assert described == {
        "name": "",
        "index": 0,
        "time_s": None,
        "size_hw": [4, 6],
        "labels": ["background", "cat", "dog"],
        "regions": [
            {"box_xyxy": [0.0, 0.0, 3.0, 2.0], "score": 0.75, "label": "dog", "area": 6},
            {"box_xyxy": [4.0, 3.0, 6.0, 4.0], "score": 0.25, "label": "cat", "area": 2},
        ],
        "timings_ms": {"backbone": 1.235},
    }


def test_to_dict_has_masks_that_pycocotools_reads() -> None:
    result = made_result()
    described = json.loads(json.dumps(result.to_dict(masks="rle")))
    for region, mask in zip(described["regions"], result.masks, strict=True):
        np.testing.assert_array_equal(coco.decode(region["mask"]), mask)
    assert "mask" not in result.to_dict()["regions"][0]
    assert made_result(0).to_dict(masks="rle")["regions"] == []
    with pytest.raises(OptionError, match=r"\[masks\] must be one of \"rle\", got 'png'"):
        result.to_dict(masks="png")  # type: ignore[arg-type]


def test_a_real_result_is_ready_for_json(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    described = json.loads(json.dumps(toy_segmenter(Frame(photo, name="flower", time_s=1.5)).to_dict()))
    assert described["name"] == "flower" and described["time_s"] == 1.5
    assert len(described["regions"]) > 1


def test_a_result_is_printed_on_one_line() -> None:
    assert repr(made_result()) == "<Result: 6x4, 2 regions, best 0.75>" == str(made_result())
    assert repr(made_result(1)) == "<Result: 6x4, 1 region, best 0.75>"
    named = dataclasses.replace(made_result(0), name="a b.jpg")
    assert repr(named) == "<Result 'a b.jpg': 6x4, 0 regions>"
    of_video = dataclasses.replace(made_result(), name="walk.mp4", index=12, time_s=0.48)
    assert repr(of_video) == "<Result 'walk.mp4' #12 at 0.48 s: 6x4, 2 regions, best 0.75>"
    wild = dataclasses.replace(made_result(), name="\x1b[31m\n\udce9.jpg")
    assert repr(wild).isprintable() and wild.name not in repr(wild)


def test_what_a_result_is_made_of_is_printed_on_one_line(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    result, frame = toy_segmenter(photo), Frame(photo, name="flower.jpg")
    features = toy_segmenter.extractor([frame])
    regions = Regions(**{one.name: getattr(result, one.name) for one in dataclasses.fields(Regions)})
    for thing in (frame, features, regions, result):
        assert "\n" not in repr(thing) and len(repr(thing)) < 120, repr(thing)
    assert repr(frame) == "<Frame 'flower.jpg': 640x427 bgr>"
    assert repr(Frame(None)).startswith("<Frame: ")  # type: ignore[arg-type]
    name, rows = next(iter(features.sets.items()))
    assert repr(features) == f"<Features: {name} {list(rows.shape)} on cpu>"


def test_coco_annotations_are_read_by_pycocotools() -> None:
    ids = np.zeros((40, 60), np.int32)
    ids[2:20, 3:30], ids[6:12, 8:20] = 1, 0  # a hole
    ids[25:35, 40:50], ids[36:39, 40:50] = 2, 2  # two pieces
    boxes = np.array([[3, 2, 30, 20], [40, 25, 50, 39]], np.float32)
    areas = np.bincount(ids.ravel())[1:]
    result = dataclasses.replace(made_result(), region_ids=ids, boxes=boxes, areas=areas)
    found = json.loads(json.dumps(result.to_coco(image_id=7, first_id=3)))
    assert [one["id"] for one in found] == [3, 4] and {one["image_id"] for one in found} == {7}
    assert [one["category_id"] for one in found] == [2, 1] and {one["iscrowd"] for one in found} == {0}
    assert [one["score"] for one in found] == [0.75, 0.25]
    for i, one in enumerate(found, start=1):
        np.testing.assert_array_equal(coco.decode(one["segmentation"]), ids == i)
        assert coco.area(one["segmentation"]) == one["area"] == np.sum(ids == i)
        assert coco.toBbox(one["segmentation"]).tolist() == one["bbox"]
    assert made_result(0).to_coco() == []


@pytest.mark.parametrize("mode", ["foreground", "scene"])
def test_detections_of_supervision(monkeypatch: pytest.MonkeyPatch, mode: Mode) -> None:
    try:
        import supervision
    except ImportError:
        supervision = SimpleNamespace(Detections=SimpleNamespace)
        monkeypatch.setitem(sys.modules, "supervision", supervision)
    result = dataclasses.replace(made_result(), mode=mode)
    made = result.to_supervision()
    assert isinstance(made, supervision.Detections)
    np.testing.assert_array_equal(made.xyxy, result.boxes)
    np.testing.assert_array_equal(made.mask, result.masks)
    np.testing.assert_array_equal(made.confidence, result.scores)
    assert made.class_id.tolist() == [2, 1] and list(made.data["class_name"]) == ["dog", "cat"]
    nothing = made_result(0).to_supervision()
    assert nothing.xyxy.shape == (0, 4) and nothing.mask.shape == (0, 4, 6) and len(nothing.class_id) == 0


def test_detections_have_their_tracks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=SimpleNamespace))
    made = dataclasses.replace(made_result(), track_ids=np.array([7, 0], np.int32)).to_supervision()
    assert made.tracker_id.tolist() == [7, -1]
    assert made_result().to_supervision().tracker_id is None


def test_tracks_are_told_where_there_are_any() -> None:
    tracked = dataclasses.replace(made_result(), track_ids=np.array([7, 0], np.int32))
    assert [region["track_id"] for region in tracked.to_dict()["regions"]] == [7, 0]
    assert [one.get("track_id") for one in tracked.to_coco()] == [7, None], (
        "a reader would take 0 for a track"
    )
    json.dumps([tracked.to_dict(), tracked.to_coco()])
    assert all("track_id" not in region for region in made_result().to_dict()["regions"])
    assert all("track_id" not in one for one in made_result().to_coco())


def test_without_supervision_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(
        PatchcutError, match=r"\[supervision\] cannot be imported .*; pip install supervision"
    ):
        made_result().to_supervision()


def test_a_result_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        made_result().scores = np.zeros(2)  # type: ignore[misc]
