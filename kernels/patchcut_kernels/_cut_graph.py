"""The graph that is cut."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import _C, _checks
from ._arrays import Array


@dataclass(frozen=True)
class CutGraph:
    """Checked arguments.

    Args:
        rows: [n, d] or [b, n, d] float32 or float16.
        kind: how the rows become weights.
        threshold: 0 where there is none.
        floor: weight of a pair that is no edge.
        offset: added to cosines that no threshold cuts.
    """

    rows: npt.NDArray[np.float32 | np.float16]
    kind: _C.CutGraph
    threshold: float
    floor: float
    offset: float


def checked(
    op: str,
    features: Array,
    *,
    precomputed: bool,
    threshold: float | None,
    binary: bool,
    floor: float,
    offset: float,
) -> CutGraph:
    """The graph of an op's arguments.

    Raises:
        TypeError: "[ncut] features must be float32 or float16, got float64".
        ValueError: "[ncut] floor must be at least 0 and below 1, got 1.0".
    """
    dims = ("[n, n]", "[b, n, n]") if precomputed else ("[n, d]", "[b, n, d]")
    rows = _checks.floats(op, "features", features, dims)
    *batch, n, d = rows.shape
    if precomputed:
        _checks.shape(op, "features", rows, (*batch, n, n))
    if n < 2 or d == 0:
        raise ValueError(f"[{op}] features must have two rows and a column at least, got shape {rows.shape}")
    least_cosine = 0.0 if threshold is None else _checks.number(op, "threshold", threshold)
    if not (math.isfinite(least_cosine) and least_cosine >= 0):
        raise ValueError(f"[{op}] threshold must be at least 0, or None, got {threshold}")
    if binary and threshold is None and not precomputed:
        raise ValueError(f"[{op}] binary must be False where there is no threshold, got True")
    floor = _checks.number(op, "floor", floor)
    if not 0 <= floor < 1:
        raise ValueError(f"[{op}] floor must be at least 0 and below 1, got {floor}")
    offset = _checks.number(op, "offset", offset)
    if not (math.isfinite(offset) and offset >= 0):
        raise ValueError(f"[{op}] offset must be at least 0, got {offset}")
    if precomputed:
        kind = _C.CutGraph.affinity
    elif threshold is None:
        kind = _C.CutGraph.cosine
    else:
        kind = _C.CutGraph.binary if binary else _C.CutGraph.thresholded
    return CutGraph(rows, kind, least_cosine, floor, offset)


def checked_tolerance(op: str, tolerance: float) -> float:
    """`tolerance` of residuals.

    Raises:
        ValueError: "[ncut] tolerance must be at least 0, got -1.0".
    """
    tolerance = _checks.number(op, "tolerance", tolerance)
    if not 0 <= tolerance <= _checks.LARGEST_FLOAT:
        raise ValueError(f"[{op}] tolerance must be at least 0, got {tolerance}")
    return tolerance
