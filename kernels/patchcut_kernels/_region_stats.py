"""Components to what is known of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import _C, _checks
from ._arrays import Array

_OP = "region_stats"
_Float = npt.NDArray[np.float32]
_Int = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class RegionStats:
    """What is known of each of m regions; row i belongs to id i + 1. A batch puts [b] before every shape.

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
    ids: Array, count: int, *, label_map: Array | None = None, confidence: Array | None = None
) -> RegionStats:
    """Area, box, mean confidence and label of each region, in one pass.

    Args:
        ids: [H, W] or [b, H, W] int32 in [0, count], 0 = no region; as `connected_components` returns them.
        count: number of regions, of every item the same; ids without pixels have area 0.
        label_map: as `ids`.
        confidence: of the shape of `ids`, float32.
    Returns:
        RegionStats of `count` rows.
    Raises:
        TypeError: "[region_stats] ids must be int32, got int64".
        ValueError: "[region_stats] ids must be in [0, 2], got 3".
    """
    ids = _checks.array(_OP, "ids", ids, np.int32, ("[H, W]", "[b, H, W]"))
    *batch, height, width = ids.shape
    count = _checks.integer(_OP, "count", count, 0)
    if label_map is not None:
        label_map = _checks.array(_OP, "label_map", label_map, np.int32, ("[H, W]", "[b, H, W]"))
        _checks.shape(_OP, "label_map", label_map, ids.shape)
    if confidence is not None:
        confidence = _checks.array(_OP, "confidence", confidence, np.float32, ("[H, W]", "[b, H, W]"))
        _checks.shape(_OP, "confidence", confidence, ids.shape)
    stats = RegionStats(
        np.empty((*batch, count), np.int64),
        np.empty((*batch, count, 4), np.float32),
        None if confidence is None else np.empty((*batch, count), np.float32),
        None if label_map is None else np.empty((*batch, count), np.int32),
    )
    items = math.prod(batch)
    map_shape = (items, height, width)
    _C.region_stats(
        np.ascontiguousarray(ids).reshape(map_shape),
        None if label_map is None else np.ascontiguousarray(label_map).reshape(map_shape),
        None if confidence is None else np.ascontiguousarray(confidence).reshape(map_shape),
        stats.area.reshape(items, count),
        stats.boxes_xyxy.reshape(items, count, 4),
        None if stats.mean_confidence is None else stats.mean_confidence.reshape(items, count),
        None if stats.label is None else stats.label.reshape(items, count),
        _checks.CPU,
    )
    return stats
