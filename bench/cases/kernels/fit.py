"""A graph network fitted to each image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import patchcut_kernels as pk

from bench.cases import Target
from bench.cases.kernels.duel import DIM, Array, Duel, Side, difference, noisy_clusters

_REPEATS = {256: 9, 1225: 3}
TARGETS = tuple(
    Target(f"gnn_fit {n} nodes", "times_as_fast", ">=", floor, "×", f"gnn_fit, {n} nodes, times as fast")
    for n, floor in ((256, 50), (1225, 100))
)


def _gnn_fit(n: int) -> Duel:
    from bench.competitors import deepcut

    features = noisy_clusters(n)
    affinity = np.empty((n, n), np.float32)
    out = pk.GnnFit(np.empty((n, 2), np.float32), np.empty(10, np.float32))

    def ours() -> Array:
        pk.affinity(features, kind="dot", out=affinity)
        return pk.gnn_fit(features, affinity, 2, out=out).assignment

    init = pk.reference.draw_fit_weights(DIM, 2, seed=0)
    edges = deepcut.make_affinity(features)
    expected, losses = deepcut.fit(deepcut.DeepCut(DIM, 2, dropout=0, init=init), features, edges)
    got = pk.gnn_fit(features, edges, 2, dropout=0, init=init)
    return Duel(
        Side("patchcut", ours, "affinity, fresh GNN, ten passes"),
        (
            Side(
                "deepcut (torch-geometric)",
                lambda: deepcut.segment(features),
                "affinity, edge list, fresh GNN, ten AdamW steps",
            ),
        ),
        {"features": features.shape, "assignment": out.assignment.shape},
        # Of the same first weights, without dropout.
        {
            "max_abs_difference": difference(got.assignment, expected),
            "max_loss_difference": difference(got.losses, losses),
        },
        repeats=_REPEATS[n],
    )


DUELS: dict[str, Callable[[], Duel]] = {
    "gnn_fit 256 nodes": lambda: _gnn_fit(256),
    "gnn_fit 1225 nodes": lambda: _gnn_fit(1225),
}
