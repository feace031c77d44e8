"""Co-segmentation of ReCo (2206.07045) on given features, as one writes it with torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[np.float32]
Found = tuple[Array, npt.NDArray[np.int64]]


def whole_affinity(features: Array, weights: Array) -> Found:
    """[k, n] scores and [k] seeds of features [k, n, d] and weights [k, n], by the authors' steps.

    All cosines of all patches at once, their range checked, times the weights of the columns; the maximum
    within each image, the mean of these and the best patch. Theirs takes the maximum over columns of several
    images, as a slice of it is too long; here it is over one, as the paper says.
    """
    k, n, _ = features.shape
    rows = torch.nn.functional.normalize(torch.from_numpy(features).flatten(0, 1), dim=-1)
    affinity = rows @ rows.T
    low, high = affinity.min(), affinity.max()
    if low < -1.001 or high > 1.001:
        raise ValueError("cosines must lie in [-1, 1]")
    affinity = affinity * torch.from_numpy(weights).flatten()[None]
    maxima = [affinity[:, first : first + n].max(dim=1).values for first in range(0, k * n, n)]
    return _best(torch.stack(maxima, dim=1).mean(dim=1).reshape(k, n))


def image_by_image(features: Array) -> Found:
    """The same without checks and weights, in the memory of one image's cosines with all."""
    k, n, _ = features.shape
    rows = torch.nn.functional.normalize(torch.from_numpy(features), dim=-1)
    columns = rows.flatten(0, 1).T
    return _best(torch.stack([(image @ columns).unflatten(1, (k, n)).amax(2).mean(1) for image in rows]))


def _best(scores: torch.Tensor) -> Found:
    return scores.numpy(), scores.argmax(dim=1).numpy()
