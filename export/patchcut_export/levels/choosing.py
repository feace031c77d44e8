"""How many clusters there are: the number whose silhouette is best."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

from patchcut_export.measuring.separability.scores import silhouette

Float32 = npt.NDArray[np.float32]

# Rows whose silhouettes are looked at, and restarts of each k-means.
_SAMPLE, _RESTARTS = 1500, 4


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
        scores[count] = silhouette(sample, found.labels) or 0.0
    best = max(scores, key=lambda count: scores[count])
    told = ", ".join(f"{count}: {score:.3f}" for count, score in scores.items())
    say(f"{what} by silhouette: {told}; takes {best}")
    return best
