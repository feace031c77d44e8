"""Masks whose pixels are numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from patchcut_export.errors import DatasetError


def read_indices(path: Path, *, in_red: bool = False) -> npt.NDArray[np.uint8]:
    """[H, W] uint8: the values of a grey or palette image; OpenCV would give a palette's colours.

    Args:
        in_red: whether the image holds colours, and the values are those of red.
    Raises:
        DatasetError: it cannot be read, or holds colours where it should not, or the other way round.
    """
    try:
        with Image.open(path) as picture:
            mode = picture.mode
            values = np.asarray(picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as an image", "copy it again") from error
    if in_red:
        if mode != "RGB":
            problem = f"{path} holds no colours ({mode}), expected the class of each pixel in red"
            raise DatasetError(problem, "take the panoptic maps as they were published")
        return np.ascontiguousarray(values[..., 0])
    if mode not in ("P", "L"):
        problem = f"{path} holds colours ({mode}), expected a class index of 8 bits for each pixel"
        raise DatasetError(problem, "convert it to a palette or grey image")
    return values
