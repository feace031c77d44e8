"""Masks without labels: what the head learns from before it can learn from itself."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch

from patchcut_export.training.gnn import cosine_affinity

Image = npt.NDArray[np.uint8]
Soft = npt.NDArray[np.float32]

# Side of the square copy of an image on which masks are refined, in pixels.
REFINE_SIZE = 160
_SURE = 0.9
_GRABCUT_ITERATIONS = 2
_GRABCUT_MODEL_SIZE = 65


def ncut_bipartition(features: torch.Tensor, threshold: float = 0.0) -> torch.Tensor:
    """The normalised cut of each image's patches in two, [b, n] bool; which side is True is arbitrary.

    Args:
        features: [b, n, d] float32.
        threshold: cosines not above it are no edge.
    The second generalised eigenvector of (D - W) y = λ D y, split at its mean: Shi and Malik (2000), as
    TokenCut (2202.11539) does it.
    """
    affinity = cosine_affinity(features, threshold)
    inverse_root = affinity.sum(-1).clamp_min(1e-6).rsqrt()
    normalized = inverse_root[:, :, None] * affinity * inverse_root[:, None, :]
    _, vectors = torch.linalg.eigh(normalized)
    second = vectors[:, :, -2] * inverse_root
    sides: torch.Tensor = second > second.mean(1, keepdim=True)
    return sides


def orient(sides: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
    """[b, n] bool: each row of `sides`, turned round where it disagrees with `foreground` [b, n]."""
    centred = sides.float() - sides.float().mean(1, keepdim=True)
    agreement = (centred * (foreground - foreground.mean(1, keepdim=True))).sum(1, keepdim=True)
    return torch.where(agreement < 0, ~sides, sides)


def refine(image: Image, foreground: Soft) -> Soft:
    """The share of each patch that lies on the object, [h, w] in [0, 1], after the mask was moved onto edges.

    Args:
        image: [REFINE_SIZE, REFINE_SIZE, 3] uint8.
        foreground: [h, w] float32 in [0, 1], on the patch grid.
    GrabCut (Rother et al. 2004) between what the head is sure of; without both sides, the thresholded input.
    """
    fine = cv2.resize(foreground, (REFINE_SIZE, REFINE_SIZE), interpolation=cv2.INTER_LINEAR)
    mask = cut_out(image, np.asarray(fine, np.float32))
    height, width = foreground.shape
    shares = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(shares.clip(0, 1), np.float32)


def cut_out(image: Image, foreground: Soft) -> npt.NDArray[np.bool_]:
    """The object of an image by GrabCut (Rother et al. 2004), between what is sure to be on it or beside it.

    Args:
        image: [H, W, 3] uint8.
        foreground: [H, W] float32 in [0, 1].
    Returns:
        [H, W] bool; the thresholded input where one of both sides is empty.
    """
    labels = np.where(foreground > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[foreground > _SURE] = cv2.GC_FGD
    labels[foreground < 1 - _SURE] = cv2.GC_BGD
    objects = labels & 1
    if objects.all() or not objects.any():
        return objects.astype(bool)
    cv2.setRNGSeed(0)  # its colour models start from k-means
    models = (np.zeros((1, _GRABCUT_MODEL_SIZE)), np.zeros((1, _GRABCUT_MODEL_SIZE)))
    cv2.grabCut(image, labels, (0, 0, 0, 0), *models, _GRABCUT_ITERATIONS, cv2.GC_INIT_WITH_MASK)
    return (labels & 1).astype(bool)


def border_prior(foreground: torch.Tensor, grid_hw: tuple[int, int]) -> torch.Tensor:
    """[k], how much less each column of assignments [b, n, k] is at the border than inside.

    Objects are photographed whole: the column with the largest value is the foreground (DeepCut,
    2212.05853, section 3.5).
    """
    border = torch.ones(grid_hw, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    inside = foreground[:, ~border.flatten()].mean((0, 1))
    return inside - foreground[:, border.flatten()].mean((0, 1))
