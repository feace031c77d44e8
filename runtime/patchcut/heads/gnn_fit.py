"""DeepCut as published: a fresh graph network fitted to each frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import patchcut_kernels as kernels

from patchcut.checks import check_choice, check_number, check_whole, use_plain_values
from patchcut.heads.base import MAX_COLUMNS, MAX_SEED
from patchcut.heads.fitted import FittedHead, Float32

# The inverse of alpha must stay well inside float32.
ALPHA_RANGE = (1e-6, 1e6)


@dataclass(frozen=True)
class GnnFitHead(FittedHead):
    """A GCN and an MLP fitted to the frame by a few AdamW steps on the loss itself: DeepCut (2212.05853).

    Args:
        k: columns of the network, 2 to 256; with the loss "cc" the largest number of clusters.
        loss: "ncut" for normalised cuts, "cc" for correlation clustering.
        kind: the affinity: "dot" of the raw features as DeepCut has it, or "cosine".
        alpha: the loss "cc" finds the fewer clusters, the larger it is.
        steps: number of AdamW's steps.
        learning_rate: AdamW's.
        dropout: share of the hidden units that a step drops, 0 to 0.99; DeepCut's last one, too.
        seed: draws the first weights and the units that drop.
    Raises:
        OptionError: an argument is out of its range.
    """

    name: ClassVar[str] = "gnn-fit"

    k: int = 2
    loss: Literal["ncut", "cc"] = "ncut"
    kind: Literal["dot", "cosine"] = "dot"
    alpha: float = 3.0
    steps: int = 10
    learning_rate: float = 1e-3
    dropout: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        use_plain_values(self)
        check_whole("k", self.k, 2, MAX_COLUMNS)
        check_choice("loss", self.loss, ("ncut", "cc"))
        check_choice("kind", self.kind, ("dot", "cosine"))
        check_number("alpha", self.alpha, *ALPHA_RANGE)
        check_whole("steps", self.steps, 1, 100_000)
        check_number("learning_rate", self.learning_rate, 1e-9, 1.0)
        check_number("dropout", self.dropout, 0.0, 0.99)
        check_whole("seed", self.seed, 0, MAX_SEED)

    @property
    def columns(self) -> int:
        return self.k

    def cluster(self, features: Float32) -> Float32:
        """As in `FittedHead`."""
        affinity = kernels.affinity(features, kind=self.kind, mode=self.loss, alpha=self.alpha)
        return kernels.gnn_fit(
            features,
            affinity,
            self.k,
            loss=self.loss,
            steps=self.steps,
            learning_rate=self.learning_rate,
            dropout=self.dropout,
            seed=self.seed,
        ).assignment
