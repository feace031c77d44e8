"""How a student sees an image while it learns: a crop, perhaps mirrored, and the targets of the same crop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from patchcut.sources.photos import read_photo
from torch.nn import functional

from patchcut_export.distillation.decoder import CELLS
from patchcut_export.distillation.targets import MaskTargets
from patchcut_export.measuring.empty_scenes import background_crop, blank_image
from patchcut_export.training.feature_cache import CachedFeatures

Float32 = npt.NDArray[np.float32]

_LEAST_SIDE = 0.75  # of a crop, as a share of the image's
_CONTRAST, _BRIGHTNESS = 0.2, 20.0
_BLANK = 0.3  # of the pictures of nothing, those that are painted
_SURE = 0.5  # agreement of the ensemble's mask and the one on edges, from which what is beside it is nothing


@dataclass(frozen=True)
class View:
    """A crop in shares of the image's sides, and what is done to its pixels.

    Attributes:
        begin_yx, side: its corner, and its side.
        mirrored: left and right.
        contrast, brightness: pixels times the first plus the second, in 0..255.
        nothing: a number for a picture without an object in the image's place, its background or a blank one;
            None for the image itself.
    """

    begin_yx: tuple[float, float] = (0.0, 0.0)
    side: float = 1.0
    mirrored: bool = False
    contrast: float = 1.0
    brightness: float = 0.0
    nothing: int | None = None

    @classmethod
    def drawn(cls, random: np.random.Generator, nothing: float = 0.0) -> View:
        """One at random: at least three quarters of each side, so that what is in the middle stays whole.

        Args:
            random: draws it.
            nothing: how many of all show nothing, as a share.
        """
        side = float(random.uniform(_LEAST_SIDE, 1))
        top, left = (float(random.uniform(0, 1 - side)) for _ in range(2))
        contrast = float(random.uniform(1 - _CONTRAST, 1 + _CONTRAST))
        brightness = float(random.uniform(-_BRIGHTNESS, _BRIGHTNESS))
        mirrored = bool(random.random() < 0.5)
        number = int(random.integers(2**32)) if nothing and random.random() < nothing else None
        return cls((top, left), side, mirrored, contrast, brightness, number)


@dataclass(frozen=True, eq=False)
class Batch:
    """What a student sees and should answer.

    Attributes:
        images: [b, 3, S, S] float32, normalised.
        masks: [b, CELLS g, CELLS g] float32 in [0, 1].
        weights: [b] float32, how much the mask of each counts.
        sets: the teacher's, by name: [b, g², d] float32, or [b, 1, d].
        known: [b] float32, 1 where the sets are of what is seen, 0 of pictures of nothing.
    """

    images: torch.Tensor
    masks: torch.Tensor
    weights: torch.Tensor
    sets: dict[str, torch.Tensor]
    known: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        sets = {name: one.to(device) for name, one in self.sets.items()}
        images, masks, weights = (one.to(device) for one in (self.images, self.masks, self.weights))
        return Batch(images, masks, weights, sets, self.known.to(device))


class Views:
    """Views of images with their targets, for a student's size.

    Args:
        folder: of the images.
        cached, targets: the teacher's features and masks of them.
        image_size, side: S, and the cells along a side of the student's grid.
        mean, std: of the normalised images, RGB in 0..1.
    """

    def __init__(
        self,
        folder: Path,
        cached: CachedFeatures,
        targets: MaskTargets,
        image_size: int,
        side: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        self.folder = folder
        self.cached = cached
        self.targets = targets
        self.image_size = image_size
        self.side = side
        self.mean = np.asarray(mean, np.float32) * 255
        self.std = np.asarray(std, np.float32) * 255

    def batch(self, rows: npt.NDArray[np.int64], views: list[View]) -> Batch:
        """What a student sees of some images, each by its view."""
        images, masks, known = [], [], np.array([view.nothing is None for view in views])
        sets: dict[str, list[torch.Tensor]] = {name: [] for name in self.cached.sets}
        for row, view in zip(rows.tolist(), views, strict=True):
            image, mask = read_photo(self.folder / self.cached.images[row]), self.targets.take(row)
            if view.nothing is not None:
                sure = bool(self.targets.weights[row] >= _SURE)
                image, mask = _emptied(image, mask, sure, np.random.default_rng(view.nothing))
            images.append(self.image(image, view))
            masks.append(_sampled(mask[..., None], view, CELLS * self.side)[..., 0])
            for name, made in sets.items():
                made.append(self._features(name, row, view))
        weights = np.where(known, self.targets.weights[rows], np.float32(1))
        stacked = {name: torch.stack(made) for name, made in sets.items()}
        numbers = torch.from_numpy(known.astype(np.float32))
        return Batch(torch.stack(images), torch.stack(masks), torch.from_numpy(weights), stacked, numbers)

    def first(self, count: int) -> Batch:
        """As many images as they are, evenly from all."""
        total = len(self.cached.images)
        rows = np.unique(np.linspace(0, total - 1, min(count, total)).astype(np.int64))
        return self.batch(rows, [View()] * len(rows))

    def image(self, image: npt.NDArray[np.uint8], view: View) -> torch.Tensor:
        """[3, S, S] float32, normalised, of an image [H, W, 3] uint8 BGR."""
        corner, size = np.array(view.begin_yx), np.array(image.shape[:2])
        top, left = np.floor(corner * size).astype(int)
        height, width = np.maximum(1, np.floor(view.side * size).astype(int))
        crop = image[top : top + height, left : left + width]
        shrinks = min(height, width) > self.image_size
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        small = cv2.resize(crop, (self.image_size, self.image_size), interpolation=how)
        if view.mirrored:
            small = small[:, ::-1]
        pixels = small[..., ::-1].astype(np.float32)
        changed = np.clip(pixels * np.float32(view.contrast) + np.float32(view.brightness), 0, 255)
        return torch.from_numpy(np.ascontiguousarray(((changed - self.mean) / self.std).transpose(2, 0, 1)))

    def _features(self, name: str, row: int, view: View) -> torch.Tensor:
        """[g², d] or [1, d] of a set of the teacher, where the view looks."""
        rows = np.asarray(self.cached.take(slice(row, row + 1), name)[0], np.float32)
        if len(rows) == 1:
            return torch.from_numpy(rows)
        grid = rows.reshape(*self.cached.grid_hw, -1)
        return _sampled(grid, view, self.side).flatten(0, 1)


def _emptied(
    image: npt.NDArray[np.uint8], mask: Float32, sure: bool, random: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], Float32]:
    """The largest part of an image without foreground, or a blank picture; and the mask of nothing."""
    is_painted = random.random() < _BLANK or not sure
    crop = None if is_painted else background_crop(image, mask)
    empty = blank_image(int(random.integers(4)), random) if crop is None else crop
    return empty, np.zeros_like(mask)


def _sampled(values: Float32, view: View, side: int) -> torch.Tensor:
    """[side, side, c] of values [h, w, c], bilinearly at the middles of the cells of a view.

    Where several values lie in a cell the larger grid is averaged first, so that none is passed over.
    """
    maps = torch.from_numpy(values).permute(2, 0, 1)[None]
    inner = max(1, round(min(values.shape[:2]) * view.side / side))
    middles = (torch.arange(side * inner) + 0.5) / (side * inner) * view.side
    y, x = (2 * (begin + middles) - 1 for begin in view.begin_yx)
    if view.mirrored:
        x = x.flip(0)
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)[None].float()
    taken = functional.grid_sample(maps, grid, "bilinear", "border", align_corners=False)
    return functional.avg_pool2d(taken, inner)[0].permute(1, 2, 0) if inner > 1 else taken[0].permute(1, 2, 0)
