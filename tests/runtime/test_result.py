from __future__ import annotations

import dataclasses
import json
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from patchcut import Frame, OptionError, Segmenter
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


def test_a_result_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        made_result().scores = np.zeros(2)  # type: ignore[misc]
