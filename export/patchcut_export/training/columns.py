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
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels
import torch
from patchcut.engines import check_choice
from patchcut.errors import OptionError
from patchcut.output.whole_files import output_error
from torch.nn import functional

from patchcut_export.errors import TrainingError
from patchcut_export.training.checkpoints import Best, Checkpoint, claim_folder
from patchcut_export.training.feature_cache import CachedFeatures
from patchcut_export.training.foreground import (
    EpochLog,
    GnnPlan,
    Hooks,
    as_floats,
    check_finite_features,
    check_gnn_plan,
    make_optimizer,
    not_finite,
    split,
    write_log,
)
from patchcut_export.training.gnn import GraphHead, cc_loss, cosine_affinity, ncut_loss, signed_affinity
from patchcut_export.training.pseudo_masks import border_prior
from patchcut_export.training.torch_device import CPU

Rows = npt.NDArray[np.int64]

LOSSES = ("ncut", "cc")
MAX_COLUMNS = 256
MAX_CONTEXT = 8
_SAMPLE = 200  # images whose features say where their middle is, and how large the columns are
_PART = 32  # of these at a time
_CLUSTERED = 20_000  # of their patches, by k-means


@dataclass(frozen=True)
class ColumnPlan(GnnPlan):
    """What columns are trained on and how long.

    Attributes:
        loss: "ncut", or "cc" for correlation clustering.
        columns: k; with "cc" at most so many are used.
        parts: whether the columns are parts of the foreground; else they are of all patches, and column 0 is
            the background.
        context: how often a patch becomes the mean of those of its image that look like it, before the loss
            compares it with other images' patches: what a thing is seen to be by all of it. At 0 the columns
            are looks, the eyes of cats and dogs in one; the more, the more they are kinds of things.
        edge_threshold: cosines not above it are no edge of the graphs of `context` and of the NCut loss.
        alpha: "cc": sensitivity of its signed affinity; the larger, the fewer columns are used.
        temperature: of the softmax over the columns. At 1 the NCut loss falls into its saddle, where every
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


@dataclass(frozen=True)
class TrainedColumns:
    """What came of it.

    Attributes:
        head: the GNN.
        shares: of the patches that each column has, in training images.
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
    """k columns, each the same thing on every image, the largest first, but for the background before it.

    Args:
        cached: features of the training images.
        chosen: [N, n] bool, the patches that the columns are of; images without any are left out.
        folder: where checkpoints and log are kept; a run that was interrupted goes on from there, and ends
            with the same weights as one that was not.
        plan: what to train.
        hooks: progress and log.
        device: where the head learns.
    Raises:
        OptionError: as `check_columns` does.
        TrainingError: fewer than two images with patches, features or a loss that are not finite, a damaged
            folder, or one of another plan.
        OutputError: the folder cannot be written.
    """
    check_columns(plan, chosen.shape[1])
    usable = int(chosen.any(1).sum())
    if usable < 2:
        what = f"needs at least 2 images{' with foreground' if plan.parts else ''}, got {usable}"
        raise TrainingError("train", what, "name a larger folder")
    try:
        return _Training(cached, chosen, folder, plan, hooks, device).run()
    except OSError as error:
        raise output_error(folder, error) from error


def check_columns(plan: ColumnPlan, patches: int | None = None) -> None:
    """Nothing, if the plan can be carried out, on images of so many patches where that is known.

    Raises:
        OptionError: naming the option that cannot be.
    """
    check_choice("loss", plan.loss, LOSSES)
    most = MAX_COLUMNS if patches is None else min(MAX_COLUMNS, patches)
    if not 2 <= plan.columns <= most:
        limit = f"an image has {patches} patches" if most == patches else "it is the most a head has"
        raise OptionError("k", f"must be from 2 to {most}, {limit}, got {plan.columns}")
    if not 1 < plan.alpha < math.inf:
        raise OptionError("alpha", f"must be above 1, got {plan.alpha:g}")
    if not 0 <= plan.context <= MAX_CONTEXT:
        raise OptionError("context", f"must be from 0 to {MAX_CONTEXT}, got {plan.context}")
    check_gnn_plan(plan)


class _Training:
    """One run."""

    def __init__(
        self,
        cached: CachedFeatures,
        chosen: npt.NDArray[np.bool_],
        folder: Path,
        plan: ColumnPlan,
        hooks: Hooks,
        device: torch.device,
    ) -> None:
        self.cached = cached
        self.chosen = chosen
        self.folder = folder
        self.plan = plan
        self.hooks = hooks
        self.device = device
        self.held_out, self.train = split(np.flatnonzero(chosen.any(1)), plan.held_out, plan.seed)
        sample = self.train[:: max(1, len(self.train) // _SAMPLE)]
        count = int(chosen[sample].sum())
        if plan.columns > count:
            raise OptionError("k", f"must be at most the {count} patches to learn from, got {plan.columns}")
        check_finite_features(cached)
        folder.mkdir(parents=True, exist_ok=True)
        patches = hashlib.sha256(np.packbits(chosen).tobytes()).hexdigest()
        claim_folder(folder, {**asdict(plan), "patches_sha256": patches}, cached.images)
        self.sample = as_floats(cached.take(sample)), torch.from_numpy(chosen[sample])
        self.middle = functional.normalize(self.sample[0], dim=-1)[self.sample[1]].mean(0)

    def run(self) -> TrainedColumns:
        plan = self.plan
        torch.manual_seed(plan.seed)
        head = GraphHead(len(self.middle), plan.hidden, plan.mlp_hidden, plan.columns, plan.dropout)
        head.standardize(self.sample[0].flatten(0, 1))
        head.to(self.device)
        optimizer, schedule = make_optimizer(head, plan, len(self.train), plan.epochs)
        best = Best(head)
        checkpoint = Checkpoint(
            self.folder / "columns.pt",
            self.device,
            head=head,
            optimizer=optimizer,
            schedule=schedule,
            best=best,
        )
        epoch = checkpoint.restore()
        while epoch < plan.epochs and epoch - best.epoch < plan.patience:
            epoch += 1
            loss = self._pass(head, optimizer, schedule, epoch)
            held_out = self._held_out_loss(head)
            best.offer(epoch, held_out, head)
            checkpoint.save(epoch)
            line = EpochLog(f"{plan.loss}-{plan.columns}", epoch, loss, held_out, None)
            write_log(self.folder, line)
            self.hooks.epoch(line)
        best.put_into(head)
        return TrainedColumns(head, self._arrange(head), best.epoch)

    def _pass(
        self,
        head: GraphHead,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        epoch: int,
    ) -> float:
        """The mean loss of one pass over the images, in which the head learns."""
        head.train()
        order = self.train[torch.randperm(len(self.train)).numpy()]
        done, total = 0, 0.0
        for rows in _batches(order, self.plan.batch):
            loss = self._loss(head, rows)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            done, total = done + len(rows), total + loss.item() * len(rows)
            self.hooks.step(f"columns, pass {epoch}", done, len(order))
        return total / len(order)

    def _held_out_loss(self, head: GraphHead) -> float:
        """Mean loss of the held-out images, of the same patches each time."""
        head.eval()
        total = 0.0
        with torch.no_grad():
            for rows in _batches(self.held_out, self.plan.batch):
                generator = torch.Generator().manual_seed(int(rows[0]))
                total += self._loss(head, rows, generator).item() * len(rows)
        return total / len(self.held_out)

    def _loss(self, head: GraphHead, rows: Rows, generator: torch.Generator | None = None) -> torch.Tensor:
        """[] loss of the graph of some images' patches."""
        features = as_floats(self.cached.take(rows)).to(self.device)
        chosen = torch.from_numpy(self.chosen[rows]).to(self.device)
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
        nodes = functional.normalize(features, dim=-1) - self.middle.to(self.device)
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

    def _sample_parts(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Features [b, n, d] and chosen patches [b, n] of the sample, a few images at a time."""
        features, chosen = self.sample
        for begin in range(0, len(features), _PART):
            part = slice(begin, begin + _PART)
            yield features[part].to(self.device), chosen[part].to(self.device)

    @cached_property
    def _centres(self) -> torch.Tensor:
        """[k, d] centroids of k-means over the sample's nodes, by cosine; no draw of torch's is used."""
        nodes = torch.cat([self._nodes(features, chosen).cpu() for features, chosen in self._sample_parts()])
        picked = np.random.default_rng(self.plan.seed).permutation(len(nodes))[:_CLUSTERED]
        points = np.ascontiguousarray(nodes.numpy()[np.sort(picked)])
        found = kernels.kmeans(points, self.plan.columns, metric="cosine", restarts=4, seed=self.plan.seed)
        return torch.from_numpy(found.centroids).to(self.device)

    def _arrange(self, head: GraphHead) -> tuple[float, ...]:
        """The columns' shares, once the largest is first, and before it the background if there is one."""
        head.eval()
        with torch.no_grad():
            logits = torch.cat([self._logits(head, features).cpu() for features, _ in self._sample_parts()])
        sizes = torch.bincount(logits.argmax(-1)[self.sample[1]], minlength=self.plan.columns)
        order = sizes.argsort(descending=True, stable=True).tolist()
        if not self.plan.parts:
            background = int(border_prior(logits.softmax(-1), self.cached.grid_hw).argmin())
            order = [background, *(column for column in order if column != background)]
        head.arrange_columns(order)
        return tuple((sizes[order] / sizes.sum()).tolist())


def _batches(rows: Rows, size: int) -> Iterator[Rows]:
    """Parts of `rows` of at most `size`, as equal as can be, each in rising order."""
    for batch in np.array_split(rows, math.ceil(len(rows) / size)):
        yield np.sort(batch)
