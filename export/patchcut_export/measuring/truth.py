"""What is known of an image's pixels, read from its mask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets import VOID, Classes, Example
from patchcut_export.measuring.datasets.indices import read_indices
from patchcut_export.measuring.squares import middle_square

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Truth:
    """A mask, decoded.

    Attributes:
        foreground: [H, W] bool.
        known: [H, W] bool, False where the truth is not told; None is everywhere.
        classes: [H, W] uint8, 255 is not known, 0 is background unless the classes of the set have none; None
            where the mask has no classes.
        objects: [H, W] uint8, the same with the objects of a video.
    """

    foreground: Mask
    known: Mask | None = None
    classes: npt.NDArray[np.uint8] | None = None
    objects: npt.NDArray[np.uint8] | None = None


def read_truth(example: Example, size_hw: tuple[int, ...]) -> Truth:
    """What an example's mask says.

    Args:
        example: with a mask.
        size_hw: size of its image, or of the part that is measured.
    Raises:
        DatasetError: the mask cannot be read, has another size than `size_hw`, or does not hold what its kind
            says.
    """
    assert example.mask is not None
    if example.mask_kind in ("semantic", "panoptic"):
        assert example.classes is not None
        indices = read_indices(example.mask, in_red=example.mask_kind == "panoptic")
        return _semantic_truth(example.mask, indices, example.classes, example.square, size_hw)
    if example.mask_kind in ("index", "objects"):
        indices = read_indices(example.mask)
        _check_size(example.mask, indices.shape, size_hw)
        known = indices != VOID
        foreground = (indices > 0) & known
        if example.mask_kind == "index":
            return Truth(foreground, known, classes=indices)
        return Truth(foreground, known, objects=indices)
    if example.mask_kind == "colour":
        picture = _decode(example.mask, cv2.IMREAD_COLOR)
        _check_size(example.mask, picture.shape[:2], size_hw)
        return Truth(np.asarray(picture.any(axis=2)))
    grey = _decode(example.mask, cv2.IMREAD_GRAYSCALE)
    _check_size(example.mask, grey.shape, size_hw)
    if grey.max(initial=0) == 1:
        problem = f"{example.mask} has no value but 0 and 1, which are both dark"
        raise DatasetError(problem, "foreground must be above 127: multiply by 255")
    return Truth(np.asarray(grey > 127))


def _semantic_truth(
    path: Path,
    indices: npt.NDArray[np.uint8],
    classes: Classes,
    square: int | None,
    size_hw: tuple[int, ...],
) -> Truth:
    """The truth of a mask with a value for each pixel."""
    allowed = np.isin(np.arange(256), list(classes.of_values))
    if not allowed[indices].all():
        value = int(indices[~allowed[indices]][0])
        problem = f"{path} has the value {value}, which is none of the {len(classes.names)} classes"
        raise DatasetError(problem, f"expected classes from 0, and {VOID} where it is not known")
    if square is not None:
        indices = middle_square(indices, square)
    _check_size(path, indices.shape, size_hw)
    of_values = np.full(256, VOID, np.uint8)
    of_values[list(classes.of_values)] = list(classes.of_values.values())
    numbers = of_values[indices]
    known = numbers != VOID
    return Truth((numbers > 0) & known if classes.has_background else known, known, classes=numbers)


def _decode(path: Path, flags: int) -> npt.NDArray[np.uint8]:
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}", "check the file") from error
    picture = cv2.imdecode(data, flags) if data.size else None
    if picture is None:
        raise DatasetError(f"{path} cannot be read as an image", "copy it again")
    return np.asarray(picture, np.uint8)


def _check_size(path: Path, shape: tuple[int, ...], size_hw: tuple[int, ...]) -> None:
    if shape != size_hw:
        problem = f"{path} is {shape[1]}x{shape[0]}, its image {size_hw[1]}x{size_hw[0]}"
        raise DatasetError(problem, "masks must have their images' size")
