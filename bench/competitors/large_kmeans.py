"""k-means of points in a file, as one would write it; each call is meant for a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import patchcut_kernels as pk

from bench import machine

STEPS = 10
CHUNK = 65536
# Of MiniBatchKMeans: its default; its documentation asks for 256 a core at least, to use all cores.
BATCH = 1024
Points = npt.NDArray[np.float16]
Centroids = npt.NDArray[np.float32]
# Milliseconds after which an inertia is known to be reached, of each step.
Trail = list[tuple[float, float]]


def run(who: str, folder: Path, threads: int) -> tuple[float, float, Trail]:
    """Milliseconds of `STEPS` steps on points.npy [n, d] from centroids.npy [k, d], and their inertia.

    The last is the way there, of patchcut alone: a step tells the inertia of the centroids it begins with.

    Args:
        who: a key of `WAYS`.
        folder: where the two files lie.
        threads: how many each thread pool gets.
    """
    points: Points = np.load(folder / "points.npy", mmap_mode="r")
    centroids: Centroids = np.load(folder / "centroids.npy")
    trail: Trail = []
    fit = WAYS[who](points, centroids, threads, trail)
    machine.set_threads(threads)
    begin = time.perf_counter()
    found = np.ascontiguousarray(fit(), np.float32)
    ms = 1e3 * (time.perf_counter() - begin)
    inertia = sum(float(pk.kmeans_sums(chunk, found, sums=False).inertia) for chunk in _chunks(points))
    return ms, inertia, trail


def _chunks(points: Points) -> list[Points]:
    return [points[first : first + CHUNK] for first in range(0, len(points), CHUNK)]


def _patchcut(points: Points, centroids: Centroids, _: int, trail: Trail) -> Callable[[], Any]:
    def fit() -> Centroids:
        found, begin = centroids, time.perf_counter()
        for _ in range(STEPS):
            parts = [pk.kmeans_sums(chunk, found) for chunk in _chunks(points)]
            trail.append((1e3 * (time.perf_counter() - begin), sum(float(part.inertia) for part in parts)))
            counts = np.sum([part.counts for part in parts], axis=0)[:, None]
            sums = np.sum([part.sums for part in parts if part.sums is not None], axis=0)
            found = np.where(counts > 0, sums / np.maximum(counts, 1), found).astype(np.float32)
        return found

    return fit


def _faiss(points: Points, centroids: Centroids, threads: int, _: Trail) -> Callable[[], Any]:
    import faiss

    faiss.omp_set_num_threads(threads)
    floats = points.astype(np.float32)
    k, d = centroids.shape
    every = {"max_points_per_centroid": len(points), "min_points_per_centroid": 1}
    means = faiss.Kmeans(d, k, niter=STEPS, nredo=1, **every)

    def fit() -> Any:
        means.train(floats, init_centroids=centroids)
        return means.centroids

    return fit


def _scikit_learn(points: Points, centroids: Centroids, threads: int, _: Trail) -> Callable[[], Any]:
    from sklearn.cluster import MiniBatchKMeans

    floats = points.astype(np.float32)
    passes = {"max_iter": STEPS, "batch_size": max(BATCH, 256 * threads), "compute_labels": False}
    means = MiniBatchKMeans(len(centroids), init=centroids, n_init=1, random_state=0, **passes)
    return lambda: means.fit(floats).cluster_centers_


WAYS: dict[str, Callable[[Points, Centroids, int, Trail], Callable[[], Any]]] = {
    "patchcut": _patchcut,
    "faiss": _faiss,
    "scikit-learn MiniBatchKMeans": _scikit_learn,
}
