"""Earlier frames to this one."""

from __future__ import annotations

import numpy as np

from ._nodes import softmax, unit_rows
from ._types import Float64, Real


def propagate(
    features: Real,
    memory: Real,
    values: Real,
    grid_hw: tuple[int, int],
    *,
    frames: int | None = None,
    radius: int = 12,
    topk: int = 5,
    temperature: float = 0.1,
) -> Float64:
    """[n, c] values of [m, n, d] memory, carried to [n, d] features by the patches of a window most alike."""
    rows, columns = np.divmod(np.arange(len(features)), grid_hw[1])
    near = (abs(rows[:, None] - rows) <= radius) & (abs(columns[:, None] - columns) <= radius)
    kept = range(len(memory) if frames is None else frames)
    cosines = np.concatenate([unit_rows(features) @ unit_rows(memory[frame]).T for frame in kept], axis=1)
    # Equal rows are equally near, in whatever order BLAS adds their products.
    cosines = np.where(np.tile(near, len(kept)), cosines.round(12), -np.inf)
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :topk]
    shares = softmax(np.take_along_axis(cosines, nearest, axis=1) / temperature)
    of_places = np.concatenate([np.asarray(values[frame], np.float64) for frame in kept])
    return np.asarray(np.einsum("nk,nkc->nc", shares, of_places[nearest]), np.float64)
