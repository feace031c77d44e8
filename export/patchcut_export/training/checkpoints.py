"""What is kept of a training run, so that one that was stopped goes on where it was."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from patchcut.output.whole_files import write_whole

from patchcut_export.errors import TrainingError
from patchcut_export.training.gnn import GraphHead


class Checkpoint:
    """The state of objects that have `state_dict` as it was last saved, random numbers included.

    Args:
        path: the file.
        device: whose random numbers are drawn beside the CPU's.
        objects: by their names in the file.
    """

    def __init__(self, path: Path, device: torch.device, objects: Mapping[str, Any]) -> None:
        self.path = path
        self.device = device
        self.objects = objects

    def restore(self) -> int:
        """How many epochs or steps are done; the objects are as they were after them.

        Raises:
            TrainingError: the file is damaged.
        """
        if not self.path.is_file():
            return 0
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            for name, one in self.objects.items():
                one.load_state_dict(saved[name])
            torch.set_rng_state(saved["random"])
            if self.device.type == "cuda" and saved["cuda_random"] is not None:
                torch.cuda.set_rng_state(saved["cuda_random"], self.device)
            return int(saved["epochs"])
        except Exception as error:  # torch's reader raises many kinds; all mean the same here
            raise damaged(self.path, error) from error

    def save(self, done: int) -> None:
        """Writes the state after a number of epochs or steps, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        states = {name: one.state_dict() for name, one in self.objects.items()}
        on_cuda = self.device.type == "cuda"
        random = {
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(self.device) if on_cuda else None,
        }
        data = io.BytesIO()  # torch's own writer calls a full disk a RuntimeError
        torch.save({**states, **random, "epochs": done}, data)
        write_whole(self.path, data.getvalue())


class Best:
    """The weights after the epoch with the lowest loss on held-out images, the first of equals.

    Attributes:
        epoch: the epoch's number, from 1; 0 before the first.
        loss: its held-out loss.
    """

    def __init__(self, head: GraphHead) -> None:
        self.epoch = 0
        self.loss = math.inf
        self._weights = _copy(head)

    def offer(self, epoch: int, loss: float, head: GraphHead) -> None:
        """Takes the head's weights if their loss is lower than all before."""
        if loss < self.loss:
            self.epoch, self.loss, self._weights = epoch, loss, _copy(head)

    def put_into(self, head: GraphHead) -> None:
        """Gives the head the best weights."""
        head.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "loss": self.loss, "weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch, self.loss, self._weights = state["epoch"], state["loss"], state["weights"]


def claim_folder(
    folder: Path, plan: Mapping[str, Any], images: Sequence[str], contents: Sequence[str]
) -> None:
    """Marks the folder as this plan's on these images, or finds that it is.

    Args:
        contents: the sha256 of each image's file.
    Raises:
        TrainingError: it holds a run of another plan or other images, or is damaged.
    """
    path = folder / "plan.json"
    mine = json.dumps({"plan": plan, "images": images, "contents": contents})
    if not path.is_file():
        write_whole(path, mine.encode())
        return
    try:
        theirs = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise damaged(path, error) from error
    if theirs != json.loads(mine):
        problem = f"{folder} holds a run with another plan or other images"
        raise TrainingError("train", problem, "name another --work folder, or delete it")


def damaged(path: Path, error: Exception) -> TrainingError:
    """What to say of a file of a run's folder that cannot be read."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return TrainingError("train", f"{path} is damaged: {first}", f"delete {path.parent}")


def _copy(head: GraphHead) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in head.state_dict().items()}
