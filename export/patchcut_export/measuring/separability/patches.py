"""What masks say of patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from patchcut.bundle import BackboneSpec, GraphSpec
from patchcut.stages import Canvas
from PIL import Image

from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets import Example, MaskKind
from patchcut_export.measuring.datasets.folders import check_there, list_photos
from patchcut_export.measuring.datasets.sizes import check_sizes, picture_size
from patchcut_export.measuring.truth import read_truth

_UNKNOWN = 255


@dataclass(frozen=True, eq=False)
class PatchTruth:
    """What N images' patches show.

    Attributes:
        known: [N, n] bool, where the masks tell half of a patch or more.
        foreground: [N, n] bool, more than half of what is known of it.
        classes: [N, n] uint8, the largest share, 0 is background; None where masks have no classes.
    """

    known: npt.NDArray[np.bool_]
    foreground: npt.NDArray[np.bool_]
    classes: npt.NDArray[np.uint8] | None


def pair_masks(images: Path, masks: Path, *, classes: bool | None) -> list[Example]:
    """The images that have masks, with them, by name; the size of each pair is checked.

    Args:
        images, masks: folders; a mask is called as its image, but for the suffix.
        classes: whether a mask has a class a pixel, 0 background and 255 not known; None: where it has a
            palette.
    Raises:
        DatasetError: one is no folder or has no pictures, a mask has no image, or not its image's size.
    """
    photos, truths = list_photos(images), list_photos(masks)
    for folder, found in ((images, photos), (masks, truths)):
        if not found:
            raise DatasetError(f"{folder} holds no pictures", "check the path")
    check_there(
        "image", images, [name for name in truths if name not in photos], len(truths), "name its folder"
    )
    if classes is None:
        classes = _has_palette(next(iter(truths.values())))
    kind: MaskKind = "index" if classes else "grey"
    examples = [Example(name, photos[name], mask, kind) for name, mask in truths.items()]
    check_sizes(examples)
    return examples


def read_patch_truth(
    examples: Sequence[Example],
    backbone: BackboneSpec,
    graph: GraphSpec,
    advance: Callable[[int, int], None],
) -> PatchTruth:
    """What the masks of N examples say of the patches of a graph.

    Args:
        advance: called after each image with (done, total).
    Raises:
        DatasetError: a mask cannot be read, or all patches are foreground, or none is.
    """
    seen, fore, largest = [], [], []
    for done, example in enumerate(examples, 1):
        size_hw = picture_size(example.image, upright=example.upright)
        truth = read_truth(example, size_hw)
        classes = truth.foreground.astype(np.uint8) if truth.classes is None else truth.classes
        canvas = Canvas.of(size_hw, backbone, graph)
        shares = canvas.cover(classes.astype(np.int32) + 1, _UNKNOWN + 1)[:_UNKNOWN]  # [255, n]
        seen.append(shares.sum(0))
        fore.append(shares[1:].sum(0))
        largest.append(shares.argmax(0).astype(np.uint8))
        advance(done, len(examples))
    whole = np.stack(seen)
    found = PatchTruth(
        known=whole >= 0.5,
        foreground=np.stack(fore) > 0.5 * whole,
        classes=np.stack(largest) if examples[0].mask_kind == "index" else None,
    )
    _check_both(found, examples)
    return found


def _check_both(truth: PatchTruth, examples: Sequence[Example]) -> None:
    mine = truth.foreground[truth.known]
    if mine.any() and not mine.all():
        return
    what = ("no background" if mine.any() else "no foreground") if mine.size else "nothing that is known"
    assert examples[0].mask is not None
    remedy = "masks are white on black, or with --classes a class on 0"
    raise DatasetError(f"the masks of {examples[0].mask.parent} have {what}", remedy)


def _has_palette(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            return bool(picture.mode == "P")
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as an image", "copy it again") from error
