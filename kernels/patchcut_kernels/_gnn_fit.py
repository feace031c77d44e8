"""DeepCut as published: a fresh graph network fitted to each image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _place
from ._arrays import Array
from ._gnn_fit_weights import GnnFitWeights

_OP = "gnn_fit"
_Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class GnnFit:
    """What a fit gives.

    Args:
        assignment: [n, k] or [b, n, k] float32, rows on the simplex; the last pass's, with its units dropped.
        losses: [steps] or [b, steps] float32, of each pass; the last is the assignment's.
    """

    assignment: _Array
    losses: _Array


def gnn_fit(
    features: Array,
    affinity: Array,
    k: int,
    *,
    loss: Literal["ncut", "cc"] = "ncut",
    steps: int = 10,
    learning_rate: float = 1e-3,
    dropout: float = 0.25,
    init: GnnFitWeights | None = None,
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
        k: columns of the assignment, at least 1; for "cc" the most clusters that it may find.
        loss: "ncut" or "cc", see below.
        steps: passes, at least 1; AdamW moves the weights between two of them.
        learning_rate: AdamW's, above 0; its other settings are torch's defaults.
        dropout: share of the hidden units that a pass drops, in [0, 1).
        init: where each image starts; None: GCN d-64 and MLP 64-32-k, drawn as torch-geometric and torch do.
        seed: of the drawn weights and of what drops, 0 to 2^64 - 1. The images of a batch share it: each gets
            what it would get alone.
        out: GnnFit of contiguous arrays; written and returned.
        workspace: [bytes] uint8 on CUDA, for what the op keeps meanwhile; taken from the stream's pool where
            None. One that is too small is an error that says how much is needed.
        stream: where the arrays lie on CUDA: a stream of any library or its handle; None for the stream that
            the arrays name, else the legacy default stream.
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
    The assignment is the last pass's, as in DeepCut; where nothing drops, one step more gives what the last
    update leads to.
    """
    features = _checks.floats(_OP, "features", features, ("[n, d]", "[b, n, d]"))
    *batch, n, d = features.shape
    if n == 0 or d == 0:
        raise ValueError(
            f"[{_OP}] features must have at least one row and column, got shape {features.shape}"
        )
    affinity = _checks.floats(_OP, "affinity", affinity, ("[n, n]", "[b, n, n]"))
    _checks.shape(_OP, "affinity", affinity, (*batch, n, n))
    k = _checks.integer(_OP, "k", k, 1)
    _checks.choice(_OP, "loss", loss, ("ncut", "cc"))
    steps = _checks.integer(_OP, "steps", steps, 1)
    learning_rate, dropout = _rates(learning_rate, dropout)
    _check_init(init, d, k)
    seed = _checks.integer(_OP, "seed", seed, 0, 2**64 - 1)
    place = _place.place(_OP, stream, workspace, features=features, affinity=affinity)
    given = _checks.record(_OP, out, GnnFit)
    assignment = _checks.output(
        _OP, "out.assignment", given.get("assignment"), np.float32, (*batch, n, k), place
    )
    losses = _checks.output(_OP, "out.losses", given.get("losses"), np.float32, (*batch, steps), place)
    _checks.disjoint(_OP, assignment, features, affinity)
    _checks.disjoint(_OP, losses, features, affinity, assignment)
    if assignment.size:
        _C.gnn_fit(
            _checks.native(_OP, "features", features, -1, n, d),
            _checks.native(_OP, "affinity", affinity, -1, n, n),
            _checks.native(_OP, "out.assignment", assignment, -1, n, k),
            _checks.native(_OP, "out.losses", losses, -1, steps),
            loss == "cc",
            learning_rate,
            dropout,
            seed,
            None if init is None else init.at(place),
            place.context,
        )
    return GnnFit(assignment, losses) if out is None else out


def _rates(learning_rate: float, dropout: float) -> tuple[float, float]:
    learning_rate = _checks.number(_OP, "learning_rate", learning_rate)
    dropout = _checks.number(_OP, "dropout", dropout)
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"[{_OP}] learning_rate must be above 0, got {learning_rate}")
    if not 0 <= dropout < 1:
        raise ValueError(f"[{_OP}] dropout must be in [0, 1), got {dropout}")
    return learning_rate, dropout


def _check_init(init: object, d: int, k: int) -> None:
    if init is None:
        return
    if not isinstance(init, GnnFitWeights):
        raise TypeError(f"[{_OP}] init must be GnnFitWeights, got {type(init).__name__}")
    if (init.d, init.k) != (d, k):
        raise ValueError(f"[{_OP}] init must go from {d} columns to {k}, got from {init.d} to {init.k}")
