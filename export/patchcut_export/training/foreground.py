"""Trains the `gnn` head on cached features, without labels, in stages that can be interrupted and resumed.

1. "ncut": a feed-forward GNN with DeepCut's NCut loss over all images. Stopped early, its columns mean the
   same on every image; longer, it learns to halve each image and gets worse.
2. "cut": a fresh GNN learns the normalised cuts of single images, each turned round to agree with stage 1.
   What is wrong in one image and not in the others averages out.
3. "self": fresh GNNs learn their predecessor's masks after these were moved onto the images' edges, as
   FOUND (2212.07834) and SelfMask (2203.12614) do; and, from crops of their background and from blank
   pictures, that there may be nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from patchcut.errors import OptionError
from patchcut.output.whole_files import output_error, whole_file
from patchcut.sources.photos import read_photo
from torch.nn import functional

from patchcut_export.errors import TrainingError
from patchcut_export.measuring.empty_scenes import background_crop, blank_images
from patchcut_export.training.checkpoints import Checkpoint, claim_folder, damaged
from patchcut_export.training.feature_cache import CachedFeatures
from patchcut_export.training.gnn import GraphHead, cosine_affinity, ncut_loss
from patchcut_export.training.pseudo_masks import (
    REFINE_SIZE,
    Soft,
    border_prior,
    ncut_bipartition,
    orient,
    refine,
)
from patchcut_export.training.torch_device import CPU

Half = npt.NDArray[np.float16]
Extract = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]

_PREDICT_BATCH = 64


@dataclass(frozen=True)
class GnnPlan:
    """How a GNN is trained, for whatever task.

    Attributes:
        seed: of initial weights, order and dropout.
        threshold: cosines not above it are no edge of the GNN's affinity.
        hidden, mlp_hidden, dropout: of the GNN.
        batch: images a step.
        learning_rate, weight_decay: of AdamW; the rate warms up and decays over all epochs, of each stage.
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


@dataclass(frozen=True)
class TrainPlan(GnnPlan):
    """The stages of a foreground and how long they are.

    Attributes:
        ncut_epochs: passes over the images in the first stage.
        epochs: passes in each later stage.
        rounds: how often the head learns from its own refined masks.
        empty_weight: how much a picture without an object counts in the last stages, beside 1 for an image; 0
            leaves them out.
        blanks: how many of these pictures are blank; the others are crops of the images' background.
    """

    ncut_epochs: int = 1
    epochs: int = 6
    rounds: int = 1
    empty_weight: float = 0.5
    blanks: int = 120

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages in order."""
        return ("ncut", "cut", *(f"self-{i + 1}" for i in range(self.rounds)))


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
        step: called with (what, done, total) as often as something moves.
        epoch: called with each line of the log.
        dev_iou: mean foreground IoU of a head on development images; None where there are none.
    """

    step: Callable[[str, int, int], None] = lambda what, done, total: None
    epoch: Callable[[EpochLog], None] = lambda log: None
    dev_iou: Callable[[GraphHead], float] | None = None


def train(
    cached: CachedFeatures,
    images: Path,
    extract: Extract,
    folder: Path,
    plan: TrainPlan,
    hooks: Hooks,
    device: torch.device = CPU,
) -> GraphHead:
    """A two-column head: column 0 is background, 1 is foreground.

    Args:
        cached: features of the training images.
        images: the folder they were read from, for the refined masks and the crops.
        extract: gives the features [n, d] float32 of one more image [H, W, 3] uint8 BGR.
        folder: where checkpoints and targets are kept; a run that was interrupted goes on from there, and
            ends with the same weights as one that was not.
        plan: what to train.
        hooks: progress, log and development images.
        device: where the head learns.
    Raises:
        OptionError: as `check_plan` does.
        TrainingError: fewer than two images, features or a loss that are not finite, a damaged folder, or one
            of another plan.
        OutputError: the folder cannot be written.
    """
    check_plan(plan)
    if len(cached.images) < 2:
        raise TrainingError(
            "train", f"needs at least 2 images, got {len(cached.images)}", "name a larger folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _Training(cached, images, extract, folder, plan, hooks, device).run()
    except OSError as error:
        raise output_error(folder, error) from error


def check_plan(plan: TrainPlan) -> None:
    """Nothing, if the plan can be carried out.

    Raises:
        OptionError: naming the option that cannot be.
    """
    check_gnn_plan(plan)
    if not 0 <= plan.empty_weight < math.inf:
        raise OptionError("empty-weight", f"must be 0 or more, got {plan.empty_weight}")


def check_gnn_plan(plan: GnnPlan) -> None:
    """Nothing, if a GNN can be trained so.

    Raises:
        OptionError: naming the option that cannot be.
    """
    if not 0 <= plan.seed < 2**32:
        raise OptionError("seed", f"must be from 0 to {2**32 - 1}, got {plan.seed}")
    if not 0 <= plan.threshold < 1:
        raise OptionError("threshold", f"must be from 0 to less than 1, got {plan.threshold}")
    if not 0 < plan.learning_rate < 1:
        raise OptionError("learning-rate", f"must be between 0 and 1, got {plan.learning_rate}")


def make_optimizer(
    head: GraphHead, plan: GnnPlan, images: int, epochs: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW, and its learning rate over so many passes over the images."""
    optimizer = torch.optim.AdamW(head.parameters(), plan.learning_rate, weight_decay=plan.weight_decay)
    steps = epochs * math.ceil(images / plan.batch)
    rising = 0.1 if steps != 10 else 0.11  # share of the steps; torch divides by rising * steps - 1
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.learning_rate, steps, pct_start=rising)
    return optimizer, schedule


class _Training:
    """The state that the stages share."""

    def __init__(
        self,
        cached: CachedFeatures,
        images: Path,
        extract: Extract,
        folder: Path,
        plan: TrainPlan,
        hooks: Hooks,
        device: torch.device,
    ) -> None:
        self.cached = cached
        self.images = images
        self.extract = extract
        self.folder = folder
        self.plan = plan
        self.hooks = hooks
        self.device = device
        self.held_out, self.train = split(np.arange(len(cached.images)), plan.held_out, plan.seed)
        self.empties = cached.features[:0]
        check_finite_features(cached)
        claim_folder(folder, asdict(plan), cached.images)

    def run(self) -> GraphHead:
        head = None
        for number, stage in enumerate(self.plan.stages):
            targets = None if head is None else self._targets(stage, head)
            head = self._stage(number, stage, targets)
        assert head is not None
        return head

    def _stage(self, number: int, stage: str, targets: Targets | None) -> GraphHead:
        """A fresh head trained on the NCut loss (no targets) or on masks; resumed from its checkpoint."""
        plan = self.plan
        epochs = plan.ncut_epochs if targets is None else plan.epochs
        torch.manual_seed(plan.seed + number)
        head = self._fresh_head()
        # rows of `targets` after the images' own are of pictures without an object
        extra = 0 if targets is None else len(targets.weight) - len(self.cached.images)
        rows = np.concatenate([self.train, len(self.cached.images) + np.arange(extra)])
        optimizer, schedule = make_optimizer(head, plan, len(rows), epochs)
        checkpoint = Checkpoint(
            self.folder / f"{stage}.pt", self.device, head=head, optimizer=optimizer, schedule=schedule
        )
        for epoch in range(checkpoint.restore(), epochs):
            head.train()
            total = 0.0
            for batch in self._batches(rows, f"{stage} {epoch + 1}/{epochs}"):
                losses = self._loss(head, batch, targets)
                self._check_finite(losses, batch)
                loss = losses.mean()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                total += loss.item() * len(batch)
            if targets is None and epoch + 1 == epochs:
                self._put_foreground_last(head)
            line = self._measure(stage, epoch + 1, total / len(rows), head, targets)
            checkpoint.save(epoch + 1)
            self._log(line)
        return head.eval()

    def _fresh_head(self) -> GraphHead:
        plan, dim = self.plan, self.cached.features.shape[2]
        head = GraphHead(dim, plan.hidden, plan.mlp_hidden, 2, plan.dropout)
        sample = self.cached.take(self.train[:: max(1, len(self.train) // 300)])
        head.standardize(as_floats(sample).flatten(0, 1))
        return head.to(self.device)

    def _batches(self, rows: npt.NDArray[np.int64], what: str) -> Iterator[npt.NDArray[np.int64]]:
        order = rows[torch.randperm(len(rows)).numpy()]
        for begin in range(0, len(order), self.plan.batch):
            yield np.sort(order[begin : begin + self.plan.batch])
            self.hooks.step(what, min(begin + self.plan.batch, len(order)), len(order))

    def _loss(self, head: GraphHead, batch: npt.NDArray[np.int64], targets: Targets | None) -> torch.Tensor:
        """[b] loss of each row of a batch, whose numbers rise."""
        count = len(self.cached.images)
        images, empties = batch[batch < count], batch[batch >= count] - count
        features = self._on_device(np.concatenate([self.cached.take(images), self.empties[empties]]))
        affinity = cosine_affinity(features, self.plan.threshold)
        logits = head(features, affinity)
        if targets is None:
            return ncut_loss(logits.softmax(-1), affinity)
        margin = logits[..., 1] - logits[..., 0]
        share = self._on_device(targets.foreground[batch])
        weight = self._on_device(targets.weight[batch])
        return functional.binary_cross_entropy_with_logits(margin, share, reduction="none").mean(1) * weight

    def _on_device(self, array: Half) -> torch.Tensor:
        return as_floats(array).to(self.device)

    def _targets(self, stage: str, head: GraphHead) -> Targets:
        """What a stage learns, kept on disk so that a resumed run sees the same."""
        if stage == "cut":
            return Targets(**self._kept(f"{stage}.targets.npz", lambda: self._cut_targets(head)))
        targets = Targets(**self._kept(f"{stage}.targets.npz", lambda: self._refined_targets(stage, head)))
        if not self.plan.empty_weight:
            return targets
        self.empties = self._kept("empties.npz", lambda: self._empty_features(head))["features"]
        nothing = np.zeros((len(self.empties), targets.foreground.shape[1]), np.float16)
        weight = np.full(len(self.empties), self.plan.empty_weight, np.float16)
        return Targets(
            np.concatenate([targets.foreground, nothing]), np.concatenate([targets.weight, weight])
        )

    def _kept(self, name: str, make: Callable[[], dict[str, Half]]) -> dict[str, Half]:
        """Arrays from a file of the folder, made and written there if it is not there."""
        path = self.folder / name
        if path.is_file():
            try:
                with np.load(path) as saved:
                    return {key: saved[key] for key in saved.files}
            except Exception as error:  # numpy's reader raises many kinds; all mean the same here
                raise damaged(path, error) from error
        arrays = make()
        with whole_file(path) as partial:
            np.savez(partial, **arrays)  # type: ignore[arg-type]
        return arrays

    def _cut_targets(self, head: GraphHead) -> dict[str, Half]:
        parts = []
        for begin, features, foreground in self._predictions(head):
            parts.append(orient(ncut_bipartition(features), foreground).half().numpy())
            self.hooks.step("cutting each image", begin + len(features), len(self.cached.images))
        sides = np.concatenate(parts)
        return {"foreground": sides, "weight": np.ones(len(sides), np.float16)}

    def _refined_targets(self, stage: str, head: GraphHead) -> dict[str, Half]:
        """The head's own masks on the images' edges; an image counts by how far the two agree (IoU)."""
        refined, weights = [], []
        for begin, _, foreground in self._predictions(head):
            for row, before in enumerate(foreground.numpy()):
                after = self._refine(begin + row, before)
                refined.append(after.ravel().astype(np.float16))
                weights.append(_mask_iou(before, after.ravel()))
                self.hooks.step(f"{stage}: refining masks", begin + row + 1, len(self.cached.images))
        return {"foreground": np.stack(refined), "weight": np.asarray(weights, np.float16)}

    def _empty_features(self, head: GraphHead) -> dict[str, Half]:
        """Features [M, n, d] of background crops and of blank pictures."""
        most = len(self.cached.images) + self.plan.blanks
        # what is not written takes no memory, and nothing is copied at the end
        features, made = np.empty((most, *self.cached.features.shape[1:]), np.float16), 0
        for made, picture in enumerate(self._empty_pictures(head), 1):
            features[made - 1] = self.extract(picture)
        return {"features": features[:made]}

    def _empty_pictures(self, head: GraphHead) -> Iterator[npt.NDArray[np.uint8]]:
        """At most one crop of background an image, then the blank pictures."""
        count, what = len(self.cached.images), "features of empty scenes"
        for begin, _, foreground in self._predictions(head):
            for row, soft in enumerate(foreground.numpy()):
                crop = background_crop(self._image(begin + row), soft.reshape(self.cached.grid_hw))
                if crop is not None:
                    yield crop
                self.hooks.step(what, begin + row + 1, count + self.plan.blanks)
        for i, blank in enumerate(blank_images(self.plan.blanks, self.plan.seed)):
            yield blank
            self.hooks.step(what, count + i + 1, count + self.plan.blanks)

    def _image(self, index: int) -> npt.NDArray[np.uint8]:
        return read_photo(self.images / self.cached.images[index])

    def _refine(self, index: int, foreground: Soft) -> Soft:
        image = self._image(index)
        small = cv2.resize(image, (REFINE_SIZE, REFINE_SIZE), interpolation=cv2.INTER_AREA)
        return refine(np.asarray(small, np.uint8), foreground.reshape(self.cached.grid_hw))

    def _predictions(self, head: GraphHead) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """(index of the first image, features [b, n, d], foreground [b, n]) over all images."""
        for begin in range(0, len(self.cached.images), _PREDICT_BATCH):
            features = as_floats(self.cached.take(slice(begin, begin + _PREDICT_BATCH)))
            yield begin, features, predict(head, features, self.plan.threshold)[..., 1]

    def _put_foreground_last(self, head: GraphHead) -> None:
        sample = as_floats(self.cached.take(self.train[:: max(1, len(self.train) // 500)]))
        prior = border_prior(predict(head, sample, self.plan.threshold), self.cached.grid_hw)
        if int(prior.argmax()) == 0:
            head.arrange_columns((1, 0))

    def _measure(
        self, stage: str, epoch: int, loss: float, head: GraphHead, targets: Targets | None
    ) -> EpochLog:
        head.eval()
        with torch.no_grad():
            parts = np.array_split(self.held_out, math.ceil(len(self.held_out) / _PREDICT_BATCH))
            losses = torch.cat([self._loss(head, part, targets) for part in parts])
        self._check_finite(losses, self.held_out)
        dev_iou = self.hooks.dev_iou(head) if self.hooks.dev_iou else None
        return EpochLog(stage, epoch, loss, losses.mean().item(), dev_iou)

    def _log(self, line: EpochLog) -> None:
        write_log(self.folder, line)
        self.hooks.epoch(line)

    def _check_finite(self, losses: torch.Tensor, batch: npt.NDArray[np.int64]) -> None:
        finite = losses.isfinite()
        if not finite.all():
            row = batch[int(finite.int().argmin())]
            raise not_finite([*self.cached.images, "an empty scene"][min(row, len(self.cached.images))])


@dataclass(frozen=True)
class Targets:
    """What the head learns: foreground [N, n] float16 in [0, 1], and each picture's weight [N] float16."""

    foreground: Half
    weight: Half


def predict(head: GraphHead, features: torch.Tensor, threshold: float) -> torch.Tensor:
    """Assignments [b, n, k] of features [b, n, d], both on the CPU, without gradients."""
    head.eval()
    assignments = []
    with torch.no_grad():
        for part in torch.split(features, _PREDICT_BATCH):
            on_device = part.to(head.shift.device)
            assignments.append(head(on_device, cosine_affinity(on_device, threshold)).softmax(-1).cpu())
    return torch.cat(assignments)


def split(
    rows: npt.NDArray[np.int64], held_out: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows that are held out, at least one, and those to train on, each in rising order."""
    order = rows[np.random.default_rng(seed).permutation(len(rows))]
    count = max(1, round(held_out * len(order)))
    return np.sort(order[:count]), np.sort(order[count:])


def check_finite_features(cached: CachedFeatures) -> None:
    """Nothing, if all features are finite.

    Raises:
        TrainingError: naming the first image whose features are not.
    """
    for begin in range(0, len(cached.images), _PREDICT_BATCH):
        finite = np.isfinite(cached.take(slice(begin, begin + _PREDICT_BATCH))).all((1, 2))
        if not finite.all():
            name = cached.images[begin + int(finite.argmin())]
            remedy = "remove that image, or use another --precision"
            raise TrainingError("train", f"the features of {name} are not finite", remedy)


def not_finite(name: str) -> TrainingError:
    """What to say of a loss that is not finite on an image."""
    remedy = "lower the learning rate; the last epoch's weights are kept"
    return TrainingError("train", f"the loss of {name} is not finite", remedy)


def write_log(folder: Path, line: EpochLog) -> None:
    """Appends a line to the log of a run."""
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(line)) + "\n")


def as_floats(array: npt.NDArray[np.float16]) -> torch.Tensor:
    """A float32 copy for torch."""
    return torch.from_numpy(np.asarray(array, np.float32))


def _mask_iou(before: Soft, after: Soft) -> float:
    a, b = before > 0.5, after > 0.5
    union = int((a | b).sum())
    return float((a & b).sum() / union) if union else 0.0
