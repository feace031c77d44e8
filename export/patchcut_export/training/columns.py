"""Trains the k columns of a `gnn` head on DeepCut's loss, until held-out images say it is enough.

The loss is of one graph over a whole batch: patches of different images are neighbours like those of one. It
is what makes a column the same thing on every image; image by image, each would be cut into k of its own.
The normalised cut of one batch knows nothing of the others, and what it calls best drifts from one to the
next: the clusters of k-means over the collection hold it, and it puts them right where the graph knows more.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels
import torch
from patchcut.checks import check_choice
from patchcut.errors import OptionError
from patchcut.output.whole_files import output_error
from torch.nn import functional

from patchcut_export.errors import TrainingError
from patchcut_export.training.feature_cache import CachedFeatures
from patchcut_export.training.gnn import GraphHead, cc_loss, cosine_affinity, ncut_loss, signed_affinity
from patchcut_export.training.loop import (
    GnnPlan,
    Hooks,
    Loop,
    Rows,
    Stage,
    as_floats,
    even_batches,
    not_finite,
)
from patchcut_export.training.pseudo_masks import border_prior
from patchcut_export.training.torch_device import CPU

LOSSES = ("ncut", "cc")
MAX_COLUMNS = 256
MAX_CONTEXT = 8
_SAMPLE = 200  # images whose features say where their middle is, and how large the columns are
_SAMPLE_BATCH = 32  # how many of these at a time
_CLUSTERED = 20_000  # how many of their patches k-means clusters


@dataclass(frozen=True, kw_only=True)
class ColumnPlan(GnnPlan):
    """What columns are trained on and how long.

    Attributes:
        loss: "ncut", or "cc" for correlation clustering.
        columns: k; with "cc" it is a limit.
        parts: whether the columns are parts of the foreground; else they are of all patches, and column 0 is
            the background.
        context: how often a patch becomes the mean of those of its image that look like it, before the loss
            compares it with other images' patches: what a thing is seen to be by all of it. At 0 the columns
            are looks, the eyes of cats and dogs in one; the more, the more they are kinds of things.
        edge_threshold: cosines not above it are no edge of the graphs of `context` and of the NCut loss.
        alpha: "cc": sensitivity of its signed affinity; the larger, the fewer columns are used.
        temperature: divides the logits of the columns. At 1 the NCut loss falls into its saddle, where every
            patch is 1/k of every column: NMI with VOC's classes was 0.05 after an epoch, 0.14 with 0.1.
        anchor: "ncut": weight, beside the loss, of the cross-entropy to the clusters of k-means over the
            collection. NMI of 16 columns with VOC's classes was 0.21 with 0.3; without, it fell to 0.14 while
            the loss kept falling.
        nodes: patches of a batch, chosen at random, whose graph the loss is of.
        epochs: passes over the images, at most.
        patience: passes without a better loss on the held-out images after which training ends.
    """

    loss: str = "ncut"
    columns: int = 2
    parts: bool = False
    context: int = 2
    edge_threshold: float = 0.2
    alpha: float = 3.0
    temperature: float = 0.1
    anchor: float = 0.3
    nodes: int = 1500
    epochs: int = 12
    patience: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("loss", self.loss, LOSSES)
        if not 2 <= self.columns <= MAX_COLUMNS:
            limit = f"must be from 2 to {MAX_COLUMNS}, the limit of a head, got {self.columns}"
            raise OptionError("k", limit)
        if not 1 < self.alpha < math.inf:
            raise OptionError("alpha", f"must be above 1, got {self.alpha:g}")
        if not 0 <= self.context <= MAX_CONTEXT:
            raise OptionError("context", f"must be from 0 to {MAX_CONTEXT}, got {self.context}")


@dataclass(frozen=True)
class TrainedColumns:
    """What came of it.

    Attributes:
        head: the GNN.
        shares: each column's share of the patches of training images.
        passes: over the images, until the weights that were kept.
    """

    head: GraphHead
    shares: tuple[float, ...]
    passes: int


def train_columns(
    cached: CachedFeatures,
    chosen: npt.NDArray[np.bool_],
    folder: Path,
    plan: ColumnPlan,
    hooks: Hooks,
    device: torch.device = CPU,
) -> TrainedColumns:
    """k columns, each the same thing on every image, the largest first, or the background before it.

    Args:
        cached: features of the training images.
        chosen: [N, n] bool, the patches that the columns are of; images without any are left out.
        folder: where checkpoints and log are kept; a run that was interrupted goes on from there, and ends
            with the same weights as one that was not.
        plan: what to train.
        hooks: progress and log.
        device: where the head learns.
    Raises:
        OptionError: there are more columns than patches.
        TrainingError: fewer than two images with patches, features or a loss that are not finite, a damaged
            folder, or one of another plan.
        OutputError: the folder cannot be written.
    """
    patches = chosen.shape[1]
    if plan.columns > patches:
        why = f"must be from 2 to {patches}, an image has {patches} patches, got {plan.columns}"
        raise OptionError("k", why)
    usable = int(chosen.any(1).sum())
    if usable < 2:
        problem = f"needs at least 2 images{' with foreground' if plan.parts else ''}, got {usable}"
        raise TrainingError("train", problem, "name a larger folder")
    try:
        loop = Loop(cached, np.flatnonzero(chosen.any(1)), folder, plan, hooks, device)
        return _Columns(loop, plan, chosen).run()
    except OSError as error:
        raise output_error(folder, error) from error


class _Columns:
    """The one stage, its loss, and the order of the columns."""

    def __init__(self, loop: Loop, plan: ColumnPlan, chosen: npt.NDArray[np.bool_]) -> None:
        self.loop = loop
        self.plan = plan
        self.chosen = chosen
        self.cached = loop.cached
        sample = loop.sample(_SAMPLE)
        count = int(chosen[sample].sum())
        if plan.columns > count:
            raise OptionError("k", f"must be at most the {count} patches to learn from, got {plan.columns}")
        loop.claim(patches_sha256=hashlib.sha256(np.packbits(chosen).tobytes()).hexdigest())
        self.sample = as_floats(self.cached.take(sample)), torch.from_numpy(chosen[sample])
        self.middle = functional.normalize(self.sample[0], dim=-1)[self.sample[1]].mean(0)

    def run(self) -> TrainedColumns:
        plan = self.plan
        stage = Stage(
            name=f"{plan.loss}-{plan.columns}",
            file="columns.pt",
            seed=plan.seed,
            columns=plan.columns,
            sample=self.loop.sample(_SAMPLE),
            rows=self.loop.train,
            batches=even_batches,
            epochs=plan.epochs,
            patience=plan.patience,
            loss=self._loss,
            held_out_loss=self._held_out_loss,
        )
        head, passes = self.loop.run(stage)
        return TrainedColumns(head, self._arrange(head), passes)

    def _held_out_loss(self, head: GraphHead) -> float:
        """Mean loss of the held-out images, over the same patches each time."""
        total, images = 0.0, self.loop.held_out
        for rows in even_batches(images, self.plan.batch):
            generator = torch.Generator().manual_seed(int(rows[0]))
            total += self._loss(head, rows, generator).item() * len(rows)
        return total / len(images)

    def _loss(self, head: GraphHead, rows: Rows, generator: torch.Generator | None = None) -> torch.Tensor:
        """[] loss of the graph of some images' patches."""
        features = as_floats(self.cached.take(rows)).to(self.loop.device)
        chosen = torch.from_numpy(self.chosen[rows]).to(self.loop.device)
        logits = self._logits(head, features)
        nodes, mine = self._nodes(features, chosen), logits[chosen]
        if len(nodes) > self.plan.nodes:
            picked = torch.randperm(len(nodes), generator=generator)[: self.plan.nodes]
            nodes, mine = nodes[picked], mine[picked]
        loss = self._graph_loss(nodes, mine)
        if not torch.isfinite(loss):
            whole = logits.isfinite().flatten(1).all(1)
            raise not_finite(self.cached.images[rows[int(whole.int().argmin())]])
        return loss

    def _graph_loss(self, nodes: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """[] loss of nodes [m, d] that the head gives logits [m, k]; of "cc" a node's share of it."""
        assignment = logits.softmax(-1)[None]
        if self.plan.loss == "cc":
            return cc_loss(assignment, signed_affinity(nodes[None], self.plan.alpha))[0] / len(nodes)
        cut = ncut_loss(assignment, cosine_affinity(nodes[None], self.plan.edge_threshold))[0]
        clusters = (nodes @ self._centres.T).argmax(-1)
        return cut + self.plan.anchor * functional.cross_entropy(logits, clusters)

    def _nodes(self, features: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """[m, d] the chosen of patches [b, n, d], as the graph compares them.

        Each is what differs from the mean patch, for what all have in common joins everything; then,
        `context` times, the mean of the chosen patches of its image weighted by their cosines.
        """
        nodes = functional.normalize(features, dim=-1) - self.middle.to(self.loop.device)
        if self.plan.context:
            weights = cosine_affinity(nodes, self.plan.edge_threshold) * chosen[:, None]
            weights = functional.normalize(weights, p=1, dim=-1)
            for _ in range(self.plan.context):
                nodes = weights @ nodes
        return nodes[chosen]

    def _logits(self, head: GraphHead, features: torch.Tensor) -> torch.Tensor:
        """[b, n, k] of features [b, n, d], over the temperature."""
        logits: torch.Tensor = head(features, cosine_affinity(features, self.plan.threshold))
        return logits / self.plan.temperature

    def _sample_batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Features [b, n, d] and chosen patches [b, n] of the sample, a few images at a time."""
        features, chosen = self.sample
        for begin in range(0, len(features), _SAMPLE_BATCH):
            batch = slice(begin, begin + _SAMPLE_BATCH)
            yield features[batch].to(self.loop.device), chosen[batch].to(self.loop.device)

    @cached_property
    def _centres(self) -> torch.Tensor:
        """[k, d] centroids of k-means over the sample's nodes, by cosine; no draw of torch's is used."""
        nodes = torch.cat(
            [self._nodes(features, chosen).cpu() for features, chosen in self._sample_batches()]
        )
        picked = np.random.default_rng(self.plan.seed).permutation(len(nodes))[:_CLUSTERED]
        points = np.ascontiguousarray(nodes.numpy()[np.sort(picked)])
        found = kernels.kmeans(points, self.plan.columns, metric="cosine", restarts=4, seed=self.plan.seed)
        return torch.from_numpy(found.centroids).to(self.loop.device)

    def _arrange(self, head: GraphHead) -> tuple[float, ...]:
        """The columns' shares, once the largest is first, and before it the background if there is one."""
        head.eval()
        with torch.no_grad():
            logits = torch.cat([self._logits(head, features).cpu() for features, _ in self._sample_batches()])
        sizes = torch.bincount(logits.argmax(-1)[self.sample[1]], minlength=self.plan.columns)
        order = sizes.argsort(descending=True, stable=True).tolist()
        if not self.plan.parts:
            background = int(border_prior(logits.softmax(-1), self.cached.grid_hw).argmin())
            order = [background, *(column for column in order if column != background)]
        head.arrange_columns(order)
        return tuple((sizes[order] / sizes.sum()).tolist())
