"""What tests of training runs share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from patchcut_export.training.gnn import GraphHead


class Interruption(Exception):
    """Stops a run."""


def same_bits(a: GraphHead, b: GraphHead) -> bool:
    ours, theirs = a.tensors(), b.tensors()
    return ours.keys() == theirs.keys() and all(
        np.array_equal(ours[name].view(np.int32), theirs[name].view(np.int32)) for name in ours
    )


def log_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
