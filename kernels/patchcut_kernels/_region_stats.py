"""Components to what is known of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _place
from ._arrays import Array
from ._place import Place

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
        count: number of regions, of every item the same; ids without pixels have area 0.
        label_map: as `ids`.
        confidence: of the shape of `ids`, float32.
        out: RegionStats of contiguous arrays; written and returned.
        workspace: [bytes] uint8 on CUDA, for what the op keeps meanwhile; taken from the stream's pool where
            None. One that is too small is an error that says how much is needed.
        stream: where the arrays lie on CUDA: a stream of any library or its handle; None for the stream that
            the arrays name, else the legacy default stream.
    Returns:
        RegionStats of `count` rows.
    Raises:
        TypeError: "[region_stats] ids must be int32, got int64".
        ValueError: "[region_stats] ids must be in [0, 2], got 3".
    On CUDA, where values are not checked, pixels of other ids are left out.
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
    place = _place.place(_OP, stream, workspace, ids=ids, label_map=label_map, confidence=confidence)
    shape = (*batch, count)
    stats = _outputs(out, shape, confidence is not None, label_map is not None, place)
    for result in (stats.area, stats.boxes_xyxy, stats.mean_confidence, stats.label):
        if out is not None and result is not None:
            _checks.disjoint(_OP, result, ids, label_map, confidence)
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
        place.context,
    )
    return stats if out is None else out


def _outputs(
    out: RegionStats | None, shape: tuple[int, ...], with_confidence: bool, with_label: bool, place: Place
) -> RegionStats:
    """The arrays to write: the caller's where given."""
    absent = [] if with_confidence else ["mean_confidence"]
    given = _checks.record(_OP, out, RegionStats, absent if with_label else [*absent, "label"])

    def output(name: str, dtype: type[Any], *tail: int) -> npt.NDArray[Any]:
        return _checks.output(_OP, f"out.{name}", given.get(name), dtype, (*shape, *tail), place)

    return RegionStats(
        output("area", np.int64),
        output("boxes_xyxy", np.float32, 4),
        output("mean_confidence", np.float32) if with_confidence else None,
        output("label", np.int32) if with_label else None,
    )
