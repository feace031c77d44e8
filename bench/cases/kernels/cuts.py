"""Graphs to cuts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import patchcut_kernels as pk

from bench import subjects
from bench.cases import BenchError, Target
from bench.cases.kernels.duel import DIM, Array, Duel, Side

_REPEATS = {784: 20, 1369: 9, 3600: 3}
_FLOORS = {784: 15, 1369: 40, 3600: 150}
_COSINE = "ncut plain cosine, 3600 nodes"
_TEN = "ncut 10 vectors, 1369 nodes"
_TEN_FROM_FEATURES = f"{_TEN}, from features"
TARGETS = (
    *(
        Target(
            f"ncut {n} nodes", "times_as_fast", ">=", floor, "×", f"ncut, {n} nodes, times as fast as eigh"
        )
        for n, floor in _FLOORS.items()
    ),
    *(
        Target(
            f"ncut {n} nodes", "adjusted_rand_index", ">=", 0.98, "", f"ncut, {n} nodes, agreement with eigh"
        )
        for n in _FLOORS
    ),
    Target(_COSINE, "times_as_fast", ">=", 1, "×", "ncut, plain cosine, times as fast as fastncut"),
    # Sides are taken at the vector's mean here, at 0 there: either may be lower by a trifle.
    Target(_COSINE, "cut_over_fastncut", "<=", 1, "", "ncut, plain cosine, cut value over fastncut's"),
    Target(_TEN, "times_as_fast", ">=", 5, "×", "ncut, 10 vectors, times as fast as eigsh, sigma 0"),
    Target(
        _TEN_FROM_FEATURES, "times_as_fast", ">=", 5, "×", "ncut, 10 vectors, times as fast as ncut-pytorch"
    ),
)


def _one_vector(n: int) -> Duel:
    from bench.competitors.tokencut import second_vector

    weights = _weights(_features(n))
    out = pk.ncut(weights, precomputed=True)
    return Duel(
        Side("patchcut", lambda: pk.ncut(weights, precomputed=True, out=out), "row sums, one vector"),
        (
            Side("scipy eigh", lambda: second_vector(weights), "row sums, D - W, one vector"),
            Side("scipy eigsh", lambda: _largest(weights, 2), "row sums, D^-1/2 W D^-1/2, two vectors"),
        ),
        {"weights": weights.shape, "vectors": out.vectors.shape},
        {
            "adjusted_rand_index": _agreement(out.vectors[:, 0], second_vector(weights)),
            "residual": float(out.residuals.max()),
        },
        repeats=_REPEATS[n],
    )


def _bipartition(side: int) -> Duel:
    from bench.competitors import tokencut

    features, grid_hw = _features(side * side), (side, side)
    out = pk.bipartition(features, grid_hw)
    mask, _ = tokencut.bipartition(features, grid_hw)
    return Duel(
        Side("patchcut", lambda: pk.bipartition(features, grid_hw, out=out), "affinity, cut, component"),
        (
            Side("TokenCut, float32", lambda: tokencut.bipartition(features, grid_hw), "the same"),
            Side(
                "TokenCut, float64",
                lambda: tokencut.bipartition(features, grid_hw, dtype=np.float64),
                "the same, the product in float32",
            ),
        ),
        {"features": features.shape, "mask": grid_hw},
        {"mask_agreement": float((out.mask == mask).mean())},
        repeats=_REPEATS[side * side],
    )


def _plain_cosine(side: int) -> Duel:
    """W = S + 1, which is fastncut's auto_fix; its settings for features of many columns."""
    import torch
    from torch.nn.functional import normalize

    try:
        from fastncut import ncut
    except ImportError:
        raise BenchError("it needs fastncut: pip install 'fastncut>=2.0.6,<3'") from None
    features = _features(side * side)
    grid = torch.from_numpy(features).reshape(side, side, -1)
    out = pk.ncut(features, threshold=None)

    def theirs() -> Any:
        return ncut(normalize(grid, dim=2), num_iters=4, data_format="hwc", auto_fix=True)

    weights = pk.reference.cut_graph(features, threshold=None)
    vector = out.vectors[:, 0]
    parts = (vector > vector.mean(), np.asarray(theirs()).ravel())
    ours_cut, their_cut = (_cut_value(weights, part) for part in parts)
    return Duel(
        Side(
            "patchcut",
            lambda: pk.ncut(features, threshold=None, out=out),
            "unit rows, row sums, 10 iterations, residual",
        ),
        (Side("fastncut", theirs, "unit rows, row sums, 4 iterations, sides"),),
        {"features": features.shape, "vectors": out.vectors.shape},
        {"cut": ours_cut, "cut_over_fastncut": ours_cut / their_cut},
    )


def _ten_vectors(n: int) -> Duel:
    weights = _weights(_features(n))
    out = pk.ncut(weights, 10, precomputed=True)
    values = np.sort(1 - _largest(weights, 11)[0])[1:]
    return Duel(
        Side("patchcut", lambda: pk.ncut(weights, 10, precomputed=True, out=out), "row sums, 10 vectors"),
        (
            Side(
                "scipy eigsh, sigma 0",
                lambda: _smallest(weights, 11),
                "row sums, D - W, 11 vectors, as deep spectral segmentation has it",
            ),
            Side(
                "scipy eigsh, largest", lambda: _largest(weights, 11), "row sums, D^-1/2 W D^-1/2, 11 vectors"
            ),
        ),
        {"weights": weights.shape, "vectors": out.vectors.shape},
        {
            "residual": float(out.residuals.max()),
            "max_eigenvalue_difference": float(np.abs(values - out.eigenvalues).max()),
        },
        repeats=_REPEATS[n],
    )


def _ten_vectors_from_features(n: int) -> Duel:
    import torch

    try:
        from ncut_pytorch import ncut_fn
        from ncut_pytorch.utils.math import cosine_affinity
    except ImportError:
        raise BenchError("it needs ncut-pytorch: pip install ncut-pytorch==3.2.0") from None
    features = _features(n)
    tensor = torch.from_numpy(features)

    def theirs() -> Any:
        return ncut_fn(tensor, n_eig=11, affinity_fn=cosine_affinity, device="cpu")

    wanted = _captured(cosine_affinity(tensor).numpy(), theirs()[0].numpy()[:, 1:])
    weights = _numpy_weights(features)
    root_degrees = np.sqrt(weights.sum(1, keepdims=True))

    def captured(iterations: int) -> float:
        return _captured(weights, pk.ncut(features, 10, iterations=iterations).vectors * root_degrees)

    fewest = next(i for i in count(1) if captured(i) >= wanted)
    out = pk.ncut(features, 10, iterations=fewest)
    exact = pk.ncut(features, 10)
    as_accurate = f"affinity, 10 vectors, {fewest} iterations: as near to the eigenvectors as ncut-pytorch"
    return Duel(
        Side("patchcut", lambda: pk.ncut(features, 10, iterations=fewest, out=out), as_accurate),
        (
            Side("ncut-pytorch", theirs, "its affinity, 11 vectors"),
            Side("patchcut, to the end", lambda: pk.ncut(features, 10, out=exact), "affinity, 10 vectors"),
            Side("scipy eigsh", lambda: _largest(_numpy_weights(features), 11), "affinity, 11 vectors"),
        ),
        {"features": features.shape, "vectors": out.vectors.shape},
        {
            "captured": captured(fewest),
            "captured_by_ncut_pytorch": wanted,
            "residual_to_the_end": float(exact.residuals.max()),
        },
    )


def _captured(weights: Array, vectors: Array) -> float:
    """How much of the sum of the eigenvalues after the first of D^-1/2 W D^-1/2 the vectors [n, k] span.

    It is 1 of the eigenvectors alone (Ky Fan 1949); each library has a graph of its own.
    """
    degrees = weights.astype(np.float64).sum(1)
    scales = 1 / np.sqrt(degrees)
    matrix = scales[:, None] * weights * scales
    basis = np.linalg.qr(np.column_stack([np.sqrt(degrees), vectors]))[0][:, 1:]
    largest = np.linalg.eigvalsh(matrix)[-1 - vectors.shape[1] : -1]
    return float(np.trace(basis.T @ matrix @ basis) / largest.sum())


@cache
def _features(n: int) -> Array:
    """[n, 384] float32, those of the sample photo at 448, interpolated between its 32 x 32 patches."""
    from scipy.ndimage import zoom

    patches = subjects.photo_features(448).reshape(32, 32, DIM)
    scale = round(n**0.5) / 32
    rows: Array = np.ascontiguousarray(
        zoom(patches, (scale, scale, 1), order=1, mode="nearest").reshape(n, DIM)
    )
    return rows


def _weights(features: Array) -> Array:
    """[n, n], the thresholded cosine with every pair joined a little."""
    joined: Array = pk.affinity(features) * np.float32(1 - 1e-5) + np.float32(1e-5)
    return joined


def _numpy_weights(features: Array) -> Array:
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    weights: Array = np.maximum(unit @ unit.T, np.float32(1e-5))
    return weights


def _smallest(weights: Array, count: int) -> tuple[Array, Array]:
    """Eigenvalues and vectors of (D - W) x = lambda D x, in shift-invert mode."""
    from scipy.sparse.linalg import eigsh

    degrees = np.diag(weights.sum(1))
    values, vectors = eigsh(degrees - weights, k=count, sigma=0, which="LM", M=degrees)
    return values, vectors


def _largest(weights: Array, count: int) -> tuple[Array, Array]:
    """Eigenvalues and vectors of D^-1/2 W D^-1/2."""
    from scipy.sparse.linalg import eigsh

    scales = 1 / np.sqrt(weights.sum(1))
    values, vectors = eigsh(scales[:, None] * weights * scales, k=count, which="LA")
    return values, vectors


def _agreement(ours: Array, theirs: Array) -> float:
    """Adjusted Rand index of two vectors' sides of their means."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(ours > ours.mean(), theirs > theirs.mean()))


def _cut_value(weights: npt.NDArray[np.float64], part: npt.NDArray[np.bool_]) -> float:
    """Ncut of a bipartition: Shi and Malik (2000), equation 2."""
    between = weights[part][:, ~part].sum()
    return float(between / weights[part].sum() + between / weights[~part].sum())


DUELS: dict[str, Callable[[], Duel]] = {
    **{f"ncut {n} nodes": partial(_one_vector, n) for n in _REPEATS},
    **{f"bipartition {side}x{side}": partial(_bipartition, side) for side in (28, 37, 60)},
    _COSINE: partial(_plain_cosine, 60),
    _TEN: partial(_ten_vectors, 1369),
    _TEN_FROM_FEATURES: partial(_ten_vectors_from_features, 1369),
}
