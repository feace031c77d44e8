"""PASCAL VOC 2007 and 2012: boxes in XML files."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path

import numpy as np

from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets.examples import Boxes, Choices, Dataset, Example
from patchcut_export.measuring.datasets.folders import check_there, find_root, read_lines
from patchcut_export.measuring.datasets.plain import difficult_text

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_SIZES = {
    2007: {"trainval": 5011, "train": 2501, "val": 2510, "test": 4952},
    2012: {"trainval": 11540, "train": 5717, "val": 5823},
}


def _open(root: Path, choices: Choices, *, year: int) -> Dataset:
    """`JPEGImages/`, `Annotations/` and `ImageSets/Main/SPLIT.txt`, in the folder or in VOCdevkit/ of it.

    Difficult and truncated boxes count by default, as in the tables of LOST, TokenCut and FOUND.
    """
    split = choices.split or "trainval"
    names_file = f"ImageSets/Main/{split}.txt"
    inner = (f"VOC{year}", f"VOCdevkit/VOC{year}", f"VOC{year}/VOCdevkit/VOC{year}")
    base = find_root(f"VOC{year}", root, inner, ("JPEGImages", "Annotations", names_file))
    names = [line.split()[0] for line in read_lines(base / names_file)]
    images = {name: base / "JPEGImages" / f"{name}.jpg" for name in names}
    labels = {name: base / "Annotations" / f"{name}.xml" for name in names}
    for kind, paths in (("image", images), ("annotation", labels)):
        missing = [name for name, path in paths.items() if not path.is_file()]
        check_there(kind, base, missing, len(names))
    keep = choices.difficult is not False
    boxes = {name: _read_boxes(labels[name], year, keep) for name in sorted(names)}
    examples = [
        Example(name, images[name], boxes_xyxy=found, upright=False)
        for name, found in boxes.items()
        if len(found)
    ]
    return Dataset(f"VOC{year} {split}", examples, difficult_text(keep), _SIZES[year][split])


open_voc07 = partial(_open, year=2007)
open_voc12 = partial(_open, year=2012)


def _read_boxes(path: Path, year: int, keep_difficult: bool) -> Boxes:
    """[m, 4] half-open; the file's are 1-based and inclusive."""
    try:
        root = ET.parse(path).getroot()
        objects = [
            node for node in root.iter("object") if keep_difficult or node.findtext("difficult") != "1"
        ]
        boxes = np.array([_corners(node) for node in objects], np.float32).reshape(-1, 4)
    except (OSError, ET.ParseError, ValueError) as error:
        raise DatasetError(f"{path} is not a VOC annotation: {error}", "download it again") from error
    folder = root.findtext("folder")
    if folder and folder.startswith("VOC") and folder != f"VOC{year}":
        raise DatasetError(f"{path} is of {folder}, expected VOC{year}", "choose the layout of that year")
    boxes[:, :2] -= 1
    return boxes


def _corners(node: ET.Element) -> list[float]:
    corners = [node.findtext(f"bndbox/{corner}") for corner in _CORNERS]
    if None in corners:
        raise ValueError("an object has no bndbox with xmin, ymin, xmax and ymax")
    return [float(corner) for corner in corners if corner is not None]
