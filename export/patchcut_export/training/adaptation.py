"""A light head that learns what another one calls the patches of a collection (ReCo+, 2206.07045)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from patchcut.cells import patch_means
from patchcut.checks import check_whole
from patchcut.features import Features, to_host
from patchcut.heads import Head
from patchcut.output.whole_files import output_error
from torch.nn import functional

from patchcut_export.errors import TrainingError
from patchcut_export.training.feature_cache import Advance, CachedFeatures
from patchcut_export.training.gnn import GraphHead, cosine_affinity
from patchcut_export.training.loop import (
    GnnPlan,
    Hooks,
    Loop,
    Rows,
    Stage,
    as_floats,
    full_batches,
    not_finite,
)
from patchcut_export.training.torch_device import CPU

_SAMPLE = 200  # images over whose patches the head's input is standardised
_MAX_EPOCHS = 1000


@dataclass(frozen=True, kw_only=True)
class AdaptPlan(GnnPlan):
    """How a head learns the names that another one gives. See `GnnPlan` for the rest.

    Attributes:
        epochs: passes over the images, at most.
        patience: passes without a better loss on the held-out images after which training ends.
    """

    hidden: tuple[int, ...] = (128,)
    mlp_hidden: int = 64
    held_out: float = 0.1
    epochs: int = 20
    patience: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("epochs", self.epochs, 1, _MAX_EPOCHS)


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """What a head calls each patch of N images.

    Attributes:
        columns: [N, n] uint16, the column with the largest share.
        confidences: [N, n] float16 in [0, 1], by how much that share is above the next one.
        count: columns that the head has.
    """

    columns: npt.NDArray[np.uint16]
    confidences: npt.NDArray[np.float16]
    count: int

    @classmethod
    def of(cls, head: Head, cached: CachedFeatures, advance: Advance) -> PseudoLabels:
        """Those of a head whose feature sets are all in the cache.

        Args:
            advance: called after each image with (done, total).
        Raises:
            EngineError: the head cannot use the features.
        """
        shape = cached.features.shape[:2]
        columns, confidences = np.zeros(shape, np.uint16), np.zeros(shape, np.float16)
        for i in range(len(columns)):
            rows = {name: cached.take(slice(i, i + 1), name).astype(np.float32) for name in head.needs}
            shares = patch_means(to_host(head(Features(rows, cached.grid_hw))), cached.grid_hw)[0]
            best = np.partition(shares, -2, axis=1)[:, -2:]
            columns[i], confidences[i] = shares.argmax(axis=1), best[:, 1] - best[:, 0]
            advance(i + 1, len(columns))
        return cls(columns, confidences, len(head.labels))

    @property
    def sha256(self) -> str:
        """What they are, for a folder that is gone on with."""
        digest = hashlib.sha256(self.columns.tobytes())
        digest.update(self.confidences.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Adapted:
    """What came of it.

    Attributes:
        head: the GNN.
        passes: over the images, until the weights that were kept.
        agreement: share of the patches of held-out images that it calls as the other head does, each counted
            by how sure that is; the mean over the columns that there are, so that background counts as one.
    """

    head: GraphHead
    passes: int
    agreement: float


def adapt(
    cached: CachedFeatures,
    labels: PseudoLabels,
    folder: Path,
    plan: AdaptPlan,
    hooks: Hooks,
    device: torch.device = CPU,
) -> Adapted:
    """A GNN that calls patches as `labels` do: the more sure those are, the more they count.

    The loss is the cross-entropy weighted by confidence, and by one over the root of what a column has of all
    confidence: most patches are background, and without that a rare name is never learned. Training ends when
    held-out images get no better.

    Args:
        cached: features of the images; the first set is what the GNN reads.
        labels: of the same images.
        folder: where checkpoints and log are kept; a run that was interrupted goes on from there, and ends
            with the same weights as one that was not.
        plan: how to train.
        hooks: progress and log.
        device: where the head learns.
    Raises:
        TrainingError: fewer than two images, nothing but one column, features or a loss that are not finite,
            a damaged folder, or one of another plan or other labels.
        OutputError: the folder cannot be written.
    """
    if len(cached.images) < 2:
        what = f"needs at least 2 images, got {len(cached.images)}"
        raise TrainingError("train", what, "name a larger folder")
    if (labels.columns == labels.columns.flat[0]).all():
        what = "the head calls every patch of these images the same"
        raise TrainingError("train", what, "name a folder that shows what it knows")
    try:
        loop = Loop(cached, np.arange(len(cached.images)), folder, plan, hooks, device)
        loop.claim(labels_sha256=labels.sha256)
        return _Adaptation(loop, plan, labels).run()
    except OSError as error:
        raise output_error(folder, error) from error


class _Adaptation:
    """The one stage and its loss."""

    def __init__(self, loop: Loop, plan: AdaptPlan, labels: PseudoLabels) -> None:
        self.loop = loop
        self.plan = plan
        self.labels = labels
        shares = np.bincount(labels.columns.ravel(), labels.confidences.ravel(), minlength=labels.count)
        weights = np.divide(1, np.sqrt(shares), out=np.zeros(labels.count), where=shares > 0)
        self.weights = torch.from_numpy(weights / weights.max()).float().to(loop.device)

    def run(self) -> Adapted:
        plan = self.plan
        stage = Stage(
            name="adapt",
            file="adapted.pt",
            seed=plan.seed,
            columns=self.labels.count,
            sample=self.loop.sample(_SAMPLE),
            rows=self.loop.train,
            batches=full_batches,
            epochs=plan.epochs,
            patience=plan.patience,
            loss=self._loss,
            held_out_loss=self._held_out_loss,
        )
        head, passes = self.loop.run(stage)
        return Adapted(head, passes, self._agreement(head))

    def _held_out_loss(self, head: GraphHead) -> float:
        images = self.loop.held_out
        batches = full_batches(images, self.plan.batch)
        return sum(self._loss(head, rows).item() * len(rows) for rows in batches) / len(images)

    def _loss(self, head: GraphHead, rows: Rows) -> torch.Tensor:
        """[] cross-entropy of the patches of some images, weighted by how sure their labels are."""
        logits = self._logits(head, rows)
        columns = torch.from_numpy(self.labels.columns[rows].astype(np.int64)).to(self.loop.device)
        weights = as_floats(self.labels.confidences[rows]).to(self.loop.device) * self.weights[columns]
        losses = functional.cross_entropy(logits.flatten(0, 1), columns.flatten(), reduction="none")
        loss = (losses * weights.flatten()).sum() / weights.sum().clamp_min(1e-6)
        if not torch.isfinite(loss):
            whole = logits.isfinite().flatten(1).all(1)
            raise not_finite(self.loop.cached.images[rows[int(whole.int().argmin())]])
        return loss

    def _logits(self, head: GraphHead, rows: Rows) -> torch.Tensor:
        """[b, n, k] of some images."""
        features = as_floats(self.loop.cached.take(rows)).to(self.loop.device)
        logits: torch.Tensor = head(features, cosine_affinity(features, self.plan.threshold))
        return logits

    def _agreement(self, head: GraphHead) -> float:
        right, all_of = np.zeros(self.labels.count), np.zeros(self.labels.count)
        add = partial(np.bincount, minlength=self.labels.count)
        with torch.no_grad():
            for rows in full_batches(self.loop.held_out, self.plan.batch):
                found = self._logits(head, rows).argmax(-1).cpu().numpy().ravel()
                columns = self.labels.columns[rows].ravel()
                weights = self.labels.confidences[rows].astype(np.float64).ravel()
                all_of += add(columns, weights)
                right += add(columns, weights * (found == columns))
        there = all_of > 0
        return float((right[there] / all_of[there]).mean()) if there.any() else 0.0
