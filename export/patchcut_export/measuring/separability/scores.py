"""What says how well points come apart: clusters and their spread, and a linear probe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]

_RIDGE = 1e-3
_STEPS = 200
_MEMORY = 10  # steps that the curvature is estimated from
_FLAT = 1e-5  # the largest slope at which the probe is taken for fitted
_BLOCK = 512  # rows of the matrix of distances that are there at once


@dataclass(frozen=True)
class Probe:
    """A hyperplane between foreground and background.

    Attributes:
        weights: [d] float64 for points as they come.
        bias: added to their product.
    """

    weights: Float64
    bias: float

    def __call__(self, points: Float32) -> Float64:
        """[...] float64, larger where points [..., d] are more likely foreground."""
        return np.asarray(points @ self.weights + self.bias, np.float64)


def fit_probe(points: Float32, truth: npt.NDArray[np.bool_]) -> Probe:
    """The logistic regression of `truth` on points, each dimension brought to mean 0 and deviation 1.

    Args:
        points: [m, d] float32, finite.
        truth: [m] bool, with both values.
    Minimises the mean of log(1 + exp(-z)), z = +-(x w + b), plus 0.0005 |w|^2, by L-BFGS (Liu and Nocedal
    1989) until no slope is above 1e-5, in 200 steps at most.
    """
    mean, deviation = points.mean(0, dtype=np.float64), points.std(0, dtype=np.float64)
    deviation = np.where(deviation > 1e-6 * max(float(deviation.max(initial=0)), 1e-12), deviation, np.inf)
    rows = np.asarray((points - mean) / deviation, np.float32)
    signs = np.where(truth, 1.0, -1.0)

    def loss(solution: Float64) -> tuple[float, Float64]:
        weights = solution[:-1]
        margins = signs * (rows @ weights.astype(np.float32) + solution[-1])
        value = float(np.logaddexp(0, -margins).mean() + 0.5 * _RIDGE * weights @ weights)
        pull = -signs * 0.5 * (1 - np.tanh(margins / 2)) / len(rows)
        slope = np.append(pull.astype(np.float32) @ rows + _RIDGE * weights, pull.sum())
        return value, slope

    solution = _minimise(loss, np.zeros(rows.shape[1] + 1))
    weights = solution[:-1] / deviation
    return Probe(weights, float(solution[-1] - mean @ weights))


def _minimise(loss: Callable[[Float64], tuple[float, Float64]], solution: Float64) -> Float64:
    """Where a smooth convex function of [d] is least, from `solution` on."""
    value, slope = loss(solution)
    moves: list[tuple[Float64, Float64]] = []
    for _ in range(_STEPS):
        if np.abs(slope).max() <= _FLAT:
            break
        direction, reach = -_curved(slope, moves), 1.0
        descent = float(slope @ direction)
        while True:
            there = solution + reach * direction
            its_value, its_slope = loss(there)
            if its_value <= value + 1e-4 * reach * descent:
                break
            reach /= 2
            if reach < 1e-10:  # rounding is all that is left
                return solution
        move, bend = there - solution, its_slope - slope
        if move @ bend > 1e-12 * (bend @ bend):
            moves = [*moves[1 - _MEMORY :], (move, bend)]
        solution, value, slope = there, its_value, its_slope
    return solution


def _curved(slope: Float64, moves: list[tuple[Float64, Float64]]) -> Float64:
    """The slope times an estimate of the inverse of the curvature, made of moves and how it bent on them."""
    result, shares = slope, []
    for move, bend in reversed(moves):
        share = (move @ result) / (move @ bend)
        shares.append(share)
        result = result - share * bend
    if moves:
        move, bend = moves[-1]
        result = result * ((move @ bend) / (bend @ bend))
    for (move, bend), share in zip(moves, reversed(shares), strict=True):
        result = result + (share - (bend @ result) / (move @ bend)) * move
    return result


class Spread:
    """How far points are from their cluster's mean, and these means from that of all, added up over batches.

    Args:
        k: clusters.
        dim: of the points.
    """

    def __init__(self, k: int, dim: int) -> None:
        self.counts = np.zeros(k)
        self.sums = np.zeros((k, dim))
        self.squares = 0.0

    def add(self, points: Float32, labels: Labels) -> None:
        """Takes points [m, d] with their clusters [m]."""
        self.squares += float(np.einsum("md,md->", points, points, dtype=np.float64))
        for label in np.unique(labels):
            mine = points[labels == label]
            self.counts[label] += len(mine)
            self.sums[label] += mine.sum(0, dtype=np.float64)

    def ratio(self) -> float | None:
        """Variance between clusters over that within them; None where points do not differ within any."""
        there = self.counts > 0
        counts, sums = self.counts[there], self.sums[there]
        inside = self.squares - float(((sums**2).sum(1) / counts).sum())
        means = sums / counts[:, None] - sums.sum(0) / counts.sum()
        between = float((counts * (means**2).sum(1)).sum())
        return between / inside if inside > 1e-9 * max(self.squares, 1e-30) else None


def nearest(points: Float32, centroids: Float32) -> Labels:
    """[m] int32, for points [m, d] the nearest of centroids [k, d] in Euclidean distance."""
    squares = (centroids.astype(np.float64) ** 2).sum(1).astype(np.float32)
    return np.asarray((squares - 2 * (points @ centroids.T)).argmin(1), np.int32)


def silhouette(points: Float32, labels: Labels) -> float | None:
    """Mean over points of (b - a) / max(a, b), in [-1, 1]; None where all are in one cluster.

    Args:
        points: [m, d] float32.
        labels: [m] int32 from 0.
    a is a point's mean Euclidean distance to the others of its cluster, b the least mean distance to the
    points of another one; 0 where it is alone in its cluster. Rousseeuw (1987).
    """
    names, own = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        return None
    counts = np.bincount(own)
    members = np.eye(len(names))[own]  # [m, k]
    wide = points.astype(np.float64)
    squares = (wide**2).sum(1)
    total = 0.0
    for begin in range(0, len(points), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        apart = np.maximum(squares[block, None] + squares - 2 * wide[block] @ wide.T, 0)
        apart[np.arange(len(apart)), np.arange(begin, begin + len(apart))] = 0
        sums, mine = np.sqrt(apart) @ members, own[block]
        rows = np.arange(len(mine))
        a = sums[rows, mine] / np.maximum(counts[mine] - 1, 1)
        others = sums / counts
        others[rows, mine] = np.inf
        b = others.min(1)
        larger = np.maximum(a, b)
        valid = (counts[mine] > 1) & (larger > 0)
        total += float(((b - a)[valid] / larger[valid]).sum())
    return total / len(points)
