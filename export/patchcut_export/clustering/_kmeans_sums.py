"""What the op of this name returns, in numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class KMeansSums:
    labels: npt.NDArray[np.int32]
    distances: npt.NDArray[np.float32]
    sums: npt.NDArray[np.float64] | None
    counts: npt.NDArray[np.int64]
    inertia: npt.NDArray[np.float64]


def kmeans_sums(points: Any, centroids: Any, *, metric: str, sums: bool = True) -> KMeansSums:
    rows, means = points.astype(np.float64), centroids.astype(np.float64)
    if not np.isfinite(rows).all():
        raise ValueError("[kmeans_sums] points must be finite")
    if metric == "cosine":
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
        means = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-300)
    distances = np.stack([np.square(rows - mean).sum(axis=1) for mean in means], axis=1)
    labels = distances.argmin(axis=1)
    least = distances.min(axis=1) / (2 if metric == "cosine" else 1)
    own = np.zeros(means.shape)
    np.add.at(own, labels, rows)
    counts = np.bincount(labels, minlength=len(means))
    return KMeansSums(
        labels.astype(np.int32), least.astype(np.float32), own if sums else None, counts, least.sum()
    )
