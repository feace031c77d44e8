"""K-means of a frame's patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import patchcut_kernels as kernels

from patchcut.checks import check_choice, check_whole, use_plain_values
from patchcut.heads.base import MAX_COLUMNS, MAX_SEED
from patchcut.heads.fitted import FittedHead, Float32, one_hot


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
        k = min(self.k, len(features))
        found = kernels.kmeans(features, k, metric=self.metric, restarts=self.restarts, seed=self.seed)
        return one_hot(found.labels, k)
