"""TokenCut (2202.11539) on given features, as one writes it with numpy and scipy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.linalg import eigh

Array = npt.NDArray[np.floating]


def second_vector(weights: Array) -> Array:
    """[n] of weights [n, n]: the generalised eigenvector of the second smallest eigenvalue."""
    degrees = np.diag(weights.sum(1))
    vectors: Array = eigh(degrees - weights, degrees, subset_by_index=[1, 1])[1]
    return vectors[:, 0]


def bipartition(
    features: npt.NDArray[np.float32],
    grid_hw: tuple[int, int],
    *,
    threshold: float = 0.2,
    dtype: type[np.floating] = np.float32,
) -> tuple[npt.NDArray[np.bool_], int]:
    """[h, w] mask and the seed; the authors' code solves in float64, in float32 scipy takes half the time."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    weights = np.where(unit @ unit.T > threshold, dtype(1), dtype(1e-5))
    vector = second_vector(weights)
    seed = int(np.abs(vector).argmax())
    above = vector > vector.mean()
    components, _ = ndimage.label((above == above[seed]).reshape(grid_hw))
    return components == components.flat[seed], seed
