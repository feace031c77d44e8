"""The square in the middle of an image and of its mask, on which some sets are measured."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from patchcut.sources.photos import read_photo
from PIL import Image

from patchcut_export.measuring.datasets import Example


def read_image(example: Example) -> npt.NDArray[np.uint8]:
    """[H, W, 3] uint8 BGR: the part of an example's image that is measured.

    Raises:
        SourceError: it cannot be read.
    """
    image = read_photo(example.image, upright=example.upright)
    if example.square is None:
        return image
    return middle_square(image, example.square, Image.Resampling.BILINEAR)


def middle_square(
    picture: npt.NDArray[np.uint8], side: int, resampling: Image.Resampling = Image.Resampling.NEAREST
) -> npt.NDArray[np.uint8]:
    """[side, side] or [side, side, 3] uint8: the shorter side is scaled to `side`, and the middle cut out.

    As PiCIE's code does it (`data/coco_eval_dataset.py`), with Pillow's filters: bilinear for images, the
    nearest for masks.

    Args:
        picture: [H, W] or [H, W, 3] uint8.
    """
    height, width = picture.shape[:2]
    shorter = min(height, width)
    size = (side * width // shorter, side * height // shorter)
    scaled = Image.fromarray(picture).resize(size, resampling)
    left, top = (round((length - side) / 2) for length in size)
    return np.asarray(scaled.crop((left, top, left + side, top + side)))
