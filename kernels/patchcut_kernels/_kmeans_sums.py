"""One step of k-means over a part of a collection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _launch
from ._arrays import Array
from ._kmeans import Metric

_OP = "kmeans_sums"


@dataclass(frozen=True, eq=False)
class KMeansSums:
    """n points at their nearest of k centroids, and what the next centroids are made of.

    Args:
        labels: [n] int32, the nearest centroid of each point, the first on a tie.
        distances: [n] float32, to that centroid.
        sums: [k, d] float64, of the points of each centroid, of unit rows for "cosine"; None where they were
            not asked for.
        counts: [k] int64, the points of each centroid.
        inertia: [] float64, the distances, added up.
    """

    labels: npt.NDArray[np.int32]
    distances: npt.NDArray[np.float32]
    sums: npt.NDArray[np.float64] | None
    counts: npt.NDArray[np.int64]
    inertia: npt.NDArray[np.float64]


def kmeans_sums(
    points: Array,
    centroids: Array,
    *,
    metric: Metric = "euclidean",
    sums: bool = True,
    out: KMeansSums | None = None,
    workspace: Array | None = None,
    stream: object = None,
) -> KMeansSums:
    """The nearest centroid of each point of a chunk, and the sums and counts that give the next centroids.

    Args:
        points: [n, d] float32 or float16, finite; n may be 0. They are read once, and never copied as a
            whole on the CPU: those of a memory-mapped file come from it block by block.
        centroids: [k, d] float32, finite, k at least 1.
        metric: "euclidean" for squared distances; "cosine" for 1 - cosine, on unit rows and centroids; a zero
            row is equally far from all.
        sums: False for labels, distances and counts alone, as after the last step.
        out: contiguous arrays to write, its `sums` None where they are not asked for; returned.
        workspace: memory to compute in on CUDA, see `patchcut_kernels.cuda`.
        stream: the CUDA stream to run on, see `patchcut_kernels.cuda`.
    Returns:
        KMeansSums.
    Raises:
        TypeError: "[kmeans_sums] points must be float32 or float16, got float64".
        ValueError: "[kmeans_sums] centroids must have 384 columns, got shape (8, 64)".
        ValueError: "[kmeans_sums] points overflow: ...", where squared distances leave float32.
    What the chunks of a collection give, added up, is what all of it gives at once, up to rounding, in any
    chunks and on any machines. Sums over counts are the next centroids of Lloyd (1982), for "cosine" their
    unit rows (Dhillon and Modha 2001). Labels and distances of a point do not depend on its chunk.
    As |x - c|^2 = |x|^2 - 2 (x.c - |c|^2 / 2), products find the centroids that may be nearest as far as
    their rounding allows (Higham 2002, section 3.1), mostly one; the differences tell which it is.
    Examples:
        >>> points, centroids = np.float16([[0], [1], [10], [12]]), np.float32([[0], [9]])
        >>> first, second = (pk.kmeans_sums(chunk, centroids) for chunk in (points[:3], points[3:]))
        >>> sums, counts = first.sums + second.sums, first.counts + second.counts
        >>> (sums / counts[:, None]).tolist()
        [[0.5], [11.0]]
    """
    rows = _checks.floats(_OP, "points", points, ("[n, d]",))
    n, d = rows.shape
    if d == 0:
        raise ValueError(f"[{_OP}] points must have at least one column, got shape {rows.shape}")
    targets = _checks.array(_OP, "centroids", centroids, np.float32, ("[k, d]",))
    k = targets.shape[0]
    if targets.shape[1] != d:
        raise ValueError(f"[{_OP}] centroids must have {d} columns, got shape {targets.shape}")
    if k == 0:
        raise ValueError(f"[{_OP}] centroids must have at least one row, got shape {targets.shape}")
    native_metric = _checks.member(_OP, "metric", metric, _C.Metric)
    launch = _launch.prepare(_OP, stream, workspace, points=rows, centroids=targets)
    specs: _checks.Specs = {"labels": (np.int32, (n,)), "distances": (np.float32, (n,))}
    if sums:
        specs["sums"] = (np.float64, (k, d))
    specs |= {"counts": (np.int64, (k,)), "inertia": (np.float64, ())}
    result = _checks.outputs(_OP, out, KMeansSums, launch, specs, rows, targets)
    _C.kmeans_sums(
        _checks.native(_OP, "points", rows, n, d),
        _checks.native(_OP, "centroids", targets, k, d),
        native_metric,
        _checks.native(_OP, "out.labels", result.labels, n),
        _checks.native(_OP, "out.distances", result.distances, n),
        _checks.native(_OP, "out.sums", result.sums, k, d),
        _checks.native(_OP, "out.counts", result.counts, k),
        _checks.native(_OP, "out.inertia", result.inertia, 1),
        launch.context,
    )
    return result if out is None else out
