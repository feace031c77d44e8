"""Components to their areas, boxes, confidences and labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _launch
from ._arrays import Array

_OP = "region_stats"
_Float = npt.NDArray[np.float32]
_Int = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class RegionStats:
    """Statistics of m regions; row i belongs to id i + 1. A batch puts [b] before every shape.

    Args:
        area: [m] int64, in pixels.
        boxes_xyxy: [m, 4] float32, half-open, pixels; zeros for an id that has no pixel.
        mean_confidence: [m] float32, or None where no confidence was given.
        label: [m] int32, label of the region's first pixel, or None where no label map was given.
    """

    area: npt.NDArray[np.int64]
    boxes_xyxy: _Float
    mean_confidence: _Float | None
    label: _Int | None


def region_stats(
    ids: Array,
    count: int,
    *,
    label_map: Array | None = None,
    confidence: Array | None = None,
    out: RegionStats | None = None,
    workspace: Array | None = None,
    stream: object = None,
) -> RegionStats:
    """Area, box, mean confidence and label of each region.

    Args:
        ids: [H, W] or [b, H, W] int32 in [0, count], 0 = no region; as `connected_components` returns them.
        count: number of regions, of every item the same, at most H * W or 65,536, whichever is more; ids
            without pixels have area 0.
        label_map: as `ids`.
        confidence: as `ids`, but float32.
        out: RegionStats of contiguous arrays; written and returned.
        workspace: memory to compute in on CUDA, see `patchcut_kernels.cuda`.
        stream: the CUDA stream to run on, see `patchcut_kernels.cuda`.
    Returns:
        RegionStats of `count` rows.
    Raises:
        TypeError: "[region_stats] ids must be int32, got int64".
        ValueError: "[region_stats] ids must be in [0, 2], got 3".
    On CUDA, where values are not checked, pixels of other ids are left out.
    Examples:
        >>> stats = pk.region_stats(np.int32([[1, 1, 0], [0, 0, 2]]), 2)
        >>> stats.area.tolist(), stats.boxes_xyxy.tolist()
        ([2, 1], [[0.0, 0.0, 2.0, 1.0], [2.0, 1.0, 3.0, 2.0]])
    """
    ids = _checks.array(_OP, "ids", ids, np.int32, ("[H, W]", "[b, H, W]"))
    *batch, height, width = ids.shape
    count = _checks.id_count(_OP, count, height * width)
    if label_map is not None:
        label_map = _checks.array(_OP, "label_map", label_map, np.int32, ("[H, W]", "[b, H, W]"))
        _checks.shape(_OP, "label_map", label_map, ids.shape)
    if confidence is not None:
        confidence = _checks.array(_OP, "confidence", confidence, np.float32, ("[H, W]", "[b, H, W]"))
        _checks.shape(_OP, "confidence", confidence, ids.shape)
    launch = _launch.prepare(_OP, stream, workspace, ids=ids, label_map=label_map, confidence=confidence)
    shape = (*batch, count)
    specs: _checks.Specs = {
        "area": (np.int64, shape),
        "boxes_xyxy": (np.float32, (*shape, 4)),
    }
    if confidence is not None:
        specs["mean_confidence"] = (np.float32, shape)
    if label_map is not None:
        specs["label"] = (np.int32, shape)
    stats = _checks.outputs(_OP, out, RegionStats, launch, specs, ids, label_map, confidence)
    items = math.prod(batch)
    map_shape = (items, height, width)
    _C.region_stats(
        _checks.native(_OP, "ids", ids, *map_shape),
        _checks.native(_OP, "label_map", label_map, *map_shape),
        _checks.native(_OP, "confidence", confidence, *map_shape),
        _checks.native(_OP, "out.area", stats.area, items, count),
        _checks.native(_OP, "out.boxes_xyxy", stats.boxes_xyxy, items, count, 4),
        _checks.native(_OP, "out.mean_confidence", stats.mean_confidence, items, count),
        _checks.native(_OP, "out.label", stats.label, items, count),
        launch.context,
    )
    return stats if out is None else out
