"""Folders of images with masks or boxes, in the layouts that evaluation reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from patchcut.sources.photos import PHOTO_SUFFIXES

from patchcut_export.errors import DatasetError

Boxes = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """One image and what is known of it.

    Attributes:
        name: of the image, without its folder.
        image: its file.
        mask: the file of its foreground mask, any value above half of the range is foreground.
        boxes_xyxy: [m, 4] float32, half-open pixels.
    """

    name: str
    image: Path
    mask: Path | None = None
    boxes_xyxy: Boxes | None = None


def open_dataset(layout: str, root: Path) -> list[Example]:
    """The examples of a dataset, sorted by name; every file is checked to be there before any work starts.

    Args:
        layout: a key of `LAYOUTS`.
        root: its folder.
    Raises:
        DatasetError: an unknown layout, a folder that does not have it, an image without its mask.
    """
    if layout not in LAYOUTS:
        raise DatasetError("eval", f"no layout {layout!r}", f"layouts: {', '.join(sorted(LAYOUTS))}")
    if not root.is_dir():
        raise DatasetError("eval", f"{root} is not a folder", "check the path")
    examples = LAYOUTS[layout](root)
    if not examples:
        raise DatasetError("eval", f"{root} has no images in the layout {layout!r}", "check the path")
    return examples


def _masks(root: Path) -> list[Example]:
    """`images/NAME.jpg` and `masks/NAME.png`, any image suffixes."""
    images, masks = _files(root / "images"), _files(root / "masks")
    missing = sorted(images.keys() - masks.keys())
    if missing:
        what = f"{root / 'masks'} has no mask for {missing[0]}"
        raise DatasetError(
            "eval", what + (f" and {len(missing) - 1} more" if missing[1:] else ""), "add them"
        )
    return [Example(name, image, masks[name]) for name, image in sorted(images.items())]


def _boxes(root: Path) -> list[Example]:
    """`images/…` and `boxes.json`: {id: {"file", "objects": [{"bbox": [x1, y1, x2, y2], "difficult"}]}}.

    Boxes are 1-based and inclusive, as PASCAL VOC's are; difficult ones are left out, and images that have no
    other.
    """
    path = root / "boxes.json"
    try:
        entries = json.loads(path.read_text("utf-8"))
        found = [
            (root / entry["file"], _boxes_xyxy(entry["objects"])) for _, entry in sorted(entries.items())
        ]
    except OSError as error:
        raise DatasetError("eval", f"cannot read {path}: {error.strerror}", "check the path") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{path} is not a list of boxes: {error!r}"
        raise DatasetError("eval", what, "each needs a file and objects with a bbox") from error
    for image, _ in found:
        if not image.is_file():
            raise DatasetError("eval", f"{path} names {image}, which is not there", "check the path")
    return [Example(image.stem, image, boxes_xyxy=boxes) for image, boxes in found if len(boxes)]


LAYOUTS: dict[str, Callable[[Path], list[Example]]] = {"masks": _masks, "boxes": _boxes}


def _boxes_xyxy(objects: list[dict[str, object]]) -> Boxes:
    boxes = [entry["bbox"] for entry in objects if not entry.get("difficult")]
    array = np.array(boxes, np.float32)
    if not boxes:
        return array.reshape(0, 4)
    if array.shape != (len(boxes), 4) or not (array[:, 2:] >= array[:, :2]).all():
        raise ValueError("a bbox is not [x1, y1, x2, y2] with x1 <= x2 and y1 <= y2")
    array[:, :2] -= 1
    return array


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetError(
            "eval", f"{folder} is not a folder", "the layout is a folder with images/ and masks/"
        )
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in PHOTO_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            what = f"{folder} has both {found[path.stem].name} and {path.name}"
            raise DatasetError("eval", what, "names must differ in more than the suffix")
        found[path.stem] = path
    return found
