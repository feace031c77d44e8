"""What the cases measure on: the photo, its sizes, the features of the backbone."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import patchcut
from patchcut import Features, Settings
from patchcut.bundle import open_bundle
from patchcut.cells import patch_means
from patchcut.features import Array, to_host
from patchcut.frames import as_frame
from patchcut.sources.photos import read_photo
from patchcut.stages import Extractor

PHOTO = Path(patchcut.__file__).parent / "samples" / "rocket.jpg"
VGA_HW = (480, 640)
FULL_HD_HW = (1080, 1920)


def frame(size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """[H, W, 3] uint8 BGR, the sample photo at `size_hw`."""
    height, width = size_hw
    return np.asarray(cv2.resize(read_photo(PHOTO), (width, height)), np.uint8)


def photo_features(size: int) -> npt.NDArray[np.float32]:
    """[n, d] float32, the embedded bundle's features of the sample photo at 640x480."""
    extractor = open_extractor(Settings(device="cpu", size=size, threads=1))
    return first(features(extractor, frame(VGA_HW)).default)


def open_extractor(settings: Settings) -> Extractor:
    """The extractor of a bundle's first backbone."""
    with open_bundle(settings.bundle) as bundle:
        return Extractor.open(bundle, settings)


def features(extractor: Extractor, image: object) -> Features:
    """Features of one frame, in host memory of their own.

    Args:
        image: a Frame, or [H, W, 3] uint8 BGR.
    """
    found = extractor([as_frame(image)])
    return Features({name: np.array(to_host(one)) for name, one in found.sets.items()}, found.grid_hw)


def first(batch: Array) -> npt.NDArray[np.float32]:
    """[n, d] float32 in host memory, the first of [b, n, d]."""
    rows: npt.NDArray[np.float32] = to_host(batch)[0]
    return rows


def of_patches(assignment: Array, made_from: Features) -> npt.NDArray[np.float32]:
    """[n, k] float32, the first assignment of [b, c * c * n, k], the mean of the cells of each patch."""
    return patch_means(first(assignment), made_from.grid_hw)
