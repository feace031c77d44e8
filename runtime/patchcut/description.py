"""What a segmenter is and what really runs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from patchcut.settings import Settings


@dataclass(frozen=True)
class Description:
    """What a segmenter is and what really runs; every setting is an attribute, too: `description.refine`.

    Attributes:
        settings: what was chosen, with what stands for "auto" and None, except for `refine`.
        bundle: name and path.
        provider: the engine's provider that executes, such as "CPUExecutionProvider".
        why: why it is this engine and this precision, in a line.
        weights: precision that the graph's weights are stored in; an fp32 graph may stand on int8 weights.
        size_hw: size of the backbone's input, in pixels.
        head_device: where the head runs: "cpu" or "cuda".
        kernel_threads: CPU threads of the kernels at this moment; they are the whole process's.
        calibrated: whether scores are probabilities.
    Examples:
        >>> seg.describe().settings.precision, seg.describe().size_hw
        ('int8', (224, 224))
    """

    settings: Settings
    bundle: str
    provider: str
    why: str
    weights: str
    size_hw: tuple[int, int]
    head_device: str
    kernel_threads: int
    calibrated: bool

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "settings":  # of an object that is not made yet
            raise AttributeError(name)
        return getattr(self.settings, name)

    def to_dict(self) -> dict[str, Any]:
        """All of it in one layer of plain values, ready for JSON.

        Examples:
            >>> seg.describe().to_dict()["head"]
            'gnn'
        """
        chosen = {one.name: getattr(self.settings, one.name) for one in fields(self.settings)}
        facts = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "settings"}
        return {name: _plain(value) for name, value in {**chosen, **facts}.items() if name != "size"}

    def __str__(self) -> str:
        values = {**self.to_dict(), "size_hw": "x".join(map(str, self.size_hw))}
        return "\n".join(f"{name:<15}{value}" for name, value in values.items())


def _plain(value: object) -> object:
    """The value as JSON has it: a path and a head by their words, a number of numpy as one of Python."""
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, str | int | float | tuple) else str(value)
