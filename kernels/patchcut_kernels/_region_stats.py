"""Components to what is known of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import _C, _checks

_OP = "region_stats"
_Float = npt.NDArray[np.float32]
_Int = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class RegionStats:
    """What is known of each of m regions; row i belongs to id i + 1.

    Args:
        area: [m] int64, pixels.
        boxes_xyxy: [m, 4] float32, half-open, pixels; zeros for an id that has no pixel.
        mean_confidence: [m] float32, or None where no confidence was given.
        label: [m] int32, label of the region's first pixel, or None where no label map was given.
    """

    area: npt.NDArray[np.int64]
    boxes_xyxy: _Float
    mean_confidence: _Float | None
    label: _Int | None


def region_stats(
    ids: _Int, count: int, *, label_map: _Int | None = None, confidence: _Float | None = None
) -> RegionStats:
    """Area, box, mean confidence and label of each region, in one pass.

    Args:
        ids: [H, W] int32 in [0, count], 0 = no region; as `connected_components` returns them.
        count: number of regions.
        label_map: [H, W] int32.
        confidence: [H, W] float32.
    Returns:
        RegionStats of `count` rows.
    Raises:
        TypeError: "[region_stats] ids must be int32, got int64".
        ValueError: "[region_stats] ids must be in [0, 2], got 3".
    """
    ids = _checks.array(_OP, "ids", ids, np.int32, ("[H, W]",))
    count = _checks.integer(_OP, "count", count, 0)
    if label_map is not None:
        label_map = _checks.array(_OP, "label_map", label_map, np.int32, ("[H, W]",))
        _checks.shape(_OP, "label_map", label_map, ids.shape)
    if confidence is not None:
        confidence = _checks.array(_OP, "confidence", confidence, np.float32, ("[H, W]",))
        _checks.shape(_OP, "confidence", confidence, ids.shape)
    stats = RegionStats(
        np.empty(count, np.int64),
        np.empty((count, 4), np.float32),
        None if confidence is None else np.empty(count, np.float32),
        None if label_map is None else np.empty(count, np.int32),
    )
    _C.region_stats(
        np.ascontiguousarray(ids),
        None if label_map is None else np.ascontiguousarray(label_map),
        None if confidence is None else np.ascontiguousarray(confidence),
        stats.area,
        stats.boxes_xyxy,
        stats.mean_confidence,
        stats.label,
    )
    return stats
