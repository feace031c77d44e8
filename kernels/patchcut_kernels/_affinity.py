"""Patch features to a graph."""

from __future__ import annotations

import math
from typing import Literal, overload

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _launch
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
    workspace: Array | None = ...,
    stream: object = ...,
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
    return_degrees: Literal[True] | Array,
    workspace: Array | None = ...,
    stream: object = ...,
) -> tuple[_Array, _Array]: ...
def affinity(
    features: Array,
    *,
    kind: Kind = "cosine",
    mode: Mode = "ncut",
    threshold: float = 0.0,
    alpha: float = 3.0,
    out: Array | None = None,
    return_degrees: bool | Array = False,
    workspace: Array | None = None,
    stream: object = None,
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
        return_degrees: True to also return the row sums, which cost nothing here; or [n] or [b, n] float32,
            contiguous, to have them written there and returned.
        workspace: memory to compute in on CUDA, see `patchcut_kernels.cuda`.
        stream: the CUDA stream to run on, see `patchcut_kernels.cuda`.
    Returns:
        [n, n] or [b, n, n], float32 unless `out` is float16, exactly symmetric; "cosine" with "ncut" lies in
        [0, 1].
        With `return_degrees` a pair, the second [n] or [b, n] float32.
    Raises:
        TypeError: "[affinity] features must be float32 or float16, got float64".
        ValueError: "[affinity] features must be [n, d] or [b, n, d], got shape (3,)".
        ValueError: "[affinity] features overflow: ...", with "dot" or a tiny `alpha`.
    ncut: W_ij = max(0, S_ij); cc: W = S - max(S) / alpha. DeepCut (2212.05853), section 3.
    Examples:
        >>> features = np.float32([[1, 0], [0, 2], [4, 0]])
        >>> pk.affinity(features).tolist()
        [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    """
    features = _checks.floats(_OP, "features", features, ("[n, d]", "[b, n, d]"))
    *batch, n, d = features.shape
    if d == 0:
        raise ValueError(f"[{_OP}] features must have at least one column, got shape {features.shape}")
    native_kind = _checks.member(_OP, "kind", kind, _C.AffinityKind)
    native_mode = _checks.member(_OP, "mode", mode, _C.AffinityMode)
    threshold = _checks.number(_OP, "threshold", threshold)
    if not (math.isfinite(threshold) and threshold >= 0):
        raise ValueError(f"[{_OP}] threshold must be at least 0, got {threshold}")
    alpha = _checks.inverse(_OP, "alpha", alpha)
    launch = _launch.prepare(_OP, stream, workspace, features=features)
    result = _checks.float_output(_OP, "out", out, (*batch, n, n), launch)
    _checks.disjoint(_OP, result, features)
    degrees, degrees_out = _checks.optional_output(
        _OP, "return_degrees", return_degrees, np.float32, (*batch, n), launch
    )
    if degrees is not None:
        _checks.disjoint(_OP, degrees, result, features)
    if result.size:
        _C.affinity(
            _checks.native(_OP, "features", features, -1, n, d),
            _checks.native(_OP, "out", result, -1, n, n),
            _checks.native(_OP, "return_degrees", degrees, -1, n),
            native_kind,
            native_mode,
            threshold,
            alpha,
            launch.context,
        )
    result = _checks.returned(out, result)
    return result if degrees is None else (result, _checks.returned(degrees_out, degrees))
