"""How many clusters there are: the number whose silhouette is best."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

Float32 = npt.NDArray[np.float32]

# Rows whose silhouettes are looked at, and restarts of each k-means.
_SAMPLE, _RESTARTS = 1500, 4


def cosine_silhouette(rows: Float32, labels: npt.NDArray[np.int32]) -> float:
    """Mean silhouette of unit rows [m, d] by 1 - cosine (Rousseeuw 1987); 0 of a cluster of one.

    Examples:
        >>> round(cosine_silhouette(np.float32([[1, 0], [1, 0], [0, 1], [0, 1]]), np.int32([0, 0, 1, 1])), 3)
        1.0
    """
    found, members, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if len(found) < 2:
        return 0.0
    sums = (1 - rows @ rows.T) @ np.eye(len(found), dtype=np.float32)[members]
    own = np.arange(len(rows)), members
    inside = sums[own] / np.maximum(sizes[members] - 1, 1)
    means = sums / sizes
    means[own] = np.inf
    outside = means.min(axis=1)
    widest = np.maximum(inside, outside)
    values = np.divide(outside - inside, widest, out=np.zeros_like(widest), where=widest > 0)
    return float(np.where(sizes[members] > 1, values, 0).mean())


def choose_count(
    rows: Float32, counts: Sequence[int], seed: int, say: Callable[[str], None], what: str
) -> int:
    """The number of clusters of unit rows [m, d] with the best silhouette; all numbers are said.

    Args:
        counts: that are tried, those below the number of rows; the least is taken where none is.
        say: is given a line for people.
        what: the clusters' name in that line.
    """
    tried = [count for count in counts if 2 <= count < len(rows)]
    if len(tried) < 2:
        return tried[0] if tried else min(len(rows), counts[0])
    picked = np.random.default_rng(seed).permutation(len(rows))[:_SAMPLE]
    sample = np.ascontiguousarray(rows[np.sort(picked)])
    scores = {}
    for count in [count for count in tried if count < len(sample)]:
        found = kernels.kmeans(sample, count, metric="cosine", restarts=_RESTARTS, seed=seed)
        scores[count] = cosine_silhouette(sample, found.labels)
    best = max(scores, key=lambda count: scores[count])
    told = ", ".join(f"{count}: {score:.3f}" for count, score in scores.items())
    say(f"{what} by silhouette: {told}; takes {best}")
    return best
