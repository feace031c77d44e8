"""The mean of the weights of several runs of one student."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from patchcut.errors import OptionError
from torch import nn

from patchcut_export.distillation.student import Decoding
from patchcut_export.errors import TrainingError
from patchcut_export.training.checkpoints import damaged

CHECKPOINT = "student.pt"
_AVERAGE = "average"  # of a run's own steps, in its checkpoint
# What must be the same, so that each weight means the same in all runs.
_ONE_START = ("student", "size", "start", "frozen", "seed")


def check_runs(folders: Sequence[Path], student: Decoding, mine: Mapping[str, Any]) -> None:
    """Finds, before any work is done, that the runs in these folders can be averaged with one of a student.

    Args:
        folders: of finished runs.
        student: what learns.
        mine: its plan, and what else its run depends on.
    Raises:
        OptionError: a folder holds no run, or one of another student or start; or the student has means of
            batches, which belong to the weights of one run.
        TrainingError: a run is not finished, or its folder damaged.
    """
    if folders and any(isinstance(one, nn.modules.batchnorm._BatchNorm) for one in student.modules()):
        problem = "runs of a student with batch normalisation cannot be averaged: its means are of one run"
        raise OptionError("average", problem, "leave --average out")
    for folder in folders:
        theirs = _plan_of(folder)
        for name in _ONE_START:
            if theirs.get(name) != mine.get(name):
                problem = (
                    f"{folder} is a run of another {name}, {theirs.get(name)!r} and not {mine.get(name)!r}"
                )
                raise OptionError("average", problem, "name runs of the same student, start and seed")


def average_runs(student: Decoding, folders: Sequence[Path]) -> None:
    """Gives a student the mean of its weights and of those that other runs ended with.

    A model soup (Wortsman et al., 2203.05482): runs from one start in other orders end near to each other,
    and what each has learned by heart is not in their mean.

    Raises:
        TrainingError: a run's folder is damaged.
    """
    mean = {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}
    for count, folder in enumerate(folders, 2):
        state = _weights_of(folder, mean)
        for name, tensor in mean.items():
            if tensor.is_floating_point():
                tensor.lerp_(state[name].to(tensor), 1 / count)
    student.load_state_dict(mean)


def _plan_of(folder: Path) -> dict[str, Any]:
    path = folder / "plan.json"
    if not path.is_file() or not (folder / CHECKPOINT).is_file():
        raise OptionError("average", f"{folder} holds no run", "name one that was finished, by its --run")
    try:
        fields = json.loads(path.read_text("utf-8"))
        plan: dict[str, Any] = fields["plan"]
        held_out = max(1, round(plan["held_out"] * len(fields["images"])))
        steps = plan["epochs"] * ((len(fields["images"]) - held_out) // plan["batch"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error
    done = _read(folder)["epochs"]
    if done < steps:
        problem = f"{folder} stands at step {done} of {steps}"
        raise TrainingError("distill", problem, "finish it first: the command that began it goes on there")
    return plan


def _weights_of(folder: Path, like: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    path = folder / CHECKPOINT
    try:
        state: dict[str, torch.Tensor] = _read(folder)[_AVERAGE]
        wrong = [name for name, tensor in like.items() if state[name].shape != tensor.shape]
    except (KeyError, AttributeError) as error:
        raise damaged(path, error) from error
    if wrong:
        raise damaged(path, ValueError(f"{wrong[0]} has another shape"))
    return state


def _read(folder: Path) -> dict[str, Any]:
    path = folder / CHECKPOINT
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        int(saved["epochs"])
    except Exception as error:  # torch's reader raises many kinds; all mean the same here
        raise damaged(path, error) from error
    return saved
