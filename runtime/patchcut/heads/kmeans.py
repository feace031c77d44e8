"""K-means of a frame's patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import patchcut_kernels as kernels

from patchcut.checks import check_choice, check_whole, use_plain_values
from patchcut.heads.base import MAX_COLUMNS, MAX_SEED
from patchcut.heads.fitted import FittedHead, Float32, Int32, continued, one_hot

# In a stream clusters are kept until new ones are this much tighter. With 1.5, 10 % of an object's patches
# have another of 4 parts than a frame before, where means that never change give 11 %, the motion itself.
_TIGHTER = 1.5


@dataclass(frozen=True)
class KMeansHead(FittedHead):
    """Clusters around k means.

    Args:
        k: clusters, 2 to 256.
        metric: "cosine" for spherical k-means, or "euclidean".
        restarts: how often it begins anew; the best run is kept.
        seed: draws the first means.
    Raises:
        OptionError: "[k] must be a whole number from 2 to 256, got 1".
    """

    name: ClassVar[str] = "kmeans"

    k: int = 2
    metric: Literal["cosine", "euclidean"] = "cosine"
    restarts: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        use_plain_values(self)
        check_whole("k", self.k, 2, MAX_COLUMNS)
        check_choice("metric", self.metric, ("cosine", "euclidean"))
        check_whole("restarts", self.restarts, 1, 1000)
        check_whole("seed", self.seed, 0, MAX_SEED)

    @property
    def columns(self) -> int:
        return self.k

    def cluster(self, features: Float32) -> Float32:
        """As in `FittedHead`; no more clusters than patches."""
        found = self._fresh(features)
        return one_hot(found.labels, len(found.centroids))

    def follow(self, features: Float32, means: Float32, before: object = None) -> tuple[Int32, object]:
        """As in `FittedHead`; earlier means are moved, unless fresh ones are much nearer to the patches."""
        fresh = self._fresh(features)
        if self.k == len(means) <= len(features):
            moved = kernels.kmeans(features, self.k, metric=self.metric, init=means)
            if moved.inertia <= _TIGHTER * fresh.inertia:
                return moved.labels, None
        return continued(fresh.labels.astype(np.int64), features, means), None

    def _fresh(self, features: Float32) -> kernels.KMeansClustering:
        """The best of all restarts."""
        k = min(self.k, len(features))
        return kernels.kmeans(features, k, metric=self.metric, restarts=self.restarts, seed=self.seed)
