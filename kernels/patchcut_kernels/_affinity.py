"""Patch features to a graph."""

from __future__ import annotations

import math
from typing import Literal, overload

import numpy as np
import numpy.typing as npt

from . import _C, _checks
from ._arrays import Array

Kind = Literal["cosine", "dot"]
Mode = Literal["ncut", "cc"]

_OP = "affinity"
_Array = npt.NDArray[np.float32]


@overload
def affinity(
    features: Array,
    *,
    kind: Kind = ...,
    mode: Mode = ...,
    threshold: float = ...,
    alpha: float = ...,
    out: Array | None = ...,
    return_degrees: Literal[False] = ...,
) -> _Array: ...
@overload
def affinity(
    features: Array,
    *,
    kind: Kind = ...,
    mode: Mode = ...,
    threshold: float = ...,
    alpha: float = ...,
    out: Array | None = ...,
    return_degrees: Literal[True],
) -> tuple[_Array, _Array]: ...
def affinity(
    features: Array,
    *,
    kind: Kind = "cosine",
    mode: Mode = "ncut",
    threshold: float = 0.0,
    alpha: float = 3.0,
    out: Array | None = None,
    return_degrees: bool = False,
) -> _Array | tuple[_Array, _Array]:
    """Pairwise affinity of patch features.

    Args:
        features: [n, d] or [b, n, d] float32 or float16, finite.
        kind: "cosine" or "dot" for the similarity S; a zero row has similarity 0 to every row.
        mode: "ncut" for a non-negative affinity, "cc" for the signed one of correlation clustering.
        threshold: "ncut" only, at least 0: entries at or below it become 0.
        alpha: "cc" only, above 0: the larger, the fewer clusters.
        out: [n, n] or [b, n, n] float32 or float16, contiguous; written and returned. Either is computed in
            float32.
        return_degrees: also return the row sums, which cost nothing here.
    Returns:
        [n, n] or [b, n, n] float32, or `out`, exactly symmetric; "cosine" with "ncut" lies in [0, 1].
        With `return_degrees` a pair, the second [n] or [b, n] float32.
    Raises:
        TypeError: "[affinity] features must be float32 or float16, got float64".
        ValueError: "[affinity] features must be [n, d] or [b, n, d], got shape (3,)".
        ValueError: "[affinity] features overflow: ...", with "dot" or a tiny `alpha`.
    ncut: W_ij = max(0, S_ij); cc: W = S - max(S) / alpha. DeepCut (2212.05853), section 3.
    """
    features = _checks.floats(_OP, "features", features, ("[n, d]", "[b, n, d]"))
    *batch, n, d = features.shape
    if d == 0:
        raise ValueError(f"[{_OP}] features must have at least one column, got shape {features.shape}")
    _checks.choice(_OP, "kind", kind, ("cosine", "dot"))
    _checks.choice(_OP, "mode", mode, ("ncut", "cc"))
    if not (math.isfinite(threshold) and threshold >= 0):
        raise ValueError(f"[{_OP}] threshold must be at least 0, got {threshold}")
    alpha = _checks.inverse(_OP, "alpha", alpha)
    result = _checks.float_output(_OP, "out", out, (*batch, n, n))
    _checks.disjoint(_OP, result, features)
    degrees = np.empty((*batch, n), np.float32) if return_degrees else None
    if result.size:
        _C.affinity(
            np.ascontiguousarray(features).reshape(-1, n, d),
            result.reshape(-1, n, n),
            None if degrees is None else degrees.reshape(-1, n),
            kind == "cosine",
            mode == "cc",
            float(threshold),
            alpha,
            _checks.CPU,
        )
    result = _checks.returned(out, result)
    return result if degrees is None else (result, degrees)
