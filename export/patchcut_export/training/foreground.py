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

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
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
from patchcut_export.measuring.metrics import mask_iou
from patchcut_export.training.checkpoints import damaged
from patchcut_export.training.feature_cache import CachedFeatures
from patchcut_export.training.gnn import GraphHead, cosine_affinity, ncut_loss
from patchcut_export.training.loop import (
    GnnPlan,
    Hooks,
    Loop,
    Rows,
    Stage,
    as_floats,
    even_batches,
    full_batches,
    not_finite,
)
from patchcut_export.training.pseudo_masks import REFINE_SIZE, border_prior, ncut_bipartition, orient, refine
from patchcut_export.training.torch_device import CPU

Half = npt.NDArray[np.float16]
Extract = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]

_PREDICT_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class ForegroundPlan(GnnPlan):
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.empty_weight < math.inf:
            raise OptionError("empty-weight", f"must be 0 or more, got {self.empty_weight}")

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages in order."""
        return ("ncut", "cut", *(f"self-{i + 1}" for i in range(self.rounds)))


def train_foreground(
    cached: CachedFeatures,
    images: Path,
    extract: Extract,
    folder: Path,
    plan: ForegroundPlan,
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
        TrainingError: fewer than two images, features or a loss that are not finite, a damaged folder, or one
            of another plan.
        OutputError: the folder cannot be written.
    """
    count = len(cached.images)
    if count < 2:
        raise TrainingError("train", f"needs at least 2 images, got {count}", "name a larger folder")
    try:
        loop = Loop(cached, np.arange(count), folder, plan, hooks, device)
        loop.claim()
        return _Foreground(loop, plan, images, extract).run()
    except OSError as error:
        raise output_error(folder, error) from error


@dataclass(frozen=True)
class Targets:
    """What the head learns: foreground [N, n] float16 in [0, 1], and each picture's weight [N] float16."""

    foreground: Half
    weight: Half


class _Foreground:
    """The stages, their losses and targets."""

    def __init__(self, loop: Loop, plan: ForegroundPlan, images: Path, extract: Extract) -> None:
        self.loop = loop
        self.plan = plan
        self.images = images
        self.extract = extract
        self.cached = loop.cached
        self.step = loop.hooks.step
        self.empties = self.cached.features[:0]

    def run(self) -> GraphHead:
        head = None
        for number, name in enumerate(self.plan.stages):
            targets = None if head is None else self._targets(name, head)
            head, _ = self.loop.run(self._stage(number, name, targets))
        assert head is not None
        return head

    def _stage(self, number: int, name: str, targets: Targets | None) -> Stage:
        """A fresh head learns by the NCut loss where there are no targets, else from masks."""
        count = len(self.cached.images)
        # rows of `targets` after the images' own belong to pictures without an object
        extra = 0 if targets is None else len(targets.weight) - count
        return Stage(
            name=name,
            file=f"{name}.pt",
            seed=self.plan.seed + number,
            columns=2,
            sample=self.loop.sample(300),
            rows=np.concatenate([self.loop.train, count + np.arange(extra)]),
            batches=full_batches,
            epochs=self.plan.ncut_epochs if targets is None else self.plan.epochs,
            loss=lambda head, rows: self._losses(head, rows, targets).mean(),
            held_out_loss=lambda head: self._held_out_loss(head, targets),
            finish=self._put_foreground_last if targets is None else None,
        )

    def _held_out_loss(self, head: GraphHead, targets: Targets | None) -> float:
        batches = even_batches(self.loop.held_out, _PREDICT_BATCH)
        return torch.cat([self._losses(head, rows, targets) for rows in batches]).mean().item()

    def _losses(self, head: GraphHead, rows: Rows, targets: Targets | None) -> torch.Tensor:
        """[b] loss of each row of a batch, whose numbers rise."""
        count = len(self.cached.images)
        images, empties = rows[rows < count], rows[rows >= count] - count
        features = self._on_device(np.concatenate([self.cached.take(images), self.empties[empties]]))
        affinity = cosine_affinity(features, self.plan.threshold)
        logits = head(features, affinity)
        if targets is None:
            losses = ncut_loss(logits.softmax(-1), affinity)
        else:
            margin = logits[..., 1] - logits[..., 0]
            share = self._on_device(targets.foreground[rows])
            losses = functional.binary_cross_entropy_with_logits(margin, share, reduction="none").mean(1)
            losses = losses * self._on_device(targets.weight[rows])
        finite = losses.isfinite()
        if not finite.all():
            row = rows[int(finite.int().argmin())]
            raise not_finite([*self.cached.images, "an empty scene"][min(row, count)])
        return losses

    def _on_device(self, array: Half) -> torch.Tensor:
        return as_floats(array).to(self.loop.device)

    def _targets(self, stage: str, head: GraphHead) -> Targets:
        """What a stage learns, kept on disk so that a resumed run sees the same."""
        make = self._cut_targets if stage == "cut" else partial(self._refined_targets, stage)
        targets = Targets(**self._kept(f"{stage}.targets.npz", lambda: make(head)))
        if stage == "cut" or not self.plan.empty_weight:
            return targets
        self.empties = self._kept("empties.npz", lambda: self._empty_features(head))["features"]
        nothing = np.zeros((len(self.empties), targets.foreground.shape[1]), np.float16)
        weight = np.full(len(self.empties), self.plan.empty_weight, np.float16)
        return Targets(
            np.concatenate([targets.foreground, nothing]), np.concatenate([targets.weight, weight])
        )

    def _kept(self, name: str, make: Callable[[], dict[str, Half]]) -> dict[str, Half]:
        """Arrays from a file of the folder, made and written there if it is not there."""
        path = self.loop.folder / name
        if path.is_file():
            try:
                with np.load(path) as saved:
                    return {key: saved[key] for key in saved.files}
            except Exception as error:  # numpy's reader raises many kinds; all mean the same here
                raise damaged(path, error) from error
        arrays = make()
        with whole_file(path) as unfinished:
            np.savez(unfinished, **arrays)  # type: ignore[arg-type]
        return arrays

    def _cut_targets(self, head: GraphHead) -> dict[str, Half]:
        batches = []
        for begin, features, foreground in self._predictions(head):
            batches.append(orient(ncut_bipartition(features), foreground).half().numpy())
            self.step("cutting each image", begin + len(features), len(self.cached.images))
        sides = np.concatenate(batches)
        return {"foreground": sides, "weight": np.ones(len(sides), np.float16)}

    def _refined_targets(self, stage: str, head: GraphHead) -> dict[str, Half]:
        """The head's own masks on the images' edges; an image counts by how far the two agree (IoU)."""
        refined, weights, size = [], [], (REFINE_SIZE, REFINE_SIZE)
        for begin, _, foreground in self._predictions(head):
            for row, before in enumerate(foreground.numpy()):
                small = cv2.resize(self._image(begin + row), size, interpolation=cv2.INTER_AREA)
                after = refine(np.asarray(small, np.uint8), before.reshape(self.cached.grid_hw))
                refined.append(after.ravel().astype(np.float16))
                own, moved = before > 0.5, after.ravel() > 0.5
                # an image in which nothing was found teaches nothing
                weights.append(mask_iou(own, moved) if own.any() else 0.0)
                self.step(f"{stage}: refining masks", begin + row + 1, len(self.cached.images))
        return {"foreground": np.stack(refined), "weight": np.asarray(weights, np.float16)}

    def _empty_features(self, head: GraphHead) -> dict[str, Half]:
        """Features [M, n, d] of background crops and of blank pictures."""
        limit = len(self.cached.images) + self.plan.blanks
        # what is not written takes no memory, and nothing is copied at the end
        features, made = np.empty((limit, *self.cached.features.shape[1:]), np.float16), 0
        for made, picture in enumerate(self._empty_pictures(head), 1):
            features[made - 1] = self.extract(picture)
        return {"features": features[:made]}

    def _empty_pictures(self, head: GraphHead) -> Iterator[npt.NDArray[np.uint8]]:
        """At most one crop of background an image, then the blank pictures."""
        title, total = "features of empty scenes", len(self.cached.images) + self.plan.blanks
        for begin, _, foreground in self._predictions(head):
            for row, soft in enumerate(foreground.numpy()):
                crop = background_crop(self._image(begin + row), soft.reshape(self.cached.grid_hw))
                if crop is not None:
                    yield crop
                self.step(title, begin + row + 1, total)
        first = total - self.plan.blanks + 1
        for done, blank in enumerate(blank_images(self.plan.blanks, self.plan.seed), first):
            yield blank
            self.step(title, done, total)

    def _image(self, index: int) -> npt.NDArray[np.uint8]:
        return read_photo(self.images / self.cached.images[index])

    def _predictions(self, head: GraphHead) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """(index of the first image, features [b, n, d], foreground [b, n]) over all images."""
        for begin in range(0, len(self.cached.images), _PREDICT_BATCH):
            features = as_floats(self.cached.take(slice(begin, begin + _PREDICT_BATCH)))
            yield begin, features, predict(head, features, self.plan.threshold)[..., 1]

    def _put_foreground_last(self, head: GraphHead) -> None:
        sample = as_floats(self.cached.take(self.loop.sample(500)))
        prior = border_prior(predict(head, sample, self.plan.threshold), self.cached.grid_hw)
        if int(prior.argmax()) == 0:
            head.arrange_columns((1, 0))


def predict(head: GraphHead, features: torch.Tensor, threshold: float) -> torch.Tensor:
    """Assignments [b, n, k] of features [b, n, d], both on the CPU, without gradients."""
    head.eval()
    assignments = []
    with torch.no_grad():
        for batch in torch.split(features, _PREDICT_BATCH):
            on_device = batch.to(head.shift.device)
            assignments.append(head(on_device, cosine_affinity(on_device, threshold)).softmax(-1).cpu())
    return torch.cat(assignments)
