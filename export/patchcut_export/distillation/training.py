"""The loop in which a student learns, step by step, gone on with where it was stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from patchcut.checks import check_whole
from patchcut.errors import OptionError
from patchcut.output.whole_files import output_error
from torch.nn import functional

from patchcut_export.distillation.averaging import CHECKPOINT
from patchcut_export.distillation.curve import draw_curve
from patchcut_export.distillation.decoder import CELLS
from patchcut_export.distillation.frozen import FrozenStudent
from patchcut_export.distillation.log import RunLog, StepLog
from patchcut_export.distillation.student import Decoding
from patchcut_export.distillation.views import Batch, View, Views
from patchcut_export.errors import TrainingError
from patchcut_export.training.checkpoints import Checkpoint, claim_folder

Rows = npt.NDArray[np.int64]

_MAX_EPOCHS = 10_000
_LOG_EVERY, _SAVE_EVERY = 20, 100
_WARM_UP = 100  # steps in which the learning rate rises
_KEPT = 0.995  # of the averaged weights, a step; less in the first steps
_NEAREST = 10
_LARGEST_GRADIENT = 1.0
_CENTRED_ON = 256  # images whose mean feature is subtracted before cosines are taken


@dataclass(frozen=True, kw_only=True)
class DistillPlan:
    """How a student learns. A value that is not allowed is an OptionError that names it.

    Attributes:
        epochs: passes over the images.
        batch: images a step.
        seed: decides the weights that are not given.
        order: with the seed, decides the order of the images and their views.
        learning_rate: AdamW's for the trunk: it rises over the first steps, and falls along a cosine to 0.
        decoder_learning_rate: the same for decoder and projections, which start at random.
        weight_decay: AdamW's.
        features: what the features' loss counts beside the masks'.
        coarse: what the tokens' own answer counts beside the decoder's.
        nothing: share of the views that show nothing, and have the mask of it.
        held_out: share of the images that are not trained on, whose loss is watched.
    """

    epochs: int = 20
    batch: int = 16
    seed: int = 0
    order: int = 0
    learning_rate: float = 1e-4
    decoder_learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    features: float = 1.0
    coarse: float = 0.3
    nothing: float = 0.15
    held_out: float = 0.03

    def __post_init__(self) -> None:
        check_whole("epochs", self.epochs, 1, _MAX_EPOCHS)
        check_whole("batch", self.batch, 1, 4096)
        for name in ("seed", "order"):
            check_whole(name, getattr(self, name), 0, 2**32 - 1)
        if not 0 <= self.nothing < 1:
            raise OptionError("nothing", f"must be a share from 0 up to 1, got {self.nothing}")
        for name in ("learning_rate", "decoder_learning_rate"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise OptionError(name.replace("_", "-"), f"must be between 0 and 1, got {value}")


@dataclass(frozen=True)
class DistillHooks:
    """What is told while a student learns.

    Attributes:
        step: called with (title, done, total) as often as something moves.
        line: called with each line of the log that has something of held-out images.
        dev_iou: of a student on development images; None where there are none.
    """

    step: Callable[[str, int, int], None] = lambda title, done, total: None
    line: Callable[[StepLog], None] = lambda log: None
    dev_iou: Callable[[Decoding], float] | None = None


class Average:
    """The exponential mean of a module's weights over the steps: it is what ends in the bundle."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._values = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    def add(self, module: torch.nn.Module, step: int) -> None:
        """Takes the weights after a step, counted from 1."""
        kept = min(_KEPT, step / (step + _NEAREST))
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                self._values[name].lerp_(tensor.detach(), 1 - kept)
            else:
                self._values[name].copy_(tensor)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self._values

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in self._values.items():
            tensor.copy_(state[name])


class Distillation:
    """Trains one student in one folder.

    Args:
        student: with the weights that it starts from.
        views: images and targets.
        folder: where the checkpoint, the log and its curve are kept.
        plan: how to train.
        about: what else the run depends on; a folder of another run is refused.
        hooks: progress and log.
        device: where the student learns.
    Raises:
        TrainingError: there are fewer images than a batch.
    """

    def __init__(
        self,
        student: Decoding,
        views: Views,
        folder: Path,
        plan: DistillPlan,
        about: Mapping[str, Any],
        hooks: DistillHooks,
        device: torch.device,
    ) -> None:
        self.student = student.to(device)
        self.views = views
        self.folder = folder
        self.plan = plan
        self.about = about
        self.hooks = hooks
        self.device = device
        count = len(views.cached.images)
        order = np.random.default_rng(plan.seed).permutation(count)
        held_out = max(1, round(plan.held_out * count))
        self.held_out, self.train = np.sort(order[:held_out]), np.sort(order[held_out:])
        if len(self.train) < plan.batch:
            problem = f"needs at least a batch of {plan.batch} images beside {held_out} held out, got {count}"
            raise TrainingError("distill", problem, "name a larger folder, or a smaller --batch")
        self.steps_a_pass = len(self.train) // plan.batch
        self.steps = plan.epochs * self.steps_a_pass
        self._means = {name: self._mean(name) for name in views.cached.sets}

    def run(self) -> Decoding:
        """The student with its averaged weights, ready to be used.

        Stopped at any time and run again, it ends with the same weights.

        Raises:
            TrainingError: a loss is not finite, or the folder is damaged or another run's.
            OutputError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            cached = self.views.cached
            claim_folder(self.folder, {**asdict(self.plan), **self.about}, cached.images, cached.contents)
            return self._run()
        except OSError as error:
            raise output_error(self.folder, error) from error

    def _run(self) -> Decoding:
        optimizer = self._optimizer()
        average = Average(self.student)
        states = {"student": self.student, "optimizer": optimizer, "average": average}
        checkpoint = Checkpoint(self.folder / CHECKPOINT, self.device, states)
        step = checkpoint.restore()
        log = RunLog(self.folder / "log.jsonl", step)
        while step < self.steps:
            self.student.train()
            losses = self._step(step, optimizer)
            step += 1
            average.add(self.student, step)
            log.add(*losses)
            ends_pass = step % self.steps_a_pass == 0
            if ends_pass or step % _LOG_EVERY == 0:
                line = log.write(step, self._watched(average) if ends_pass else {})
                if ends_pass:
                    self.hooks.line(line)
                    draw_curve(self.folder / "curve.png", log.lines)
            if ends_pass or step % _SAVE_EVERY == 0:
                checkpoint.save(step)
            self.hooks.step("distilling", step, self.steps)
        self.student.load_state_dict(average.state_dict())
        return self.student.eval()

    def _step(self, step: int, optimizer: torch.optim.Optimizer) -> tuple[float, float]:
        """One step; what is drawn for it depends on the seed and its number alone."""
        epoch, place = divmod(step, self.steps_a_pass)
        drawn = self.plan.seed + (self.plan.order << 32)
        order = np.random.default_rng([drawn, epoch]).permutation(self.train)
        rows = order[place * self.plan.batch : (place + 1) * self.plan.batch]
        random = np.random.default_rng([drawn, epoch, place])
        batch = self.views.batch(rows, [View.drawn(random, self.plan.nothing) for _ in rows]).to(self.device)
        torch.manual_seed((drawn * 1_000_003 + step) % 2**63)  # of a trunk that drops paths
        share = self._rate(step)
        for group in optimizer.param_groups:
            group["lr"] = group["highest"] * share
        mask, coarse, features = self._losses(batch)
        loss = mask + self.plan.coarse * coarse + self.plan.features * features
        if not torch.isfinite(loss):
            names = ", ".join(self.views.cached.images[row] for row in rows[:3].tolist())
            remedy = "lower the learning rate, or delete the work folder if an image is to blame"
            raise TrainingError(
                "distill", f"the loss is not finite at step {step + 1} ({names}, ...)", remedy
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), _LARGEST_GRADIENT)
        optimizer.step()
        return mask.item(), features.item()

    def _losses(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """[] each: of the cells, of the patches, and of the features."""
        found, logits, coarse = self.student.learned(batch.images)
        cross_entropy = functional.binary_cross_entropy_with_logits
        patches = functional.avg_pool2d(batch.masks[:, None], CELLS).flatten(1)
        cells = (cross_entropy(logits, batch.masks, reduction="none").mean((1, 2)) * batch.weights).mean()
        tokens = (cross_entropy(coarse, patches, reduction="none").mean(1) * batch.weights).mean()
        if isinstance(self.student, FrozenStudent):
            return cells, tokens, torch.zeros(())  # its features are the teacher's
        apart = [1 - self._cosine(name, found[name], batch.sets[name]).mean(1) for name in found]
        of_images = torch.stack(apart).mean(0)
        return cells, tokens, (of_images * batch.known).sum() / batch.known.sum().clamp_min(1)

    def _cosine(self, name: str, found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Of features [b, n, d] of unit length, less what all images have in common."""
        mean = self._means[name].to(self.device)
        ours, theirs = (functional.normalize(one, dim=-1) - mean for one in (found, wanted))
        return functional.cosine_similarity(ours, theirs, dim=-1)

    def _mean(self, name: str) -> torch.Tensor:
        """[d] mean of the unit features of some images."""
        sample = self.train[:: max(1, len(self.train) // _CENTRED_ON)]
        rows = torch.from_numpy(np.asarray(self.views.cached.take(sample, name), np.float32))
        if not torch.isfinite(rows).all():
            raise TrainingError("distill", f"the teacher's {name} has values that are not finite", "")
        return functional.normalize(rows.flatten(0, 1), dim=-1).mean(0)

    def _watched(self, average: Average) -> dict[str, float | None]:
        """Losses of the averaged weights on the held-out images as they are, and the IoU on the others."""
        own = {name: tensor.clone() for name, tensor in self.student.state_dict().items()}
        self.student.load_state_dict(average.state_dict())
        self.student.eval()
        total = np.zeros(2)
        with torch.no_grad():
            for begin in range(0, len(self.held_out), self.plan.batch):
                rows = self.held_out[begin : begin + self.plan.batch]
                batch = self.views.batch(rows, [View()] * len(rows)).to(self.device)
                mask, _, features = self._losses(batch)
                total += len(rows) * np.array([mask.item(), features.item()])
        dev_iou = self.hooks.dev_iou(self.student) if self.hooks.dev_iou else None
        self.student.load_state_dict(own)
        mask, features = total / len(self.held_out)
        return {"held_out_mask": float(mask), "held_out_features": float(features), "dev_iou": dev_iou}

    def _rate(self, step: int) -> float:
        """Share of the highest learning rate."""
        falling = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return min(1.0, (step + 1) / min(_WARM_UP, self.steps)) * falling

    def _optimizer(self) -> torch.optim.Optimizer:
        trunk: list[torch.nn.Parameter] = []
        others: list[torch.nn.Parameter] = []
        for name, parameter in self.student.named_parameters():
            if not parameter.requires_grad:
                continue
            (trunk if name.startswith("trunk.") else others).append(parameter)
        groups = [
            {"params": trunk, "highest": self.plan.learning_rate},
            {"params": others, "highest": self.plan.decoder_learning_rate},
        ]
        return torch.optim.AdamW(groups, self.plan.learning_rate, weight_decay=self.plan.weight_decay)
