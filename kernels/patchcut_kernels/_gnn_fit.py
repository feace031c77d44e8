"""DeepCut as published: a fresh graph network fitted to each image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _launch
from ._arrays import Array
from ._gnn_fit_weights import HIDDEN, MLP_HIDDEN, GnnFitWeights, parameter_count

_OP = "gnn_fit"
_LARGEST_WIDTH = 65536  # of a layer
_Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class GnnFit:
    """The result of a fit.

    Args:
        assignment: [n, k] or [b, n, k] float32, rows on the simplex; the last pass's, with its units dropped.
        losses: [steps] or [b, steps] float32, one for each pass; the last is the assignment's, and stands for
            the passes that were not made, too.
        weights: [p] or [b, p] float32, those of the last pass, as `GnnFitWeights.from_flat` takes them; None
            unless they are asked for.
    """

    assignment: _Array
    losses: _Array
    weights: _Array | None = None


def gnn_fit(
    features: Array,
    affinity: Array,
    k: int,
    *,
    loss: Literal["ncut", "cc"] = "ncut",
    steps: int = 10,
    learning_rate: float = 1e-3,
    dropout: float = 0.25,
    tolerance: float = 0.0,
    init: GnnFitWeights | None = None,
    weights: bool = False,
    seed: int = 0,
    out: GnnFit | None = None,
    workspace: Array | None = None,
    stream: object = None,
) -> GnnFit:
    """Assignment of patches to clusters by a graph network that is fitted to this image alone.

    Args:
        features: [n, d] or [b, n, d] float32 or float16, finite, n and d at least 1; DeepCut takes them as
            they are, not normalised.
        affinity: [n, n] or [b, n, n] float32 or float16, finite and symmetric; at least 0 for "ncut", signed
            for "cc".
        k: columns of the assignment, 1 to 65,536; for "cc" the largest number of clusters.
        loss: "ncut" or "cc", see below.
        steps: passes at most, 1 to 65,536; AdamW moves the weights between two of them.
        learning_rate: AdamW's, above 0; its other settings are torch's defaults.
        dropout: share of the hidden units that a pass drops, in [0, 1).
        tolerance: at least 0: an image's fit ends after a pass whose loss is below the one before by less
            than so much of its magnitude. 0: after all passes. What drops moves the loss, too.
        init: where each image starts; None: GCN d-64 and MLP 64-32-k, drawn as torch-geometric and torch do.
        weights: whether the fitted weights are given, from which the fit of an image that is much alike, such
            as the next frame, can start.
        seed: 0 to 2^64 - 1, for the drawn weights and the units that drop. The images of a batch share it:
            each gets the result that it would get alone.
        out: GnnFit of contiguous arrays; written and returned.
        workspace: memory to compute in on CUDA, see `patchcut_kernels.cuda`.
        stream: the CUDA stream to run on, see `patchcut_kernels.cuda`.
    Returns:
        GnnFit.
    Raises:
        TypeError: "[gnn_fit] features must be float32 or float16, got float64".
        ValueError: "[gnn_fit] affinity must have shape (256, 256), got (255, 255)".
        ValueError: "[gnn_fit] affinity must be at least 0 for NCut, got -0.5".
    S = softmax(MLP(ELU(Ahat X theta + bias))), DeepCut (2212.05853), section 3. Ahat is the normalised graph
    of Kipf and Welling (1609.02907), equation 2, with the positive entries of the affinity W as edge weights;
    a node without an edge to itself gets one of weight 1. With D = rowsum(W) and G = SᵀS the loss is
    ncut: |G / |G| - I / sqrt(k)| - tr(SᵀWS) / tr(SᵀDS), without the second term where W is 0;
    cc: -tr(SᵀWS).
    The assignment is the last pass's, as in DeepCut; with dropout 0, one step more gives the result
    of the last update.
    Examples:
        >>> fit = pk.gnn_fit(np.eye(4, dtype=np.float32), np.ones((4, 4), np.float32), 2, steps=3)
        >>> fit.assignment.shape, fit.losses.shape
        ((4, 2), (3,))
        >>> fit = pk.gnn_fit(np.eye(4, dtype=np.float32), np.ones((4, 4), np.float32), 2, weights=True)
        >>> pk.GnnFitWeights.from_flat(fit.weights, d=4, k=2).logits.weight.shape
        (32, 2)
    """
    features = _checks.floats(_OP, "features", features, ("[n, d]", "[b, n, d]"))
    *batch, n, d = features.shape
    if n == 0 or d == 0:
        raise ValueError(
            f"[{_OP}] features must have at least one row and column, got shape {features.shape}"
        )
    affinity = _checks.floats(_OP, "affinity", affinity, ("[n, n]", "[b, n, n]"))
    _checks.shape(_OP, "affinity", affinity, (*batch, n, n))
    k = _checks.integer(_OP, "k", k, 1, _LARGEST_WIDTH)
    native_loss = _checks.member(_OP, "loss", loss, _C.AffinityMode)
    steps = _checks.integer(_OP, "steps", steps, 1, _checks.MOST_ROUNDS)
    learning_rate, dropout, tolerance = _rates(learning_rate, dropout, tolerance)
    _check_init(init, d, k)
    seed = _checks.integer(_OP, "seed", seed, 0, 2**64 - 1)
    launch = _launch.prepare(_OP, stream, workspace, features=features, affinity=affinity)
    specs = {"assignment": (np.float32, (*batch, n, k)), "losses": (np.float32, (*batch, steps))}
    widths = (HIDDEN, MLP_HIDDEN) if init is None else init.widths
    parameters = parameter_count(d, k, *widths)
    if weights:
        specs["weights"] = (np.float32, (*batch, parameters))
    result = _checks.outputs(_OP, out, GnnFit, launch, specs, features, affinity)
    _checks.disjoint(_OP, result.losses, result.assignment, result.weights)
    _checks.disjoint(_OP, result.assignment, result.weights)
    if result.assignment.size:
        _C.gnn_fit(
            _checks.native(_OP, "features", features, -1, n, d),
            _checks.native(_OP, "affinity", affinity, -1, n, n),
            _checks.native(_OP, "out.assignment", result.assignment, -1, n, k),
            _checks.native(_OP, "out.losses", result.losses, -1, steps),
            native_loss,
            learning_rate,
            dropout,
            tolerance,
            seed,
            None if init is None else init.lend(launch),
            _checks.native(_OP, "out.weights", result.weights, math.prod(batch), parameters),
            launch.context,
        )
    return result if out is None else out


def _rates(learning_rate: float, dropout: float, tolerance: float) -> tuple[float, float, float]:
    learning_rate = _checks.number(_OP, "learning_rate", learning_rate)
    dropout = _checks.number(_OP, "dropout", dropout)
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"[{_OP}] learning_rate must be above 0, got {learning_rate}")
    if not 0 <= dropout < 1:
        raise ValueError(f"[{_OP}] dropout must be in [0, 1), got {dropout}")
    tolerance = _checks.number(_OP, "tolerance", tolerance)
    if not 0 <= tolerance <= _checks.LARGEST_FLOAT:
        raise ValueError(f"[{_OP}] tolerance must be at least 0, got {tolerance}")
    return learning_rate, dropout, tolerance


def _check_init(init: object, d: int, k: int) -> None:
    if init is None:
        return
    if not isinstance(init, GnnFitWeights):
        raise TypeError(f"[{_OP}] init must be GnnFitWeights, got {type(init).__name__}")
    if (init.d, init.k) != (d, k):
        raise ValueError(f"[{_OP}] init must go from {d} columns to {k}, got from {init.d} to {init.k}")
