"""Graphs to cuts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .._bipartition import Bipartition
from .._ncut import NCut
from ._masks import connected_components
from ._nodes import unit_rows
from ._types import Float64, Real


def cut_graph(
    features: Real,
    *,
    precomputed: bool = False,
    threshold: float | None = 0.0,
    binary: bool = False,
    floor: float = 1e-5,
    offset: float = 1.0,
) -> Float64:
    """[n, n] weights of the graph that is cut."""
    if precomputed:
        return np.asarray(features, np.float64)
    rows = unit_rows(features)
    cosine = rows @ rows.T
    if threshold is None:
        return np.asarray(cosine + offset, np.float64)
    edges = np.where(cosine > threshold, 1.0 if binary else cosine, 0.0)
    return np.asarray(floor + (1 - floor) * edges, np.float64)


def cut_vectors(weights: Float64, k: int) -> tuple[Float64, Float64]:
    """The k smallest eigenvalues [k] of (D - W) x = λ D x, without the constant one's, and vectors [n, k]."""
    degrees = weights.sum(axis=1)
    scales = np.where(degrees > 0, 1 / np.sqrt(np.where(degrees > 0, degrees, 1)), 0.0)
    constant = np.sqrt(degrees) / np.sqrt(degrees.sum()) if degrees.any() else degrees
    others = np.eye(len(weights)) - np.outer(constant, constant)
    normalized = others @ (scales[:, None] * weights * scales) @ others
    below_all = 1 + np.abs(normalized).sum()
    values, vectors = np.linalg.eigh(normalized - below_all * np.outer(constant, constant))
    found = scales[:, None] * vectors[:, ::-1][:, :k]
    largest = found[np.abs(found).argmax(axis=0), np.arange(k)]
    return 1 - values[::-1][:k], found * np.where(largest < 0, -1, 1)


def ncut(
    features: Real,
    k: int = 1,
    *,
    precomputed: bool = False,
    threshold: float | None = 0.0,
    binary: bool = False,
    floor: float = 1e-5,
    offset: float = 1.0,
) -> NCut:
    """`cut_vectors` of `cut_graph`: exact, without products, wherever the op starts from."""
    weights = cut_graph(
        features, precomputed=precomputed, threshold=threshold, binary=binary, floor=floor, offset=offset
    )
    values, vectors = cut_vectors(weights, k)
    return NCut(
        values.astype(np.float32), vectors.astype(np.float32), np.zeros(k, np.float32), np.array(0, np.int32)
    )


def split(
    vector: Float64, grid_hw: tuple[int, int], *, connected: bool = True
) -> tuple[npt.NDArray[np.bool_], int]:
    """[h, w] side of a vector's mean where its entry of largest magnitude is; and that entry's index."""
    seed = int(np.abs(vector).argmax())
    mask = ((vector > vector.mean()) == (vector[seed] > vector.mean())).reshape(grid_hw)
    if connected:
        ids, _ = connected_components(mask.astype(np.int32), connectivity=4)
        mask = ids == ids.flat[seed]
    return mask, seed


def bipartition(
    features: Real,
    grid_hw: tuple[int, int],
    *,
    precomputed: bool = False,
    threshold: float | None = 0.2,
    binary: bool = True,
    floor: float = 1e-5,
    offset: float = 1.0,
    connected: bool = True,
) -> Bipartition:
    """`split` of the first vector of `cut_graph`."""
    weights = cut_graph(
        features, precomputed=precomputed, threshold=threshold, binary=binary, floor=floor, offset=offset
    )
    vector = cut_vectors(weights, 1)[1][:, 0]
    mask, seed = split(vector, grid_hw, connected=connected)
    return Bipartition(mask, np.array(seed, np.int32), vector.astype(np.float32))
