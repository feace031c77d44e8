"""Features to affinities and assignments."""

from __future__ import annotations

import numpy as np

from .._gcn_weights import GcnWeights
from ._types import Float64, Real


def unit_rows(features: Real) -> Float64:
    """Rows divided by their L2 norm; a zero row stays zero."""
    rows = np.asarray(features, np.float64)
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1), np.float64)


def affinity(
    features: Real,
    *,
    kind: str = "cosine",
    mode: str = "ncut",
    threshold: float = 0.0,
    alpha: float = 3.0,
) -> Float64:
    """[n, n] affinity of [n, d] features; the degrees are its row sums."""
    rows = unit_rows(features) if kind == "cosine" else np.asarray(features, np.float64)
    similarity = rows @ rows.T
    if mode == "cc":
        return np.asarray(similarity - similarity.max(initial=-np.inf) / alpha, np.float64)
    return np.where(similarity > threshold, similarity, 0.0)


def elu(x: Float64) -> Float64:
    """x above 0, exp(x) - 1 below."""
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def softmax(x: Float64) -> Float64:
    """Softmax of each row."""
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True), np.float64)


def gcn_forward(features: Real, affinity: Real | None, weights: GcnWeights) -> Float64:
    """[n, k] assignment."""
    h = unit_rows(features) if weights.normalize else np.asarray(features, np.float64)
    h = (h - weights.shift) * weights.scale
    if weights.layers:
        edges = np.asarray(affinity, np.float64)
        scales = 1 / np.sqrt(edges.sum(axis=1) + 1)
        ahat = scales[:, None] * (edges + np.eye(len(edges))) * scales
    for layer in weights.layers:
        from_root = 0.0 if layer.root is None else h @ layer.root
        h = elu(ahat @ (h @ layer.theta) + from_root + layer.bias)
    for linear in weights.mlp[:-1]:
        h = elu(h @ linear.weight + linear.bias)
    last = weights.mlp[-1]
    return softmax((h @ last.weight + last.bias) / weights.temperature)
