"""Frames and maps made of blocks, for the tests of the refiners."""

from __future__ import annotations

import numpy as np


def make_frame(rng: np.random.Generator, size_hw: tuple[int, int], cell: int, noise: float) -> np.ndarray:
    """[H, W, 3] uint8: areas of one color with edges between them, and noise."""
    areas = _blocks(rng.integers(0, 256, (size_hw[0] // cell + 1, size_hw[1] // cell + 1, 3)), size_hw, cell)
    return np.clip(areas + rng.normal(0, noise, areas.shape), 0, 255).astype(np.uint8)


def make_map(rng: np.random.Generator, size_hw: tuple[int, int], cell: int) -> np.ndarray:
    """[H, W] float32 in [0, 1], areas whose borders are not those of a frame with another cell."""
    values = rng.random((size_hw[0] // cell + 1, size_hw[1] // cell + 1, 1))
    return _blocks(values, size_hw, cell)[..., 0].astype(np.float32)


def _blocks(values: np.ndarray, size_hw: tuple[int, int], cell: int) -> np.ndarray:
    return values.repeat(cell, axis=0).repeat(cell, axis=1)[: size_hw[0], : size_hw[1]]
