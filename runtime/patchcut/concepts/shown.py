"""What is shown of a concept: the patches of an image that are of it, and those around."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

from patchcut.cells import patch_means
from patchcut.errors import OptionError
from patchcut.features import Features, to_host
from patchcut.heads.base import Head
from patchcut.stages.canvas import Canvas
from patchcut.video.prompts import Prompt, point_at, visible_patches

Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Shown:
    """The patches of one image.

    Attributes:
        rows: [n, d] float32, features that tell what things are.
        inside: [n] bool, patches of the concept; none of an image that shows no concept.
        around: [n] bool, those that are not of it, and show something of the image.
        foreground: [n] float32 in [0, 1], what the head for objects says; None without one.
        grid_hw: rows and columns of the patch grid.
    """

    rows: Float32
    inside: Mask
    around: Mask
    foreground: Float32 | None
    grid_hw: tuple[int, int]

    @property
    def seen(self) -> float:
        """IoU of the concept with a piece of the foreground, at most; 0 without a head for objects."""
        if self.foreground is None:
            return 0.0
        return largest_iou(self.inside, self.foreground > 0.5, self.grid_hw)


def prompts_for(count: int, boxes: Sequence[Any] | None, masks: Sequence[Any] | None) -> list[Prompt | None]:
    """The prompt of each of `count` images; None of those that have neither a box nor a mask.

    Raises:
        OptionError: there are more or fewer than images, an image has both, or one is none.
    """
    for option, given in (("boxes", boxes), ("masks", masks)):
        if given is not None and len(given) != count:
            what = f"must be one for each of the {count} images, got {len(given)}"
            raise OptionError(option, what, "give None for an image without one")
    prompts: list[Prompt | None] = []
    for box, mask in zip(boxes or [None] * count, masks or [None] * count, strict=True):
        none = box is None and mask is None
        prompts.append(None if none else Prompt(box=box, mask=mask))
    return prompts


def look(
    features: Features, semantic: str, canvas: Canvas, prompt: Prompt | None, foreground: Head | None
) -> Shown:
    """The patches of one image.

    Args:
        features: of this image alone, on the host.
        semantic: name of the set that tells what things are.
        canvas: where it lies.
        prompt: where the concept is. Without one it is the largest piece of the foreground.
        foreground: the head for objects, if there is one.
    Raises:
        OptionError: there is neither a prompt nor a head for objects.
    """
    rows = to_host(features[semantic])[0]
    share = _share(features, foreground)
    visible = visible_patches(canvas)
    if prompt is not None:
        values = point_at([prompt], _of_objects(features, foreground, rows), canvas)[:, 1]
        inside = (values > 0.5) & visible
    elif share is not None:
        inside = largest_piece((share > 0.5) & visible, canvas.grid_hw)
    else:
        what = "must be given: this bundle has no head for objects that would find what is shown"
        raise OptionError("boxes", what, "give boxes or masks")
    return Shown(rows, inside, visible & ~inside, share, canvas.grid_hw)


def largest_piece(mask: Mask, grid_hw: tuple[int, int]) -> Mask:
    """[n] bool, the connected component of a mask [n] bool that has the most patches."""
    ids, count = kernels.connected_components(mask.reshape(grid_hw).astype(np.int32))
    sizes = np.bincount(ids.ravel(), minlength=count + 1)[1:]
    piece: Mask = ids.ravel() == (int(sizes.argmax()) + 1 if count else -1)
    return piece


def largest_iou(mask: Mask, foreground: Mask, grid_hw: tuple[int, int]) -> float:
    """IoU of a mask [n] with a connected piece of the foreground [n], at most."""
    ids, count = kernels.connected_components(foreground.reshape(grid_hw).astype(np.int32))
    common = np.bincount(ids.ravel()[mask], minlength=count + 1)[1:]
    either = np.bincount(ids.ravel(), minlength=count + 1)[1:] + mask.sum() - common
    return float((common / either).max(initial=0))


def _share(features: Features, foreground: Head | None) -> Float32 | None:
    if foreground is None:
        return None
    share: Float32 = 1 - patch_means(to_host(foreground(features)), features.grid_hw)[0, :, 0]
    return share


def _of_objects(features: Features, foreground: Head | None, rows: Float32) -> Float32:
    """[n, d] float32, the features by which objects are told from what is around them; else `rows`."""
    return rows if foreground is None else to_host(features.of(foreground.needs))[0]
