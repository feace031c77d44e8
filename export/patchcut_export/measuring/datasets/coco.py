"""COCO20k: the 19,817 images of COCO train2014 on which object discovery is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets.examples import Boxes, Choices, Dataset, Example
from patchcut_export.measuring.datasets.folders import check_there, find_root, read_lines, reading

_LIST = "coco_20k_filenames.txt"
_ANNOTATIONS = "annotations/instances_train2014.json"
_TRUTH = "boxes rounded to whole pixels, crowds left out"
_PUBLISHED = 19817


def open_coco20k(root: Path, choices: Choices) -> Dataset:
    """`annotations/instances_train2014.json`, `images/train2014/` or `train2014/`, and a list of the images.

    The list cannot be derived, it is a random choice: `coco_20k_filenames.txt` of LOST's repository, a line
    an image, such as train2014/COCO_train2014_000000560992.jpg.
    """
    base = find_root("COCO 2014", root, ("COCO", "coco"), (_ANNOTATIONS,))
    images = next((f for f in (base / "images" / "train2014", base / "train2014") if f.is_dir()), None)
    if images is None:
        problem = f"{base} has no images: looked for images/train2014/ and train2014/"
        raise DatasetError(problem, "unpack train2014.zip there")
    lines = read_lines(_find_list(root, base, choices.names))
    names = list(dict.fromkeys(Path(line.strip()).name for line in lines))
    check_there("image", images, [name for name in names if not (images / name).is_file()], len(names))
    boxes = _read_boxes(base / _ANNOTATIONS, set(names))
    check_there("box", base / _ANNOTATIONS, [name for name in names if name not in boxes], len(names))
    examples = [
        Example(Path(name).stem, images / name, boxes_xyxy=boxes[name], upright=False)
        for name in sorted(names)
    ]
    return Dataset("COCO20k", examples, _TRUTH, _PUBLISHED)


def _find_list(root: Path, base: Path, names: Path | None) -> Path:
    if names is not None:
        return names
    for path in (folder / _LIST for folder in (root, base, base.parent)):
        if path.is_file():
            return path
    problem = f"{root} has no {_LIST}, which says which images of train2014 are COCO20k"
    raise DatasetError(problem, "take it from LOST's repository, or name a list with --list")


def _read_boxes(path: Path, wanted: set[str]) -> dict[str, Boxes]:
    """[m, 4] half-open boxes by the image's file name."""
    with reading(path, "a COCO instances file"):
        with path.open("rb") as file:
            content = json.load(file, object_hook=_without_outlines)
        names = {image["id"]: image["file_name"] for image in content["images"]}
        found: dict[str, list[list[float]]] = {}
        for entry in content["annotations"]:
            name = names.get(entry["image_id"])
            if name in wanted and not entry.get("iscrowd"):
                x, y, width, height = entry["bbox"]
                found.setdefault(name, []).append([x, y, x + width, y + height])
        return {
            name: np.rint(np.array(boxes, np.float64)).astype(np.float32) for name, boxes in found.items()
        }


def _without_outlines(entry: dict[str, Any]) -> dict[str, Any]:
    """`entry` without its polygon: all of train2014's would take gigabytes."""
    entry.pop("segmentation", None)
    return entry
