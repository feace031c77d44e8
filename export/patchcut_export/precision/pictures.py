"""What precisions are fitted to and measured on: photos of a folder, or random pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels
from patchcut.sources import open_source

from patchcut_export.errors import ExportError

FITTED_TO = 64
MEASURED_ON = 100

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images, and what is said of them.

    Attributes:
        fitted: what static precisions are fitted to, [H, W, 3] uint8 BGR each.
        measured: what all precisions are measured on; none of `fitted` where there were enough.
        name: of the folder, or what they are.
        are_photos: on others than photos labels and affinities tell little.
    """

    fitted: Sequence[Image]
    measured: Sequence[Image]
    name: str
    are_photos: bool


def read_photos(folder: Path) -> Pictures:
    """Photos of a folder, evenly spread: 64 to fit to and 100 others to measure on, or all for both.

    Raises:
        ExportError: it has no images that can be read.
        SourceError: it is no folder.
    """
    wanted = FITTED_TO + MEASURED_ON
    if not folder.is_dir():
        raise ExportError("calibrate", f"{folder} is not a folder", "name a folder of photos")
    with open_source(folder) as source:
        every = max(1, math.ceil((source.total or wanted) / wanted))
    with open_source(folder, every=every) as source:
        frames = [np.array(frame.image) for frame in source]
    if not frames:
        raise ExportError("calibrate", f"{folder} has no photos", "name a folder of photos")
    if len(frames) < 2:
        return Pictures(frames, frames, f"{len(frames)} of {folder.name}", True)
    share = min(FITTED_TO, len(frames) * FITTED_TO // wanted or 1)
    chosen = set(np.linspace(0, len(frames) - 1, share).astype(int).tolist())
    fitted = [frame for i, frame in enumerate(frames) if i in chosen]
    measured = [frame for i, frame in enumerate(frames) if i not in chosen]
    return Pictures(fitted, measured, folder.resolve().name, True)


def random_pictures() -> Pictures:
    """Four smooth random pictures of 256 x 256."""
    rng = np.random.default_rng(0)
    small = np.clip(rng.normal(0.45, 0.33, (4, 8, 8, 3)), 0, 1).astype(np.float32)
    side = np.linspace(0, 7, 256)
    low, part = np.floor(side).astype(int).clip(0, 6), (side - np.floor(side).clip(0, 6)).astype(np.float32)
    rows = small[:, low] * (1 - part)[:, None, None] + small[:, low + 1] * part[:, None, None]
    both = rows[:, :, low] * (1 - part)[:, None] + rows[:, :, low + 1] * part[:, None]
    frames = list(np.round(both * 255).astype(np.uint8))
    return Pictures((), frames, "smooth random pictures", False)


def fewer(images: Sequence[Image], size: int) -> Sequence[Image]:
    """As many as have about the pixels of all at 224 x 224, evenly spread: larger sizes take longer."""
    count = min(len(images), max(8, round(len(images) * (224 / size) ** 2)))
    return [images[i] for i in np.linspace(0, len(images) - 1, count).astype(int)] if count else []


def as_inputs(
    images: Sequence[Image], size: int, mean: Sequence[float], std: Sequence[float], fit: Any
) -> list[npt.NDArray[np.float32]]:
    """Inputs of a graph, [1, 3, S, S] float32 each, as the runtime makes them."""
    inputs = []
    for image in images:
        out = np.zeros((1, 3, size, size), np.float32)
        kernels.preprocess(image, (size, size), tuple(mean), tuple(std), color="bgr", fit=fit, out=out[0])
        inputs.append(out)
    return inputs
