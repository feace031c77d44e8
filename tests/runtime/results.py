"""Results that tests make, and what holds of every one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from patchcut import Result

ARRAYS = ("label_map", "region_ids", "confidence", "boxes", "scores", "areas", "region_labels", "assignment")


def made_result(m: int = 2) -> Result:
    ids = np.zeros((4, 6), np.int32)
    ids[:2, :3] = 1
    ids[3, 4:] = 2
    ids[ids > m] = 0
    labels = np.array([2, 1], np.int32)[:m]
    return Result(
        label_map=np.concatenate([[0], labels]).astype(np.int32)[ids],
        region_ids=ids,
        confidence=np.where(ids > 0, 0.75, 1.0).astype(np.float32),
        boxes=np.array([[0, 0, 3, 2], [4, 3, 6, 4]], np.float32)[:m],
        scores=np.array([0.75, 0.25], np.float32)[:m],
        areas=np.array([6, 2])[:m],
        region_labels=labels,
        labels=("background", "cat", "dog"),
        assignment=np.full((6, 3), 1 / 3, np.float32),
        grid_hw=(2, 3),
        timings_ms={"backbone": 1.23456},
    )


def boxes_result(
    boxes: Sequence[tuple[int, int, int, int]],
    /,
    size_hw: tuple[int, int] = (200, 200),
    scores: Sequence[float] | None = None,
    **fields: Any,
) -> Result:
    """Regions that fill boxes, later ones over earlier ones, all of one label."""
    ids = np.zeros(size_hw, np.int32)
    for i, (x0, y0, x1, y1) in enumerate(boxes, start=1):
        ids[y0:y1, x0:x1] = i
    given: dict[str, Any] = {
        "label_map": (ids > 0).astype(np.int32),
        "region_ids": ids,
        "confidence": np.where(ids > 0, 0.75, 1.0).astype(np.float32),
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "scores": np.linspace(1, 0.5, len(boxes), dtype=np.float32)
        if scores is None
        else np.array(scores, np.float32),
        "areas": np.bincount(ids.ravel(), minlength=len(boxes) + 1)[1:],
        "region_labels": np.ones(len(boxes), np.int32),
        "labels": ("background", "foreground"),
        "assignment": np.full((6, 2), 0.5, np.float32),
        "grid_hw": (2, 3),
    }
    return Result(**{**given, **fields})


def same(a: Result, b: Result) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def check_consistent(result: Result, size_hw: tuple[int, int]) -> None:
    """All that must hold between the fields of a result."""
    m, (height, width) = len(result), size_hw
    assert result.label_map.shape == result.region_ids.shape == size_hw
    assert result.label_map.dtype == result.region_ids.dtype == np.int32
    assert (result.boxes.shape, result.boxes.dtype) == ((m, 4), np.float32)
    assert (result.scores.shape, result.scores.dtype) == ((m,), np.float32)
    assert (result.areas.dtype, result.region_labels.dtype) == (np.int64, np.int32)
    assert (result.masks.shape, result.masks.dtype) == ((m, height, width), np.bool_)
    assert np.all(np.diff(result.scores) <= 0) and np.all((result.scores >= 0) & (result.scores <= 1))
    np.testing.assert_array_equal(result.region_ids > 0, result.label_map > 0)
    np.testing.assert_array_equal(result.foreground, result.masks.any(axis=0))
    assert (result.soft_mask.shape, result.soft_mask.dtype) == (size_hw, np.float32)
    assert result.soft_mask.min() >= 0 and result.soft_mask.max() <= 1
    assert np.all(result.soft_mask[result.foreground] >= 0.5)
    assert np.all(result.soft_mask[~result.foreground] <= 0.5)
    for mask, box, area, label in zip(
        result.masks, result.boxes, result.areas, result.region_labels, strict=True
    ):
        ys, xs = np.nonzero(mask)
        assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert mask.sum() == area and 0 < label < len(result.labels)
        assert np.all(result.label_map[mask] == label)
    assert result.assignment.shape == (math.prod(result.assignment_hw), len(result.labels))
