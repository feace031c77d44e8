"""Sizes of images and masks from their headers, so that a set is known to fit before any work starts."""

from __future__ import annotations

import warnings
from pathlib import Path

from patchcut.sources.photos import read_photo
from PIL import Image

from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets.examples import Example

_ORIENTATION = 0x0112  # the EXIF tag; from 5 on the image lies on its side
_ON_ITS_SIDE = 5


def check_sizes(examples: list[Example]) -> None:
    """Checks that every mask has its image's size.

    Raises:
        DatasetError: some have not; they are counted, and the first is named.
        SourceError: a file is no image.
    """
    wrong = []
    masked = [(example, example.mask) for example in examples if example.mask is not None]
    for example, mask in masked:
        sizes = picture_size(mask, upright=False), picture_size(example.image, upright=example.upright)
        if sizes[0] != sizes[1]:
            wrong.append((mask, *sizes))
    if wrong:
        mask, (height, width), (image_height, image_width) = wrong[0]
        problem = f"{mask} is {width}x{height}, its image {image_width}x{image_height}"
        more = f", and {len(wrong) - 1} more of {len(masked)} have other sizes" if wrong[1:] else ""
        raise DatasetError(problem + more, "masks must have their images' size")


def picture_size(path: Path, *, upright: bool) -> tuple[int, int]:
    """(height, width) of an image file, from its header where that is possible.

    Args:
        upright: as its EXIF orientation shows it.
    Raises:
        SourceError: it is no image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # nothing is decoded
            with Image.open(path) as picture:
                width, height = picture.size
                turned = upright and picture.getexif().get(_ORIENTATION, 1) >= _ON_ITS_SIDE
    except (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError):
        height, width = read_photo(path, upright=upright).shape[:2]
        turned = False
    return (width, height) if turned else (height, width)
