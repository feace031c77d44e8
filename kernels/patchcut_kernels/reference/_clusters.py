"""Features and affinities to clusters."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .._assign import PrototypeAssignment
from .._correlation_cluster import CorrelationClustering
from .._cosegment import Cosegmentation
from .._kmeans import KMeansClustering
from .._kmeans_sums import KMeansSums
from ._nodes import softmax, unit_rows
from ._random import random_bits, uniform
from ._types import Float64, Real

Int64 = npt.NDArray[np.int64]


def assign(features: Real, prototypes: Real, *, temperature: float | None = None) -> PrototypeAssignment:
    """The nearest of [c, d] prototypes to each of [n, d] features."""
    similarity = unit_rows(features) @ unit_rows(prototypes).T
    return PrototypeAssignment(
        similarity.argmax(axis=1).astype(np.int32),
        similarity.max(axis=1).astype(np.float32),
        None if temperature is None else softmax(similarity / temperature).astype(np.float32),
    )


def cosegment(features: Real, *, offsets: Int64 | None = None, weights: Real | None = None) -> Cosegmentation:
    """What k images have in common: [k, n, d] features, or [n, d] of all images with [k + 1] offsets."""
    shape = np.shape(features)[:-1]
    rows = unit_rows(features).reshape(-1, np.shape(features)[-1])
    starts = np.arange(shape[0] + 1) * shape[-1] if offsets is None else offsets
    shares = np.ones(len(rows)) if weights is None else np.asarray(weights, np.float64).ravel()
    images = [first + np.flatnonzero(shares[first:last] > 0) for first, last in pairwise(starts)]
    kept = [image for image in images if len(image)]
    scores, seeds = np.full(len(rows), -1.0), np.full(len(images), -1, np.int32)
    for image in kept:
        nearest = [(shares[other] * (rows[image] @ rows[other].T)).max(axis=1) for other in kept]
        scores[image] = np.mean(nearest, axis=0)
    total = np.zeros(rows.shape[1])
    for i, image in enumerate(images):
        if len(image):
            best = image[scores[image].argmax()]
            seeds[i] = best - starts[i]
            total += rows[best]
    return Cosegmentation(
        scores.astype(np.float32).reshape(shape), seeds, unit_rows(total).astype(np.float32)
    )


def kmeans(
    points: Real,
    k: int,
    *,
    metric: str = "euclidean",
    iterations: int = 100,
    restarts: int = 1,
    seed: int = 0,
    init: str | Real = "k-means++",
) -> KMeansClustering:
    """The best of `restarts` runs of Lloyd's algorithm on [n, d] points."""
    cosine = metric == "cosine"
    rows = unit_rows(points) if cosine else np.asarray(points, np.float64)
    runs = []
    for restart in range(restarts):
        if isinstance(init, str):
            centroids = plus_plus(rows, k, seed, restart)
        else:
            centroids = unit_rows(init) if cosine else np.asarray(init, np.float64)
        runs.append(lloyd(rows, centroids, iterations, cosine))
    labels, centroids, inertia = min(runs, key=lambda run: run[2])
    return KMeansClustering(
        labels.astype(np.int32), centroids.astype(np.float32), np.asarray(inertia, np.float32)
    )


def kmeans_sums(points: Real, centroids: Real, *, metric: str = "euclidean", sums: bool = True) -> KMeansSums:
    """The nearest of [k, d] centroids to each of [n, d] points, and the sums of each centroid's points."""
    cosine = metric == "cosine"
    rows, targets = (unit_rows(x) if cosine else np.asarray(x, np.float64) for x in (points, centroids))
    all_distances = squared_distances(rows, targets) / (2 if cosine else 1)
    labels, distances = all_distances.argmin(axis=1), all_distances.min(axis=1)
    own = np.zeros(targets.shape)
    np.add.at(own, labels, rows)
    return KMeansSums(
        labels.astype(np.int32),
        distances.astype(np.float32),
        own if sums else None,
        np.bincount(labels, minlength=len(targets)),
        distances.sum(),
    )


def squared_distances(rows: Float64, centroids: Float64) -> Float64:
    """[n, k] squared distances of [n, d] rows to [k, d] centroids."""
    return np.stack([np.square(rows - centroid).sum(axis=1) for centroid in centroids], axis=1)


def plus_plus(rows: Float64, k: int, seed: int, stream: int) -> Float64:
    """[k, d] rows to start from: greedy k-means++ with 2 + log(k) candidates for each."""
    n, candidates = len(rows), 2 + int(np.log(k))
    chosen = [int(uniform(seed, stream, 0) * n)]
    closest = squared_distances(rows, rows[chosen])[:, 0]
    for c in range(1, k):
        draws = uniform(seed, stream, 1 + (c - 1) * candidates + np.arange(candidates))
        cumulative = np.cumsum(closest)
        drawn = np.minimum(np.searchsorted(cumulative, draws * cumulative[-1], side="right"), n - 1)
        distances = np.minimum(closest[:, None], squared_distances(rows, rows[drawn]))
        left = distances.sum(axis=0)
        best = int((left <= left.min() * (1 + 1e-5)).argmax())  # two neighbours apart from all leave the same
        chosen.append(int(drawn[best]))
        closest = distances[:, best]
    return rows[chosen]


def lloyd(rows: Float64, centroids: Float64, iterations: int, cosine: bool) -> tuple[Int64, Float64, float]:
    """Labels, centroids and inertia, after means and nearest centroids in turns, until no label changes."""
    coincident = 1e-12 if cosine else 0.0  # unit rows and their means are rounded
    labels, distances, centroids = nearest_centroids(rows, centroids, coincident)
    for _ in range(iterations):
        before = labels
        centroids = means(rows, labels, centroids, cosine)
        labels, distances, centroids = nearest_centroids(rows, centroids, coincident)
        if np.array_equal(labels, before):
            break
    return labels, centroids, float(distances.sum()) / (2 if cosine else 1)


def nearest_centroids(rows: Float64, centroids: Float64, coincident: float) -> tuple[Int64, Float64, Float64]:
    """[n] labels, [n] squared distances, and the centroids, of which those of empty clusters have moved.

    An empty cluster takes the row that is farthest from its centroid, from a cluster of two or more, unless
    all lie within `coincident` of theirs.
    """
    all_distances = squared_distances(rows, centroids)
    labels, distances, centroids = all_distances.argmin(axis=1), all_distances.min(axis=1), centroids.copy()
    for c in np.flatnonzero(np.bincount(labels, minlength=len(centroids)) == 0):
        crowded = np.bincount(labels, minlength=len(centroids))[labels] > 1
        farthest = int(np.where(crowded, distances, 0.0).argmax())
        if crowded[farthest] and distances[farthest] > coincident:
            labels[farthest], distances[farthest], centroids[c] = c, 0.0, rows[farthest]
    return labels, distances, centroids


def means(rows: Float64, labels: Int64, centroids: Float64, cosine: bool) -> Float64:
    """The mean of each cluster, of length 1 for cosine; a cluster that has none keeps its centroid."""
    centroids = centroids.copy()
    for c in range(len(centroids)):
        members = rows[labels == c]
        mean = members.mean(axis=0) if len(members) else centroids[c]
        if not cosine:
            centroids[c] = mean
        elif mean.any():
            centroids[c] = mean / np.linalg.norm(mean)
    return centroids


def correlation_cluster(affinity: Real, *, max_clusters: int = 64, seed: int = 0) -> CorrelationClustering:
    """The best of several local optima of the signed [n, n] affinity."""
    weights, scale = integer_weights(affinity)
    n = len(weights)
    best = Partition(weights, max_clusters)
    for start in range(start_count(n)):
        partition = Partition(weights, max_clusters)
        if start == 1:
            partition.join_all()
        else:
            partition.insert(
                np.arange(n) if start == 0 else np.argsort(random_bits(seed, start, np.arange(n)))
            )
        while partition.chain() or partition.merge():
            pass
        if start == 0 or partition.objective() > best.objective():
            best = partition
    _, first, inverse = np.unique(best.labels, return_index=True, return_inverse=True)
    return CorrelationClustering(
        first.argsort().argsort()[inverse].astype(np.int32),  # numbered by their first nodes
        np.asarray(len(first), np.int32),
        np.asarray(best.objective() / scale, np.float32),
    )


def start_count(n: int) -> int:
    """How many partitions of n nodes to start from: small graphs are quick, and have many local optima."""
    return min(max(4096 // max(n, 1), 16), 64)


def integer_weights(affinity: Real) -> tuple[Int64, float]:
    """[n, n] symmetric weights with a zero diagonal, as integers, and how many of these make 1.

    Sums of integers are exact: neither the hardware nor the order of additions can change a decision. The
    absolute values of a row add up to less than 2^29 before they are rounded.
    """
    halves = np.float32(0.5) * np.asarray(affinity, np.float32)
    weights = (halves + halves.T).astype(np.float64)
    np.fill_diagonal(weights, 0)
    largest = np.abs(weights).sum(axis=1).max(initial=0)
    scale = 2.0 ** (29 - np.frexp(largest)[1]) if largest > 0 else 1.0
    return np.rint(weights * scale).astype(np.int64), scale


class Partition:
    """Nodes in clusters, and the weights between every node and every cluster.

    Attributes:
        labels: [n], the cluster of each node; -1 for none yet.
        sizes: [clusters], nodes of each cluster; 0 for a number that is free.
        sums: [clusters, n], the weights between each cluster and each node, added up.
    """

    PATIENCE = 32
    NONE = -(2**60)

    def __init__(self, weights: Int64, max_clusters: int) -> None:
        n = len(weights)
        self.weights = weights
        self.labels = np.full(n, -1)
        self.sizes = np.zeros(max(min(n, max_clusters), 1), np.int64)
        self.sums = np.zeros((len(self.sizes), n), np.int64)

    def own(self) -> Int64:
        """[n] the weights between each node and its own cluster, added up."""
        return np.asarray(np.take_along_axis(self.sums, self.labels[None], axis=0)[0], np.int64)

    def objective(self) -> int:
        """All weights within clusters, added up."""
        return int(self.own().sum()) // 2

    def move(self, node: int, cluster: int) -> None:
        """Puts a node into a cluster."""
        before = self.labels[node]
        if before >= 0:
            self.sizes[before] -= 1
            self.sums[before] -= self.weights[node]
        self.labels[node] = cluster
        self.sizes[cluster] += 1
        self.sums[cluster] += self.weights[node]

    def targets(self) -> tuple[Int64, Int64]:
        """[n] the other cluster of the largest sum for each node, and [n] that sum; NONE without one.

        That is a new cluster where the sum is not above 0, a number is free and the node is not alone.
        """
        nodes, placed = np.arange(len(self.labels)), self.labels >= 0
        others = np.where(self.sizes[:, None] > 0, self.sums, self.NONE)
        others[self.labels[placed], nodes[placed]] = self.NONE
        targets, sums = others.argmax(axis=0), others.max(axis=0)
        if self.sizes.all():
            return targets, sums
        new = (sums <= 0) & ~(placed & (self.sizes[self.labels] == 1))
        return np.where(new, self.sizes.argmin(), targets), np.where(new, 0, sums)

    def join_all(self) -> None:
        """Puts all nodes into one cluster."""
        for node in range(len(self.labels)):
            self.move(node, 0)

    def insert(self, order: Int64) -> None:
        """Puts each node in turn into the cluster of the largest sum."""
        for node in order:
            self.move(node, self.targets()[0][node])

    def chain(self) -> bool:
        """Whether the best beginning of a chain of moves gains; makes those moves.

        A chain moves the node that gains most or loses least, each node once, and ends PATIENCE moves after
        its best.
        """
        free = np.ones(len(self.labels), bool)
        undo: list[tuple[int, int]] = []
        gain = best = kept = 0
        while len(undo) < min(len(free), kept + self.PATIENCE):
            targets, sums = self.targets()
            gains = np.where(free & (sums > self.NONE), sums - self.own(), self.NONE)
            node = int(gains.argmax())
            if gains[node] == self.NONE:
                break
            free[node] = False
            gain += int(gains[node])
            undo.append((node, int(self.labels[node])))
            self.move(node, int(targets[node]))
            if gain > best:
                best, kept = gain, len(undo)
        for node, cluster in reversed(undo[kept:]):
            self.move(node, cluster)
        return best > 0

    def merge(self) -> bool:
        """Whether joining two clusters gains; joins the two that gain most."""
        members = self.labels == np.arange(len(self.sizes))[:, None]
        common = np.triu(self.sums @ members.T, 1)
        into, gone = np.unravel_index(common.argmax(), common.shape)
        if common[into, gone] <= 0:
            return False
        for node in np.flatnonzero(members[gone]):
            self.move(int(node), int(into))
        return True
