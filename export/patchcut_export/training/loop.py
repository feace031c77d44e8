"""The loop in which every GNN is trained: epoch by epoch, resumed where it was stopped, with a log."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from patchcut.errors import OptionError

from patchcut_export.errors import TrainingError
from patchcut_export.training.checkpoints import Best, Checkpoint, claim_folder
from patchcut_export.training.feature_cache import CachedFeatures
from patchcut_export.training.gnn import GraphHead

Rows = npt.NDArray[np.int64]

_CHECKED = 64  # images whose features are read at a time


@dataclass(frozen=True, kw_only=True)
class GnnPlan:
    """How a GNN is trained, for whatever task. A value that is not allowed is an OptionError that names it.

    Attributes:
        seed: decides initial weights, order and dropout.
        threshold: cosines not above it are no edge of the GNN's affinity.
        hidden, mlp_hidden, dropout: layers of the GNN, see `GraphHead`.
        batch: images a step.
        learning_rate, weight_decay: AdamW's; the rate warms up and decays over all epochs of each stage.
        held_out: share of the images that are not trained on, whose loss is watched.
    """

    seed: int = 0
    threshold: float = 0.2
    hidden: tuple[int, ...] = (64,)
    mlp_hidden: int = 32
    dropout: float = 0.25
    batch: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    held_out: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise OptionError("seed", f"must be from 0 to {2**32 - 1}, got {self.seed}")
        if not 0 <= self.threshold < 1:
            raise OptionError("threshold", f"must be from 0 to less than 1, got {self.threshold}")
        if not 0 < self.learning_rate < 1:
            raise OptionError("learning-rate", f"must be between 0 and 1, got {self.learning_rate}")


@dataclass(frozen=True)
class EpochLog:
    """One line of the training log; losses are means over images."""

    stage: str
    epoch: int
    loss: float
    held_out_loss: float
    dev_iou: float | None


@dataclass(frozen=True)
class Hooks:
    """What training tells while it runs.

    Attributes:
        step: called with (title, done, total) as often as something moves.
        epoch: called with each line of the log.
        dev_iou: mean foreground IoU of a head on development images; None where there are none.
    """

    step: Callable[[str, int, int], None] = lambda title, done, total: None
    epoch: Callable[[EpochLog], None] = lambda log: None
    dev_iou: Callable[[GraphHead], float] | None = None


def full_batches(rows: Rows, size: int) -> list[Rows]:
    """Batches of `size` rows, the last of what is left: for losses of each image by itself."""
    return np.array_split(rows, range(size, len(rows), size))


def even_batches(rows: Rows, size: int) -> list[Rows]:
    """Batches of at most `size` rows, as equal as can be: for losses of a batch as a whole."""
    return np.array_split(rows, math.ceil(len(rows) / size))


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one head learns.

    Attributes:
        name: its name in the log.
        file: its checkpoint.
        seed: decides its weights, order and dropout.
        columns: how many the head has.
        sample: images over whose patches the head's input is standardised.
        rows: what is trained on; numbers that `loss` understands.
        batches: cuts an order of rows into batches.
        epochs: passes over the rows, at most.
        patience: passes without a better loss on the held-out images after which it ends with the best
            weights; None: all passes are made and the last weights kept.
        loss: [] loss of a head on rows, which rise.
        held_out_loss: a head's mean loss on the held-out images.
        finish: called with the head after the last epoch, before it is measured.
    """

    name: str
    file: str
    seed: int
    columns: int
    sample: Rows
    rows: Rows
    batches: Callable[[Rows, int], list[Rows]]
    epochs: int
    patience: int | None = None
    loss: Callable[[GraphHead, Rows], torch.Tensor]
    held_out_loss: Callable[[GraphHead], float]
    finish: Callable[[GraphHead], None] | None = None


class Loop:
    """Trains the heads of one plan in one folder.

    Args:
        cached: features of the training images.
        usable: numbers of the images that are trained on or held out.
        folder: where checkpoints and the log are kept.
        plan: how to train.
        hooks: progress, log and development images.
        device: where the heads learn.
    Attributes:
        held_out, train: numbers of the images of either kind, rising.
    """

    def __init__(
        self,
        cached: CachedFeatures,
        usable: Rows,
        folder: Path,
        plan: GnnPlan,
        hooks: Hooks,
        device: torch.device,
    ) -> None:
        self.cached = cached
        self.folder = folder
        self.plan = plan
        self.hooks = hooks
        self.device = device
        order = usable[np.random.default_rng(plan.seed).permutation(len(usable))]
        count = max(1, round(plan.held_out * len(order)))
        self.held_out, self.train = np.sort(order[:count]), np.sort(order[count:])

    def claim(self, **more: str) -> None:
        """Marks the folder as this plan's on these images, and whatever `more` says.

        Raises:
            TrainingError: features are not finite, or the folder holds another run or is damaged.
        """
        self._check_features()
        self.folder.mkdir(parents=True, exist_ok=True)
        claim_folder(self.folder, {**asdict(self.plan), **more}, self.cached.images, self.cached.contents)

    def sample(self, count: int) -> Rows:
        """About `count` of the images that are trained on, evenly spread."""
        return self.train[:: max(1, len(self.train) // count)]

    def run(self, stage: Stage) -> tuple[GraphHead, int]:
        """A trained head, ready to be used, and the epochs after which it had its weights.

        Stopped at any time and run again, it ends with the same weights.

        Raises:
            TrainingError: a loss is not finite, or the checkpoint is damaged.
            OutputError: the folder cannot be written.
        """
        torch.manual_seed(stage.seed)
        head = self._fresh_head(stage)
        optimizer, schedule = self._optimizer(head, stage)
        best = Best(head)
        states = {"head": head, "optimizer": optimizer, "schedule": schedule}
        if stage.patience is not None:
            states["best"] = best
        checkpoint = Checkpoint(self.folder / stage.file, self.device, states)
        epoch = checkpoint.restore()
        while epoch < stage.epochs and (stage.patience is None or epoch - best.epoch < stage.patience):
            epoch += 1
            loss = self._pass(stage, epoch, head, optimizer, schedule)
            if stage.finish and epoch == stage.epochs:
                stage.finish(head)
            head.eval()
            with torch.no_grad():
                held_out_loss = stage.held_out_loss(head)
            best.offer(epoch, held_out_loss, head)
            dev_iou = self.hooks.dev_iou(head) if self.hooks.dev_iou else None
            checkpoint.save(epoch)
            self._log(EpochLog(stage.name, epoch, loss, held_out_loss, dev_iou))
        if stage.patience is not None:
            best.put_into(head)
            epoch = best.epoch
        return head.eval(), epoch

    def _check_features(self) -> None:
        for begin in range(0, len(self.cached.images), _CHECKED):
            finite = np.isfinite(self.cached.take(slice(begin, begin + _CHECKED))).all((1, 2))
            if not finite.all():
                name = self.cached.images[begin + int(finite.argmin())]
                remedy = "remove that image, or use another --precision"
                raise TrainingError("train", f"the features of {name} are not finite", remedy)

    def _fresh_head(self, stage: Stage) -> GraphHead:
        plan, dim = self.plan, self.cached.features.shape[2]
        head = GraphHead(dim, plan.hidden, plan.mlp_hidden, stage.columns, plan.dropout)
        head.standardize(as_floats(self.cached.take(stage.sample)).flatten(0, 1))
        return head.to(self.device)

    def _optimizer(
        self, head: GraphHead, stage: Stage
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """AdamW, and its learning rate over all epochs of a stage."""
        rate, decay = self.plan.learning_rate, self.plan.weight_decay
        optimizer = torch.optim.AdamW(head.parameters(), rate, weight_decay=decay)
        steps = stage.epochs * math.ceil(len(stage.rows) / self.plan.batch)
        rising = 0.1 if steps != 10 else 0.11  # share of the steps; torch divides by rising * steps - 1
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=rising)

    def _pass(
        self,
        stage: Stage,
        epoch: int,
        head: GraphHead,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> float:
        """The mean loss of one pass over the rows, in which the head learns."""
        head.train()
        order = stage.rows[torch.randperm(len(stage.rows)).numpy()]
        done, total = 0, 0.0
        for batch in stage.batches(order, self.plan.batch):
            loss = stage.loss(head, np.sort(batch))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            done, total = done + len(batch), total + loss.item() * len(batch)
            self.hooks.step(f"{stage.name} {epoch}/{stage.epochs}", done, len(order))
        return total / len(order)

    def _log(self, line: EpochLog) -> None:
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(line)) + "\n")
        self.hooks.epoch(line)


def not_finite(name: str) -> TrainingError:
    """What to say of a loss that is not finite on an image."""
    remedy = "lower the learning rate; the last epoch's weights are kept"
    return TrainingError("train", f"the loss of {name} is not finite", remedy)


def as_floats(array: npt.NDArray[np.float16]) -> torch.Tensor:
    """A float32 copy for torch."""
    return torch.from_numpy(np.asarray(array, np.float32))
