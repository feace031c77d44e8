"""Points to clusters around means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _launch
from ._arrays import Array

Metric = Literal["euclidean", "cosine"]

_OP = "kmeans"
_Float = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class KMeansClustering:
    """n points in k clusters; a batch is one more dimension in front.

    Args:
        labels: [n] int32, the cluster of each point.
        centroids: [k, d] float32, the mean of each cluster's points; of length 1 for "cosine".
        inertia: [] float32, the distances of all points to their own centroid, added up.
    """

    labels: npt.NDArray[np.int32]
    centroids: _Float
    inertia: _Float


def kmeans(
    points: Array,
    k: int,
    *,
    metric: Metric = "euclidean",
    iterations: int = 100,
    restarts: int = 1,
    seed: int = 0,
    init: Literal["k-means++"] | Array = "k-means++",
    out: KMeansClustering | None = None,
    workspace: Array | None = None,
    stream: object = None,
) -> KMeansClustering:
    """Clusters in which points are as near to the mean as Lloyd's algorithm finds.

    Args:
        points: [n, d] or [b, n, d] float32 or float16, finite, n at least 1.
        k: clusters, 1 to n. Where there are fewer distinct points, clusters stay empty.
        metric: "euclidean" for squared distances; "cosine" for 1 - cosine, on unit rows and centroids; a zero
            row is equally far from all.
        iterations: largest number of updates of the means, 1 to 65,536; it ends where no label changes.
        restarts: how often it begins anew, 1 to 65,536 (on CUDA times iterations); the run of the least
            inertia is kept.
        seed: 0 to 2^64 - 1, for the random draws; equal seeds give equal results on every device.
        init: "k-means++", or [k, d] or [b, k, d] float32, the first centroids; then restarts must be 1.
        out: contiguous arrays to write; returned.
        workspace: memory to compute in on CUDA, see `patchcut_kernels.cuda`.
        stream: the CUDA stream to run on, see `patchcut_kernels.cuda`.
    Returns:
        KMeansClustering.
    Raises:
        TypeError: "[kmeans] points must be float32 or float16, got float64".
        ValueError: "[kmeans] k must be 1 to 256, got 300".
        ValueError: "[kmeans] points overflow: ...", where squared distances, added up, leave float32.
    Points of any magnitude are told apart, down to subnormal numbers; the inertia of the smallest is 0, or
    a subnormal number. On CUDA, differences whose squares leave float32, below 1e-22 and above 1e19, are as 0
    and infinity.
    Greedy k-means++ (Arthur and Vassilvitskii 2007, section 4) with 2 + log(k) candidates for each centroid,
    then Lloyd (1982). An empty cluster takes the point that is farthest from its centroid. "cosine" is
    spherical k-means (Dhillon and Modha 2001); half the squared distance of unit rows is 1 - cosine.
    Examples:
        >>> points = np.float32([[0], [1], [10], [11]])
        >>> sorted(pk.kmeans(points, 2).centroids.tolist())
        [[0.5], [10.5]]
    """
    rows = _checks.floats(_OP, "points", points, ("[n, d]", "[b, n, d]"))
    *batch, n, d = rows.shape
    if n == 0 or d == 0:
        raise ValueError(f"[{_OP}] points must have at least one row and column, got shape {rows.shape}")
    k = _checks.integer(_OP, "k", k, 1, n)
    native_metric = _checks.member(_OP, "metric", metric, _C.Metric)
    iterations = _checks.integer(_OP, "iterations", iterations, 1, _checks.MOST_ROUNDS)
    restarts = _checks.integer(_OP, "restarts", restarts, 1, _checks.MOST_ROUNDS)
    seed = _checks.integer(_OP, "seed", seed, 0, 2**64 - 1)
    first = _first_centroids(init, (*batch, k, d), restarts)
    launch = _launch.prepare(_OP, stream, workspace, points=rows, init=first)
    specs = {
        "labels": (np.int32, (*batch, n)),
        "centroids": (np.float32, (*batch, k, d)),
        "inertia": (np.float32, tuple(batch)),
    }
    result = _checks.outputs(_OP, out, KMeansClustering, launch, specs, rows, first)
    items = math.prod(batch)
    _C.kmeans(
        _checks.native(_OP, "points", rows, items, n, d),
        _checks.native(_OP, "init", first, items, k, d),
        native_metric,
        iterations,
        restarts,
        seed,
        _checks.native(_OP, "out.labels", result.labels, items, n),
        _checks.native(_OP, "out.centroids", result.centroids, items, k, d),
        _checks.native(_OP, "out.inertia", result.inertia, items),
        launch.context,
    )
    return result if out is None else out


def _first_centroids(init: object, shape: tuple[int, ...], restarts: int) -> _Float | None:
    if isinstance(init, str):
        _checks.choice(_OP, "init", init, ("k-means++",))
        return None
    first = _checks.array(_OP, "init", init, np.float32, ("[k, d]", "[b, k, d]"))
    _checks.shape(_OP, "init", first, shape)
    if restarts != 1:
        raise ValueError(f"[{_OP}] restarts must be 1 where init is given, got {restarts}")
    return first
