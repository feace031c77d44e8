"""Assignments to label maps, label maps to regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
import numpy.typing as npt

from . import _C, _checks

_Float = npt.NDArray[np.float32]
_Int = npt.NDArray[np.int32]


@overload
def upsample_argmax(
    assignment: _Float,
    grid_hw: tuple[int, int],
    size_hw: tuple[int, int],
    *,
    out: _Int | None = ...,
    confidence: Literal[False] = ...,
) -> _Int: ...
@overload
def upsample_argmax(
    assignment: _Float,
    grid_hw: tuple[int, int],
    size_hw: tuple[int, int],
    *,
    out: _Int | None = ...,
    confidence: Literal[True],
) -> tuple[_Int, _Float]: ...
def upsample_argmax(
    assignment: _Float,
    grid_hw: tuple[int, int],
    size_hw: tuple[int, int],
    *,
    out: _Int | None = None,
    confidence: bool = False,
) -> _Int | tuple[_Int, _Float]:
    """Label map of an assignment, at the frame's own size.

    Args:
        assignment: [n, k] float32, finite, rows of the grid from left to right and top to bottom.
        grid_hw: (h, w) of the grid, h * w = n.
        size_hw: (H, W) of the label map.
        out: [H, W] int32, contiguous; written and returned.
        confidence: also return the winning value.
    Returns:
        [H, W] int32, the column whose interpolated value is largest, the first one on a tie.
        With `confidence` a pair, the second [H, W] float32, the range of the assignment.
    Raises:
        TypeError: "[upsample_argmax] assignment must be float32, got float64".
        ValueError: "[upsample_argmax] assignment must have 784 rows for a grid of (28, 28), got 256".
    label[y, x] = argmax_c sum_ij B_ij(y, x) A_ijc, B bilinear between patch centres and the border repeated
    (align_corners=False). No [k, H, W] array is made: in each cell of the grid only the classes that are not
    beaten by one other class at all four corners are interpolated.
    """
    op = "upsample_argmax"
    assignment = _checks.array(op, "assignment", assignment, np.float32, ("[n, k]",))
    grid_hw = _checks.pair_hw(op, "grid_hw", grid_hw)
    size_hw = _checks.pair_hw(op, "size_hw", size_hw)
    if assignment.shape[0] != grid_hw[0] * grid_hw[1]:
        rows = grid_hw[0] * grid_hw[1]
        raise ValueError(
            f"[{op}] assignment must have {rows} rows for a grid of {grid_hw}, got {assignment.shape[0]}"
        )
    if assignment.shape[1] == 0:
        raise ValueError(f"[{op}] assignment must have at least one column, got shape {assignment.shape}")
    labels = _checks.output(op, "out", out, np.int32, size_hw)
    values = np.empty(size_hw, np.float32) if confidence else None
    _C.upsample_argmax(np.ascontiguousarray(assignment), *grid_hw, labels, values)
    return labels if values is None else (labels, values)


def connected_components(
    label_map: _Int,
    *,
    connectivity: Literal[4, 8] = 8,
    min_area: int = 1,
    out: _Int | None = None,
    labels_out: _Int | None = None,
) -> tuple[_Int, int]:
    """Connected components of a label map, and how many there are.

    Args:
        label_map: [H, W] int32, 0 = background.
        connectivity: 8 where corners touch, 4 where only edges do.
        min_area: components of fewer pixels become background and are not counted.
        out: [H, W] int32, contiguous, may be `label_map` itself; written and returned.
        labels_out: [H, W] int32, contiguous, may be `label_map` itself, not `out`; receives the label map
            with 0 where the id is 0, in the same pass.
    Returns:
        [H, W] int32 with ids 1..count in scan order of each component's first pixel, and count.
    Raises:
        TypeError: "[connected_components] label_map must be int32, got int64".
        ValueError: "[connected_components] label_map must be [H, W], got shape (3,)".
    Two pixels are in one component if a path of touching pixels of the same non-zero label joins them.
    Union-find over runs, the first run as root: He, Chao, Suzuki, "A run-based two-scan labeling
    algorithm" (2008).
    """
    op = "connected_components"
    label_map = _checks.array(op, "label_map", label_map, np.int32, ("[H, W]",))
    if connectivity not in (4, 8):
        raise ValueError(f"[{op}] connectivity must be 4 or 8, got {connectivity}")
    min_area = _checks.integer(op, "min_area", min_area, 1)
    ids = _checks.output(op, "out", out, np.int32, label_map.shape)
    if labels_out is not None:
        labels_out = _checks.output(op, "labels_out", labels_out, np.int32, label_map.shape)
        if np.may_share_memory(ids, labels_out):
            raise ValueError(f"[{op}] labels_out must not overlap the ids, got memory that both use")
    count = _C.connected_components(
        np.ascontiguousarray(label_map), connectivity == 8, min_area, ids, labels_out
    )
    return ids, count


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
    op = "region_stats"
    ids = _checks.array(op, "ids", ids, np.int32, ("[H, W]",))
    count = _checks.integer(op, "count", count, 0)
    if label_map is not None:
        label_map = _checks.array(op, "label_map", label_map, np.int32, ("[H, W]",))
        _checks.shape(op, "label_map", label_map, ids.shape)
    if confidence is not None:
        confidence = _checks.array(op, "confidence", confidence, np.float32, ("[H, W]",))
        _checks.shape(op, "confidence", confidence, ids.shape)
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
