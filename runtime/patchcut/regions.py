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
    """m regions of one label map, best first; `Result`, which is one, says what the fields are."""

    label_map: npt.NDArray[np.int32]
    region_ids: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    areas: npt.NDArray[np.int64]
    region_labels: npt.NDArray[np.int32]


def find_regions(
    label_map: npt.NDArray[np.int32],
    confidence: npt.NDArray[np.float32],
    *,
    min_area: int,
    min_score: float = 0.0,
) -> Regions:
    """The 8-connected components that are large and sure enough; all others become background.

    Args:
        label_map: [H, W] int32, 0 is background; changed in place where a component is dropped.
        confidence: [H, W] float32 in [0, 1], of the label at each pixel.
        min_area: pixels, at least 1.
        min_score: in [0, 1].
    score = mean confidence * area / (area + 0.01 * H * W): sure and large regions come first.
    """
    ids, count = kernels.connected_components(label_map, min_area=min_area, labels_out=label_map)
    stats = kernels.region_stats(ids, count, label_map=label_map, confidence=confidence)
    assert stats.mean_confidence is not None and stats.label is not None
    areas = stats.area
    scores = stats.mean_confidence * areas / (areas + SCORE_AREA_SHARE * label_map.size)
    scores = np.clip(scores, 0, 1).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= min_score]
    labels = stats.label[order]
    if len(order) < count or np.any(order != np.arange(count)):
        _renumber(ids, order, count)
    if len(order) < count:
        kernels.relabel(ids, np.concatenate([np.zeros(1, np.int32), labels]), out=label_map)
    return Regions(
        label_map=label_map,
        region_ids=ids,
        boxes=stats.boxes_xyxy[order],
        scores=scores[order],
        areas=areas[order],
        region_labels=labels,
    )


def _renumber(ids: npt.NDArray[np.int32], order: npt.NDArray[np.intp], count: int) -> None:
    """Calls region order[i] + 1 of `ids` i + 1, in place; those that `order` leaves out become 0."""
    new = np.zeros(count + 1, np.int32)
    new[order + 1] = np.arange(1, len(order) + 1, dtype=np.int32)
    kernels.relabel(ids, new, out=ids)
