"""The log of a training run: a line of JSON every few steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class StepLog:
    """A line of the log; losses are means over the steps since the last line.

    Attributes:
        step: how many are done.
        mask: binary cross-entropy of the decoder's cells.
        features: 1 - cosine of the features to the teacher's, both less their mean; of all sets.
        held_out_mask, held_out_features: the same on the held-out images, at the end of a pass; else None.
        dev_iou: mean foreground IoU on the development images, at the end of a pass; else None.
    """

    step: int
    mask: float
    features: float
    held_out_mask: float | None = None
    held_out_features: float | None = None
    dev_iou: float | None = None


class RunLog:
    """The lines of a run, of which those after the step that is gone on from are dropped.

    Args:
        path: its file; made if missing.
        step: how many steps are done.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.lines: list[StepLog] = []
        if path.is_file():
            for text in path.read_text("utf-8").splitlines():
                line = StepLog(**json.loads(text))
                if line.step <= step:
                    self.lines.append(line)
        path.write_text("".join(_text(line) for line in self.lines), "utf-8")
        self._sums, self._count = np.zeros(2), 0

    def add(self, mask: float, features: float) -> None:
        """Takes the losses of a step."""
        self._sums += mask, features
        self._count += 1

    def write(self, step: int, watched: Mapping[str, float | None]) -> StepLog:
        """Writes the line of the steps since the last one.

        Args:
            step: how many are done.
            watched: fields of `StepLog` about images that are not trained on.
        """
        mask, features = self._sums / max(1, self._count)
        line = StepLog(step, float(mask), float(features), **watched)
        self._sums, self._count = np.zeros(2), 0
        self.lines.append(line)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_text(line))
        return line


def _text(line: StepLog) -> str:
    return json.dumps(asdict(line)) + "\n"
