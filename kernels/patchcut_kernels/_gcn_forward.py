"""The feed-forward graph head."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _launch
from ._arrays import Array
from ._gcn_weights import GcnWeights

_OP = "gcn_forward"
_Array = npt.NDArray[np.float32]


def gcn_forward(
    features: Array,
    affinity: Array | None,
    weights: GcnWeights,
    *,
    degrees: Array | None = None,
    out: Array | None = None,
    workspace: Array | None = None,
    stream: object = None,
) -> _Array:
    """Assignment of patches to clusters by a trained graph network.

    Args:
        features: [n, d] or [b, n, d] float32 or float16, finite.
        affinity: [n, n] or [b, n, n] float32 or float16, edge weights W; None where `weights` has no graph
            layers.
        weights: the trained network.
        degrees: [n] or [b, n] float32, row sums of `affinity` if they are known; saves one reading of it.
        out: [n, k] or [b, n, k] float32, contiguous; written and returned.
        workspace: memory to compute in on CUDA, see `patchcut_kernels.cuda`.
        stream: the CUDA stream to run on, see `patchcut_kernels.cuda`.
    Returns:
        [n, k] or [b, n, k] float32, rows on the simplex.
    Raises:
        TypeError: "[gcn_forward] weights must be GcnWeights, got dict".
        ValueError: "[gcn_forward] affinity must have shape (256, 256), got (255, 255)".
    Ahat = D^-1/2 (W + I) D^-1/2 with D = rowsum(W) + 1; h <- ELU(Ahat (h theta) + h root + bias) for each
    layer, then the linear layers and a softmax. Kipf and Welling (1609.02907), equation 2, with edge weights
    as in DeepCut (2212.05853), section 3.
    Examples:
        >>> linear = pk.LinearLayer(np.eye(2, dtype=np.float32), np.zeros(2, np.float32))
        >>> weights = pk.GcnWeights(True, np.zeros(2, np.float32), np.ones(2, np.float32), (), (linear,))
        >>> pk.gcn_forward(np.float32([[1, 1]]), None, weights).tolist()
        [[0.5, 0.5]]
    """
    features = _checks.floats(_OP, "features", features, ("[n, d]", "[b, n, d]"))
    if not isinstance(weights, GcnWeights):
        raise TypeError(f"[{_OP}] weights must be GcnWeights, got {type(weights).__name__}")
    *batch, n, d = features.shape
    if d != weights.d:
        raise ValueError(f"[{_OP}] features must have {weights.d} columns, got shape {features.shape}")
    edges: npt.NDArray[np.float32 | np.float16] | None = None
    if affinity is not None:
        edges = _checks.floats(_OP, "affinity", affinity, ("[n, n]", "[b, n, n]"))
        _checks.shape(_OP, "affinity", edges, (*batch, n, n))
    elif weights.layers:
        raise TypeError(f"[{_OP}] affinity must be an array where there are graph layers, got None")
    if degrees is not None:
        degrees = _checks.array(_OP, "degrees", degrees, np.float32, ("[n]", "[b, n]"))
        _checks.shape(_OP, "degrees", degrees, (*batch, n))
    launch = _launch.prepare(_OP, stream, workspace, features=features, affinity=edges, degrees=degrees)
    result = _checks.output(_OP, "out", out, np.float32, (*batch, n, weights.k), launch)
    _checks.disjoint(_OP, result, features, edges, degrees)
    if not result.size:
        return _checks.returned(out, result)
    _C.gcn_forward(
        _checks.native(_OP, "features", features, -1, n, d),
        _checks.native(_OP, "affinity", edges, -1, n, n),
        _checks.native(_OP, "degrees", degrees, -1, n),
        _checks.native(_OP, "out", result, -1, n, weights.k),
        weights.pack(launch),
        launch.context,
    )
    return _checks.returned(out, result)
