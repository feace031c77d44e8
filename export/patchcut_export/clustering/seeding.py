"""The first centroids of k-means over a collection."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import patchcut_kernels as kernels

from patchcut_export.clustering.points import Int64, Points
from patchcut_export.clustering.steps import Advance, Float32, Float64, Metric, Pass, Steps, unfit

# k-means++ looks at so many points, or at so many for each centroid where that is more.
SAMPLE = 16384
SAMPLE_PER_CENTROID = 32
# Of k-means||. On 90,000 patches of VOC and 64 centroids the first inertia is 22,207, 21,324, 21,332 and
# 21,178 after 1, 2, 3 and 5 rounds, the last one the same within 0.3 %.
ROUNDS = 2
OVERSAMPLING = 2


def plus_plus(points: Points, k: int, metric: Metric, seed: int) -> Float32:
    """[k, d] centroids: of four runs of greedy k-means++ with ten updates the best, on a sample.

    All points where there are at most 16,384, or 32 for each centroid; else so many, one at random from each
    of as many equal stretches.
    """
    sample = min(points.count, max(SAMPLE, SAMPLE_PER_CENTROID * k))
    numbers = spread(points.count, sample, seed)
    rows = points.take(numbers)
    try:
        return kernels.kmeans(rows, k, metric=metric, iterations=10, restarts=4, seed=seed).centroids
    except ValueError as error:
        raise unfit(points, numbers, rows) or error from None


def spread(count: int, sample: int, seed: int) -> Int64:
    """`sample` of `count` numbers, rising: a random one from each of as many equal stretches."""
    shift = np.random.default_rng([seed, 1]).random(sample)
    numbers = ((np.arange(sample) + shift) * (count / sample)).astype(np.int64)
    return np.minimum(numbers, count - 1)


def first_candidate(points: Points, metric: Metric, seed: int) -> Float32:
    """[1, d], a point at random."""
    return rows_of(points, spread(points.count, 1, seed), metric)


def more_candidates(
    points: Points, candidates: Float32, k: int, asked: Pass, seed: int, steps: Steps, advance: Advance
) -> Float32:
    """[c + 2 k, d]: after one more round of k-means||, or fewer where fewer points are apart from these.

    Points are drawn with chances that are proportional to their distances to the nearest candidate; exactly
    2 k in each round, as in section 5 of Bahmani et al. (2012). Without replacement: the points of the
    largest distance / e, with e from an exponential distribution (Efraimidis and Spirakis 2006).
    """
    drawing = replace(asked, leading=OVERSAMPLING * k, draw=(seed, len(candidates)), sums=False)
    drawn = steps.run(points, candidates, drawing, advance).leading.numbers
    return np.concatenate((candidates, rows_of(points, np.sort(drawn), asked.metric)))


def reduce(candidates: Float32, weights: Int64, k: int, seed: int) -> Float32:
    """[k, d] of the candidates, by greedy k-means++ with [c] weights: how many points each is nearest to."""
    masses, room = weights.astype(np.float64), np.empty_like(candidates)
    random, tries = np.random.default_rng([seed, 2]), 2 + int(math.log(k))
    closest = np.full(len(candidates), np.inf)
    chosen: list[int] = []
    for _ in range(k):
        cumulative = np.cumsum(masses * closest if chosen else masses)
        shares = random.random(tries if chosen else 1) * cumulative[-1]
        drawn = np.minimum(np.searchsorted(cumulative, shares, side="right"), len(candidates) - 1)
        left = [np.minimum(closest, _squared_distances(candidates, int(at), room)) for at in drawn]
        best = int(np.argmin([(masses * distances).sum() for distances in left]))
        chosen.append(int(drawn[best]))
        closest = left[best]
    return candidates[chosen]


def _squared_distances(rows: Float32, at: int, room: Float32) -> Float64:
    """[n] to row `at`; without BLAS, whose threads may change the last bits."""
    np.subtract(rows, rows[at], out=room)
    distances: Float32 = np.einsum("nd,nd->n", room, room)
    return distances.astype(np.float64)


def rows_of(points: Points, numbers: Int64, metric: Metric) -> Float32:
    """[m, d] points as centroids are: of length 1 for "cosine"."""
    return as_centroids(points.take(numbers).astype(np.float64), metric)


def as_centroids(rows: Float64, metric: Metric) -> Float32:
    """[m, d] rows, of length 1 for "cosine"; a row of zeros stays one."""
    if metric == "cosine":
        lengths = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
        rows = rows / np.where(lengths > 0, lengths, 1)
    return rows.astype(np.float32)
