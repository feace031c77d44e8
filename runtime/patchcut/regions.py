"""Regions of a label map: connected, scored, best first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

# A region of this share of the frame has half the score that its confidence alone would give.
SCORE_AREA_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class Regions:
    """m regions of one label map, best first; the fields of `Result` with the same names."""

    label_map: npt.NDArray[np.int32]
    region_ids: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    areas: npt.NDArray[np.int64]
    region_labels: npt.NDArray[np.int32]


def find_regions(
    label_map: npt.NDArray[np.int32], confidence: npt.NDArray[np.float32], min_area: int
) -> Regions:
    """The 8-connected components of at least `min_area` pixels; smaller ones become background.

    Args:
        label_map: [H, W] int32, 0 is background; changed in place where a component is dropped.
        confidence: [H, W] float32 in [0, 1], of the label at each pixel.
        min_area: pixels, at least 1.
    score = mean confidence * area / (area + 0.01 * H * W): sure and large regions come first.
    """
    ids, count = kernels.connected_components(label_map, min_area=min_area)
    stats = kernels.region_stats(ids, count, label_map=label_map, confidence=confidence)
    assert stats.mean_confidence is not None and stats.label is not None
    areas = stats.area
    scores = np.clip(stats.mean_confidence * areas / (areas + SCORE_AREA_SHARE * label_map.size), 0, 1)
    order = np.argsort(-scores, kind="stable")
    if np.any(order != np.arange(count)):
        ids = _renumbered(ids, order)
    if areas.sum() != np.count_nonzero(label_map):
        label_map[ids == 0] = 0
    return Regions(
        label_map=label_map,
        region_ids=ids,
        boxes=stats.boxes_xyxy[order],
        scores=scores[order].astype(np.float32),
        areas=areas[order],
        region_labels=stats.label[order],
    )


def _renumbered(ids: npt.NDArray[np.int32], order: npt.NDArray[np.intp]) -> npt.NDArray[np.int32]:
    """`ids` with region order[i] + 1 called i + 1."""
    new = np.zeros(len(order) + 1, np.int32)
    new[order + 1] = np.arange(1, len(order) + 1, dtype=np.int32)
    return new[ids]
