"""Correlation clustering of a frame's patches: their clusters, and how many there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import patchcut_kernels as kernels

from patchcut.checks import check_choice, check_number, check_whole, use_plain_values
from patchcut.heads.base import MAX_COLUMNS, MAX_SEED
from patchcut.heads.fitted import FittedHead, Float32, one_hot
from patchcut.heads.gnn_fit import ALPHA_RANGE, GnnFitHead


@dataclass(frozen=True)
class CcHead(FittedHead):
    """Clusters whose number is found: patches that are more alike than 1 / alpha of the most alike attract.

    Args:
        alpha: sensitivity, above 0: the larger, the fewer clusters. DeepCut's (2212.05853, section 3.2).
        solver: "moves" for `patchcut_kernels.correlation_cluster`, which finds the better objective and is
            faster; "gnn" for a network fitted to the loss, as DeepCut does.
        kind: the affinity: "cosine" or "dot".
        max_clusters: the largest number of clusters, 2 to 256; DeepCut's network has 10.
        seed: draws the orders in which patches are taken up, or the network.
    Raises:
        OptionError: an argument is out of its range.
    """

    name: ClassVar[str] = "cc"

    alpha: float = 3.0
    solver: Literal["moves", "gnn"] = "moves"
    kind: Literal["cosine", "dot"] = "cosine"
    max_clusters: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        use_plain_values(self)
        check_number("alpha", self.alpha, *ALPHA_RANGE)
        check_choice("solver", self.solver, ("moves", "gnn"))
        check_choice("kind", self.kind, ("cosine", "dot"))
        check_whole("max_clusters", self.max_clusters, 2, MAX_COLUMNS)
        check_whole("seed", self.seed, 0, MAX_SEED)

    @property
    def columns(self) -> int:
        return self.max_clusters

    def cluster(self, features: Float32) -> Float32:
        """As in `FittedHead`."""
        if self.solver == "gnn":
            network = GnnFitHead(
                k=self.max_clusters, loss="cc", kind=self.kind, alpha=self.alpha, seed=self.seed
            )
            return network.cluster(features)
        affinity = kernels.affinity(features, kind=self.kind, mode="cc", alpha=self.alpha)
        found = kernels.correlation_cluster(affinity, max_clusters=self.max_clusters, seed=self.seed)
        return one_hot(found.labels, int(found.k))
