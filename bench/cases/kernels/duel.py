"""What a case of an op is, and the arrays that several cases take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

DIM = 384


@dataclass(frozen=True)
class Side:
    """One way to do the work: who, once, and what its clock holds."""

    name: str
    call: Callable[[], object]
    inside: str


@dataclass(frozen=True)
class Duel:
    """One op and its neighbours on the same input.

    Attributes:
        ours: patchcut.
        neighbours: the first is the one that `times_as_fast` compares with.
        shapes: shapes of the input and the output.
        quality: how far patchcut and the first neighbour agree.
        dtype: number format of the arrays.
        repeats: where the group's own number would take too long.
    """

    ours: Side
    neighbours: tuple[Side, ...]
    shapes: dict[str, tuple[int, ...]]
    quality: dict[str, float] = field(default_factory=dict)
    dtype: str = "float32"
    repeats: int | None = None


def noisy_clusters(n: int) -> Array:
    """[n, 384] float32, three noisy clusters: an affinity that is neither empty nor full."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((3, DIM))
    noisy = centres[rng.integers(0, 3, n)] + 0.7 * rng.standard_normal((n, DIM))
    rows: Array = noisy.astype(np.float32)
    return rows


def smooth_assignment(columns: int, grid_hw: tuple[int, int]) -> Array:
    """[n, k] float32, smooth blobs as a head gives them."""
    rng = np.random.default_rng(0)
    height, width = grid_hw
    small = rng.standard_normal((height // 4 + 1, width // 4 + 1, columns))
    smooth = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    logits = 2 * np.asarray(smooth).reshape(-1, columns)
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    assignment: Array = (exponents / exponents.sum(1, keepdims=True)).astype(np.float32)
    return assignment


def difference(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    return float(np.abs(a - b).max())
