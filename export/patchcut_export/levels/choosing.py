"""Clusters of rows that fit in memory, and how many there are: the number whose silhouette is best."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels
from patchcut.errors import OptionError

from patchcut_export.measuring.separability.scores import silhouette

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

_RESTARTS = 16  # of the k-means
# Rows whose silhouettes are looked at, and restarts of each k-means of these.
_SAMPLE, _SAMPLE_RESTARTS = 1500, 4


def cluster_rows(
    rows: Float32,
    count: int | None,
    counts: Sequence[int],
    *,
    seed: int,
    say: Callable[[str], None],
    what: str,
    of: str,
) -> tuple[Float32, Int32]:
    """Unit centres [k, d] of unit rows [m, d], and the cluster [m] of each row.

    Args:
        count: k; None to choose it among `counts`, as `choose_count` does.
        what, of: what the clusters and the rows are called.
    Raises:
        OptionError: "[names] must be at most the 6 regions, got 200".
    """
    if count is None:
        count = choose_count(rows, counts, seed, say, what)
    if count > len(rows):
        raise OptionError(what, f"must be at most the {len(rows)} {of}, got {count}")
    found = kernels.kmeans(rows, count, metric="cosine", restarts=_RESTARTS, seed=seed)
    return found.centroids, found.labels


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
        found = kernels.kmeans(sample, count, metric="cosine", restarts=_SAMPLE_RESTARTS, seed=seed)
        scores[count] = silhouette(sample, found.labels) or 0.0
    best = max(scores, key=lambda count: scores[count])
    told = ", ".join(f"{count}: {score:.3f}" for count, score in scores.items())
    say(f"{what} by silhouette: {told}; takes {best}")
    return best
