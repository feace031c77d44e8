"""Assignments to label maps."""

from __future__ import annotations

from typing import Literal, overload

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _launch
from ._arrays import Array

_OP = "upsample_argmax"
_Float = npt.NDArray[np.float32]
_Int = npt.NDArray[np.int32]


@overload
def upsample_argmax(
    assignment: Array,
    grid_hw: tuple[int, int],
    size_hw: tuple[int, int],
    *,
    out: Array | None = ...,
    confidence: Literal[False] = ...,
    stream: object = ...,
) -> _Int: ...
@overload
def upsample_argmax(
    assignment: Array,
    grid_hw: tuple[int, int],
    size_hw: tuple[int, int],
    *,
    out: Array | None = ...,
    confidence: Literal[True] | Array,
    stream: object = ...,
) -> tuple[_Int, _Float]: ...
def upsample_argmax(
    assignment: Array,
    grid_hw: tuple[int, int],
    size_hw: tuple[int, int],
    *,
    out: Array | None = None,
    confidence: bool | Array = False,
    stream: object = None,
) -> _Int | tuple[_Int, _Float]:
    """Label map of an assignment, at the frame's own size.

    Args:
        assignment: [n, k] or [b, n, k] float32, at most 2^125 (4e37) in magnitude, rows of the grid from left
            to right, top to bottom.
        grid_hw: (h, w) of the grid, h * w = n.
        size_hw: (H, W) of the label map, below 2^31 - 1 pixels.
        out: [H, W] or [b, H, W] int32, contiguous; written and returned.
        confidence: True to also return the winning value; or an array of the shape of `out`, float32,
            contiguous, to have it written there and returned.
        stream: the CUDA stream to run on, see `patchcut_kernels.cuda`.
    Returns:
        [H, W] or [b, H, W] int32, the column whose interpolated value is largest, the first one on a tie.
        With `confidence` a pair, the second of the same shape, float32, in the range of the assignment.
    Raises:
        TypeError: "[upsample_argmax] assignment must be float32, got float64".
        ValueError: "[upsample_argmax] assignment must have 784 rows for a grid of (28, 28), got 256".
    label[y, x] = argmax_c sum_ij B_ij(y, x) A_ijc, B bilinear between patch centres and the border repeated
    (align_corners=False). No [k, H, W] array is made: in each cell of the grid only the classes that are not
    beaten by one other class at all four corners are interpolated.
    Examples:
        >>> assignment = np.float32([[1, 0], [0, 1]])
        >>> pk.upsample_argmax(assignment, (1, 2), (1, 4)).tolist()
        [[0, 0, 1, 1]]
    """
    assignment = _checks.array(_OP, "assignment", assignment, np.float32, ("[n, k]", "[b, n, k]"))
    grid_hw = _checks.pair_hw(_OP, "grid_hw", grid_hw)
    size_hw = _checks.few_pixels(_OP, "size_hw", _checks.pair_hw(_OP, "size_hw", size_hw))
    *batch, n, k = assignment.shape
    if n != grid_hw[0] * grid_hw[1]:
        rows = grid_hw[0] * grid_hw[1]
        raise ValueError(f"[{_OP}] assignment must have {rows} rows for a grid of {grid_hw}, got {n}")
    if k == 0:
        raise ValueError(f"[{_OP}] assignment must have at least one column, got shape {assignment.shape}")
    shape = (*batch, *size_hw)
    launch = _launch.prepare(_OP, stream, None, assignment=assignment)
    labels = _checks.output(_OP, "out", out, np.int32, shape, launch)
    values, values_out = _checks.optional_output(_OP, "confidence", confidence, np.float32, shape, launch)
    if values is not None:
        _checks.disjoint(_OP, values, labels, assignment)
    _checks.disjoint(_OP, labels, assignment)
    _C.upsample_argmax(
        _checks.native(_OP, "assignment", assignment, -1, n, k),
        *grid_hw,
        _checks.native(_OP, "out", labels, -1, *size_hw),
        _checks.native(_OP, "confidence", values, -1, *size_hw),
        launch.context,
    )
    labels = _checks.returned(out, labels)
    return labels if values is None else (labels, _checks.returned(values_out, values))
