"""DeepCut as published: a fresh graph network fitted to each frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import patchcut_kernels as kernels

from patchcut.checks import check_choice, check_number, check_whole, use_plain_values
from patchcut.heads.base import MAX_COLUMNS, MAX_SEED
from patchcut.heads.fitted import FittedHead, Float32

# The inverse of alpha must stay well inside float32.
ALPHA_RANGE = (1e-6, 1e6)
# In a stream a network serves so many frames, and none whose loss is higher than that of the frame that it
# was fitted to by more than so much of its magnitude. Going on with AdamW instead makes the loss lower and
# the masks worse (on four clips of DAVIS the IoU of patches falls from 0.41 to as little as 0.23): to stop
# after ten steps from random weights is a part of the method.
_FRAMES, _WORSE = 5, 0.05


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A network that was fitted to a frame.

    Attributes:
        weights: of it.
        loss: on that frame.
        frames: how many frames ago that was.
    """

    weights: kernels.GnnFitWeights
    loss: float
    frames: int


@dataclass(frozen=True)
class GnnFitHead(FittedHead):
    """A GCN and an MLP fitted to the frame by a few AdamW steps on the loss itself: DeepCut (2212.05853).

    In a stream and with the loss "ncut" a network serves up to five frames, with one pass for each, as long
    as its loss is about what it was on the frame that it was fitted to.

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
        return self.cluster_after(features, None)[0]

    def cluster_after(self, features: Float32, before: object) -> tuple[Float32, object]:
        """As in `FittedHead`."""
        affinity = kernels.affinity(features, kind=self.kind, mode=self.loss, alpha=self.alpha)
        if isinstance(before, _Fitted) and before.frames < _FRAMES - 1:
            fit = self._fit(features, affinity, 1, before.weights)
            if fit.losses[-1] <= before.loss + _WORSE * abs(before.loss):
                return fit.assignment, replace(before, frames=before.frames + 1)
        fit = self._fit(features, affinity, self.steps, None)
        if self.loss == "cc":  # clusters that a later frame needs would never come
            return fit.assignment, None
        assert fit.weights is not None
        weights = kernels.GnnFitWeights.from_flat(fit.weights, features.shape[1], self.k)
        return fit.assignment, _Fitted(weights, float(fit.losses[-1]), 0)

    def _fit(
        self, features: Float32, affinity: Float32, steps: int, init: kernels.GnnFitWeights | None
    ) -> kernels.GnnFit:
        return kernels.gnn_fit(
            features,
            affinity,
            self.k,
            loss=self.loss,
            steps=steps,
            learning_rate=self.learning_rate,
            dropout=self.dropout,
            init=init,
            weights=True,
            seed=self.seed,
        )
