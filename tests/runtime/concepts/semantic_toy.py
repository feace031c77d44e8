"""The toy bundle with a feature set that tells what things are: concepts can be shown to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.runtime import toy_bundle as toy

SIDE, CUT = 112, 56
# Grey levels of an image of one colour, BGR, and where a thing of another is on it.
TABLE, BOX = (90, 90, 90), (28, 28, 84, 84)
COLORS = {"mug": (20, 20, 230), "bowl": (230, 60, 20), "leaf": (20, 220, 40)}


def bundle(path: Path, *, heads: bool = True, semantic: bool = True) -> Path:
    """A bundle at `path`; without its head for objects, or without the set "semantic"."""
    files = toy.members(tokens=True)
    spec: dict[str, Any] = toy.manifest(files, tokens=True)
    features = spec["backbones"]["toy"]["features"]
    if semantic:
        features["semantic"] = features.pop("token")
    if not heads:
        spec["heads"] = []
        del files["head.safetensors"]
        spec["files"].pop("head.safetensors")
    return toy.write(path, files, spec)


def scene(*names: str, seed: int = 0) -> np.ndarray:
    """[112, 112 * m, 3] uint8: a thing in the middle of each square, before a grey table, with some noise."""
    rng = np.random.default_rng(seed)
    squares = []
    for name in names:
        square = np.full((SIDE, SIDE, 3), TABLE, np.float64)
        if name in COLORS:
            x0, y0, x1, y1 = BOX
            square[y0:y1, x0:x1] = COLORS[name]
        squares.append(square + rng.normal(0, 6, square.shape))
    return np.concatenate(squares, axis=1).clip(0, 255).astype(np.uint8)
