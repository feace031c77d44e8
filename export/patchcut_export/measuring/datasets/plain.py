"""Anybody's own folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets.examples import Boxes, Choices, Dataset, Example, MaskKind
from patchcut_export.measuring.datasets.folders import check_there, find_root, list_photos, pair, reading

_OWN = ("images", "masks")


def open_masks(root: Path, choices: Choices) -> Dataset:
    """`images/NAME.jpg` and `masks/NAME.png`, any image suffixes."""
    find_root("a folder of images and masks", root, (), ("images", "masks"))
    examples = pair(root / "images", root / "masks", upright=True)
    return Dataset(root.resolve().name, examples, "masks, foreground above half of their range")


def open_classes(root: Path, choices: Choices) -> Dataset:
    """`masks/NAME.png` with a class for each pixel, 0 background, 255 not known, and their `images/`.

    Images without a mask are left out: sets often have masks for a part of their images.
    """
    find_root("a folder of images and masks", root, (), ("images", "masks"))
    images, masks = list_photos(root / "images"), list_photos(root / "masks")
    check_there("image", root / "images", [name for name in masks if name not in images], len(masks))
    examples = [Example(name, images[name], mask, "index") for name, mask in masks.items()]
    return Dataset(root.resolve().name, examples, "class masks, foreground is any class, 255 is left out")


def open_sequences(root: Path, choices: Choices) -> Dataset:
    """`images/SEQUENCE/FRAME.jpg` and `masks/SEQUENCE/FRAME.png`."""
    examples = pair_sequences(*list_sequences(root), choices)
    truth = "masks, foreground is anything but black"
    return Dataset(root.resolve().name, examples, truth, ends_count=False)


def holds_own(root: Path) -> bool:
    """Whether a folder has `images/` and `masks/`."""
    return all((root / name).is_dir() for name in _OWN)


def list_sequences(root: Path) -> tuple[Path, Path, list[str]]:
    """The folders `images/` and `masks/` of anybody's own videos, and the videos' names.

    Raises:
        DatasetError: they are not there.
    """
    find_root("a folder of videos and masks", root, (), _OWN)
    images, masks = (root / name for name in _OWN)
    return images, masks, sorted(path.name for path in images.iterdir() if path.is_dir())


def pair_sequences(
    images: Path, masks: Path, names: list[str], choices: Choices, kind: MaskKind = "colour"
) -> list[Example]:
    """The frames of videos, each a folder of `images` with one of the same name in `masks`.

    Args:
        names: of the videos.
        choices: which of them, and of their frames.
    Raises:
        DatasetError: there is no video, or none of a name that was chosen; a frame has no mask.
    """
    if not names:
        raise DatasetError(f"{images} has no folders of frames", "give the folder that holds the videos")
    wanted = names if choices.sequences is None else choices.sequences
    if unknown := [name for name in wanted if name not in names]:
        raise DatasetError(f"{images} has no video {unknown[0]!r}", f"videos: {', '.join(names)}")
    chosen = [name for name in names if name in wanted]
    return [example for name in chosen for example in _pair_sequence(images, masks, name, choices, kind)]


def _pair_sequence(images: Path, masks: Path, name: str, choices: Choices, kind: MaskKind) -> list[Example]:
    remedy = "each frame needs one, and of a test set only the first is published: choose other --sequences"
    frames = pair(images / name, masks / name, kind, sequence=name, remedy=remedy)
    if not frames:
        raise DatasetError(f"{images / name} has no images", "add its frames or choose other --sequences")
    ends = (0, len(frames) - 1)
    return [replace(frame, is_end=i in ends) for i, frame in enumerate(frames)][:: choices.every or 1]


def open_boxes(root: Path, choices: Choices) -> Dataset:
    """`images/…` and `boxes.json`: {id: {"file", "objects": [{"bbox": [x1, y1, x2, y2], "difficult"}]}}.

    Boxes are 1-based and inclusive, as PASCAL VOC's are. Images without any box that counts are left out.
    """
    path = root / "boxes.json"
    keep = bool(choices.difficult)
    with reading(path, "a list of boxes", "each needs a file and objects with a bbox"):
        entries = json.loads(path.read_text("utf-8"))
        found = [
            (root / entry["file"], _boxes_xyxy(entry["objects"], keep))
            for _, entry in sorted(entries.items())
        ]
    for image, _ in found:
        if not image.is_file():
            raise DatasetError(f"{path} names {image}, which is not there", "check the path")
    examples = [Example(image.stem, image, boxes_xyxy=boxes) for image, boxes in found if len(boxes)]
    return Dataset(root.resolve().name, examples, difficult_text(keep))


def difficult_text(keep: bool) -> str:
    """What the protocol says of difficult boxes."""
    if keep:
        return "boxes, difficult ones count as objects"
    return "boxes, difficult ones left out, and images that have no other"


def _boxes_xyxy(objects: list[dict[str, object]], keep_difficult: bool) -> Boxes:
    boxes = [entry["bbox"] for entry in objects if keep_difficult or not entry.get("difficult")]
    array = np.array(boxes, np.float32)
    if not boxes:
        return array.reshape(0, 4)
    if array.shape != (len(boxes), 4) or not (array[:, 2:] >= array[:, :2]).all():
        raise ValueError("a bbox is not [x1, y1, x2, y2] with x1 <= x2 and y1 <= y2")
    array[:, :2] -= 1
    return array
