"""Features of patches that tests make."""

from __future__ import annotations

import numpy as np
from patchcut import Features

GRID = (8, 10)
DIM = 16


def features_of(rows: np.ndarray, grid_hw: tuple[int, int]) -> Features:
    """Features of one frame, [n, d], as the default set."""
    return Features({"key": rows[None]}, grid_hw)


def planted(regions: np.ndarray, seed: int = 0, noise: float = 0.25) -> np.ndarray:
    """[n, DIM] float32, a direction for each number in `regions` [h, w], and noise."""
    random = np.random.default_rng(seed)
    directions = np.linalg.qr(random.standard_normal((DIM, DIM)))[0] * 3
    rows = directions[regions.ravel()] + noise * random.standard_normal((regions.size, DIM))
    return rows.astype(np.float32)
