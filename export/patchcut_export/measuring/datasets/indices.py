"""Masks whose pixels are numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from patchcut_export.errors import DatasetError


def read_indices(path: Path) -> npt.NDArray[np.uint8]:
    """[H, W] uint8: the values of a grey or palette image; OpenCV would give a palette's colours.

    Raises:
        DatasetError: it cannot be read, or holds colours.
    """
    try:
        with Image.open(path) as picture:
            mode = picture.mode
            values = np.asarray(picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as an image", "copy it again") from error
    if mode not in ("P", "L"):
        problem = f"{path} holds colours ({mode}), expected a class index of 8 bits for each pixel"
        raise DatasetError(problem, "convert it to a palette or grey image")
    return values
