"""Features and affinities to clusters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import patchcut_kernels as pk

from bench.cases import BenchError, Target
from bench.cases.kernels.duel import DIM, Array, Duel, Side, difference, noisy_clusters

_REPEATS = {256: 20, 784: 5, 1369: 3}
_KMEANS = "kmeans 1369x384, k 8"
_COSEGMENT = {256: "cosegment 50 images x 256x384", 1024: "cosegment 50 images x 1024x384"}
_KMEANS_TARGETS = tuple(
    target
    for case in (_KMEANS, f"{_KMEANS}, given centroids")
    for target in (
        Target(case, "times_as_fast", ">=", 3, "×", f"{case}, times as fast as scikit-learn"),
        Target(case, "inertia_ratio", "<=", 1.02, "", f"{case}, inertia over scikit-learn's"),
    )
)
TARGETS = (
    *_KMEANS_TARGETS,
    Target(_COSEGMENT[256], "median_ms", "<=", 300, " ms", "cosegment, 50 images of 256 patches"),
    Target(_COSEGMENT[256], "times_as_fast", ">=", 10, "×", "cosegment, times as fast as ReCo's own steps"),
    Target(_COSEGMENT[1024], "median_ms", "<=", 4000, " ms", "cosegment, 50 images of 1,024 patches"),
)


def _kmeans(n: int, k: int, *, given: bool) -> Duel:
    """Both end where no label changes, scikit-learn also where the centroids hardly move, its default."""
    from sklearn.cluster import KMeans

    points = _related_clusters(n)
    init = points[np.random.default_rng(1).choice(n, k, replace=False)] if given else None
    out = pk.kmeans(points, k)

    def ours(seed: int = 0) -> pk.KMeansClustering:
        return pk.kmeans(points, k, init="k-means++" if init is None else init, seed=seed, out=out)

    def theirs(seed: int = 0) -> Any:
        first = "k-means++" if init is None else init
        return KMeans(k, init=first, n_init=1, max_iter=100, random_state=seed).fit(points)

    seeds = range(1 if given else 10)
    ratio = sum(float(ours(s).inertia) for s in seeds) / sum(theirs(s).inertia_ for s in seeds)
    inside = "Lloyd from given centroids" if given else "greedy k-means++ and Lloyd, once"
    return Duel(
        Side("patchcut", ours, inside),
        (Side("scikit-learn KMeans", theirs, inside),),
        {"points": points.shape, "centroids": out.centroids.shape},
        {"inertia_ratio": ratio},  # of one run, or the means of ten seeds
    )


def _kmeans_sums(n: int, k: int) -> Duel:
    points = _related_clusters(n).astype(np.float16)
    centroids = points[np.random.default_rng(1).choice(n, k, replace=False)].astype(np.float32)
    out = pk.kmeans_sums(points, centroids)

    def ours() -> pk.KMeansSums:
        return pk.kmeans_sums(points, centroids, out=out)

    def theirs() -> tuple[npt.NDArray[np.int64], Array]:
        rows = points.astype(np.float32)
        scores = rows @ centroids.T
        scores -= np.square(centroids).sum(1) / 2
        labels = scores.argmax(1)
        return labels, np.eye(k, dtype=np.float32)[:, labels] @ rows

    labels, sums = theirs()
    assert out.sums is not None
    return Duel(
        Side("patchcut", ours, "labels, distances, sums and counts of float16 points"),
        (Side("numpy", theirs, "float32 points, products, labels, sums by a product; no distances"),),
        {"points": points.shape, "centroids": centroids.shape},
        {
            "label_agreement": float((out.labels == labels).mean()),
            "max_abs_difference": difference(out.sums, sums),
        },
        dtype="float16",
    )


def _correlation_cluster(n: int) -> Duel:
    from bench.competitors import deepcut

    try:
        from bench.competitors import leiden
    except ImportError:
        raise BenchError("it needs leidenalg: pip install -e '.[dev]'") from None
    features = _related_clusters(n)
    affinity = pk.affinity(features, mode="cc")
    partition = leiden.make_partition(affinity)
    out = pk.correlation_cluster(affinity)

    def ours() -> pk.CorrelationClustering:
        return pk.correlation_cluster(affinity, out=out)

    def fit() -> Array:
        return deepcut.fit(deepcut.DeepCut(DIM, 10), features, affinity, "cc")[0]

    fitted = fit().argmax(1)
    return Duel(
        Side("patchcut", ours, "all starts"),
        (
            Side("leidenalg, CPM", partition, "until it gains no more; the graph is made outside"),
            Side(
                "deepcut (torch-geometric), CC loss",
                fit,
                "edge list, fresh GNN of 10 columns, ten AdamW steps",
            ),
        ),
        {"affinity": affinity.shape, "labels": out.labels.shape},
        {
            "objective_over_leiden": float(ours().objective) / _kept_weight(affinity, partition()),
            "objective_over_deepcut": float(ours().objective) / _kept_weight(affinity, fitted),
        },
        repeats=_REPEATS[n],
    )


def _assign(n: int, prototypes: int) -> Duel:
    features, targets = _related_clusters(n), noisy_clusters(prototypes)
    out = pk.assign(features, targets, temperature=0.1)
    unit = targets / np.linalg.norm(targets, axis=1, keepdims=True)

    def ours() -> Array | None:
        return pk.assign(features, targets, temperature=0.1, out=out).assignment

    def theirs() -> tuple[Array, npt.NDArray[np.int64]]:
        cosines = (features / np.linalg.norm(features, axis=1, keepdims=True)) @ unit.T
        labels = cosines.argmax(1)
        np.subtract(cosines, cosines.max(1, keepdims=True), out=cosines)
        shares = np.exp(cosines / np.float32(0.1))
        shares /= shares.sum(1, keepdims=True)
        return shares, labels

    got, (want, labels) = ours(), theirs()
    assert got is not None
    return Duel(
        Side("patchcut", ours, "both norms, cosines, best and softmax"),
        (Side("numpy", theirs, "one norm, cosines, best and softmax"),),
        {"features": features.shape, "prototypes": targets.shape, "assignment": got.shape},
        {
            "max_abs_difference": difference(got, want),
            "label_agreement": float((out.labels == labels).mean()),
        },
    )


def _cosegment(n: int) -> Duel:
    """The whole affinity of 1,024 patches an image, 10 GB twice over, is left to larger machines."""
    from bench.competitors import reco

    features = _related_clusters(50 * n).reshape(50, n, DIM)
    weights = np.ones(features.shape[:2], np.float32)
    out = pk.cosegment(features)

    def ours() -> pk.Cosegmentation:
        return pk.cosegment(features, out=out)

    by_image = Side(
        "torch, image by image",
        lambda: reco.image_by_image(features),
        "norms, cosines of an image and all, maxima, means and seeds",
    )
    whole = Side(
        "ReCo's steps in torch",
        lambda: reco.whole_affinity(features, weights),
        "norms, the whole affinity, its range checked, times weights, maxima, means and seeds",
    )
    scores, seeds = reco.image_by_image(features)
    return Duel(
        Side("patchcut", ours, "norms, maxima, means, seeds and embedding"),
        (whole, by_image) if n == 256 else (by_image,),
        {"features": features.shape, "scores": out.scores.shape},
        {
            "max_abs_difference": difference(out.scores, scores),
            "seed_agreement": float((out.seeds == seeds).mean()),
        },
        repeats=5 if n == 256 else 3,
    )


def _kept_weight(affinity: Array, labels: npt.NDArray[Any]) -> float:
    """The weights of pairs within clusters, added up."""
    together = np.triu(labels[:, None] == labels, 1)
    return float(affinity[together].sum(dtype=np.float64))


def _related_clusters(n: int) -> Array:
    """[n, 384] float32, twelve clusters of which some resemble each other, as parts of objects do."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((12, 5)) @ rng.standard_normal((5, DIM))
    noisy = centres[rng.integers(0, 12, n)] + 1.2 * rng.standard_normal((n, DIM))
    rows: Array = noisy.astype(np.float32)
    return rows


DUELS: dict[str, Callable[[], Duel]] = {
    _KMEANS: partial(_kmeans, 1369, 8, given=False),
    f"{_KMEANS}, given centroids": partial(_kmeans, 1369, 8, given=True),
    "kmeans_sums 16384x384, k 64": partial(_kmeans_sums, 16384, 64),
    **{case: partial(_cosegment, n) for n, case in _COSEGMENT.items()},
    **{f"correlation_cluster {n} nodes": partial(_correlation_cluster, n) for n in _REPEATS},
    "assign 1369x384, 27 prototypes": partial(_assign, 1369, 27),
}
