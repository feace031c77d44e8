"""Features to affinities and assignments."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import patchcut_kernels as pk

from bench.cases import Target
from bench.cases.kernels.duel import DIM, Array, Duel, Side, difference, noisy_clusters


def _affinity(n: int) -> Duel:
    features = noisy_clusters(n)
    out, product = np.empty((n, n), np.float32), np.empty((n, n), np.float32)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected = np.maximum(unit @ unit.T, 0)
    return Duel(
        Side(
            "patchcut",
            lambda: pk.affinity(features, out=out, return_degrees=True),
            "norms, cosines, threshold and degrees",
        ),
        (Side("numpy F @ F.T", lambda: np.matmul(features, features.T, out=product), "the product alone"),),
        {"features": features.shape, "affinity": out.shape},
        {"max_abs_difference": difference(pk.affinity(features), expected)},
    )


def _gcn_forward(n: int) -> Duel:
    from bench.competitors.dense_gcn import make_forward

    features, weights = noisy_clusters(n), head_weights()
    affinity, degrees = pk.affinity(features, return_degrees=True)
    forward = make_forward(weights)
    out = np.empty((n, weights.k), np.float32)

    def ours() -> Array:
        return pk.gcn_forward(features, affinity, weights, degrees=degrees, out=out)

    def theirs() -> Array:
        return forward(features, affinity, degrees)

    return Duel(
        Side("patchcut", ours, "one forward pass, degrees known"),
        (Side("torch, dense", theirs, "one forward pass, degrees known"),),
        {"features": features.shape, "affinity": affinity.shape, "assignment": out.shape},
        {"max_abs_difference": difference(ours(), theirs())},
    )


def head_weights() -> pk.GcnWeights:
    """The embedded head's widths, random values."""
    rng = np.random.default_rng(0)

    def matrix(*shape: int) -> Array:
        values: Array = rng.standard_normal(shape).astype(np.float32) / np.float32(shape[0] ** 0.5)
        return values

    layer = pk.GcnLayer(matrix(DIM, 64), matrix(DIM, 64), matrix(64))
    mlp = (pk.LinearLayer(matrix(64, 32), matrix(32)), pk.LinearLayer(matrix(32, 2), matrix(2)))
    return pk.GcnWeights(
        True, np.zeros(DIM, np.float32), np.full(DIM, 20, np.float32), (layer,), mlp, temperature=1.0
    )


DUELS: dict[str, Callable[[], Duel]] = {
    "affinity 256x384": lambda: _affinity(256),
    "affinity 784x384": lambda: _affinity(784),
    "affinity 1369x384": lambda: _affinity(1369),
    "gcn_forward 256 nodes": lambda: _gcn_forward(256),
    "gcn_forward 784 nodes": lambda: _gcn_forward(784),
}
TARGETS = (
    Target("affinity 1369x384", "times_as_fast", ">=", 1.25, "×", "affinity, times as fast as numpy F @ F.T"),
)
