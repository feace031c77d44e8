"""CUB-200-2011: birds with masks, a box and fifteen keypoints each."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets.examples import Boxes, Choices, Dataset, Example, Keypoints
from patchcut_export.measuring.datasets.folders import check_there, find_root, read_table

_NEEDS = ("images", "images.txt", "train_test_split.txt", "bounding_boxes.txt", "parts/part_locs.txt")
_SIZES = {"test": 5794, "train": 5994, "all": 11788}
# Five people drew each mask, whose grey level says how many agree: above half of the range are three.
_TRUTH = (
    "masks, foreground where three of the five annotators drew it; keypoints that are visible; whole images"
)


def open_cub(root: Path, choices: Choices) -> Dataset:
    """`images.txt` and its company, and `segmentations/` in the same folder or beside it.

    `segmentations` is an archive of its own; people unpack it in either place.
    """
    base = find_root("CUB-200-2011", root, ("CUB_200_2011",), _NEEDS)
    masks = next((f / "segmentations" for f in (base, base.parent) if (f / "segmentations").is_dir()), None)
    if masks is None:
        problem = f"{base} has no masks: looked for segmentations/ in it and beside it"
        raise DatasetError(problem, "they are an archive of their own: segmentations.tgz")
    split = choices.split or "test"
    files = _files_of(base, split)
    boxes, keypoints = _boxes(base), _keypoints(base)
    images = {key: base / "images" / file for key, file in files.items()}
    truths = {key: masks / Path(file).with_suffix(".png") for key, file in files.items()}
    for kind, paths, folder in (("image", images, base / "images"), ("mask", truths, masks)):
        check_there(
            kind, folder, [files[key] for key, path in paths.items() if not path.is_file()], len(files)
        )
    examples = [
        Example(
            path.stem,
            path,
            truths[key],
            boxes_xyxy=boxes.get(key),
            keypoints=keypoints.get(key),
            upright=False,
        )
        for key, path in sorted(images.items(), key=lambda item: item[1])
    ]
    return Dataset(f"CUB-200-2011 {split}", examples, _TRUTH, _SIZES[split])


def _files_of(base: Path, split: str) -> dict[str, str]:
    """Paths below images/ by the image's number."""
    wanted = {"test": "0", "train": "1"}
    in_train = dict(read_table(base / "train_test_split.txt", 2))
    return {
        key: file
        for key, file in read_table(base / "images.txt", 2)
        if split == "all" or in_train.get(key) == wanted[split]
    }


def _boxes(base: Path) -> dict[str, Boxes]:
    rows = ((key, _numbers(base, fields)) for key, *fields in read_table(base / "bounding_boxes.txt", 5))
    return {key: np.array([[x, y, x + w, y + h]], np.float32) for key, (x, y, w, h) in rows}


def _keypoints(base: Path) -> dict[str, Keypoints]:
    """(x, y, part) of the visible keypoints by the image's number."""
    found: dict[str, list[tuple[int, int, int]]] = {}
    for key, part, x, y, visible in read_table(base / "parts" / "part_locs.txt", 5):
        if visible == "1":
            column, row = _numbers(base, [x, y])
            found.setdefault(key, []).append((int(column), int(row), int(part)))
    return {key: np.array(points, np.int32) for key, points in found.items()}


def _numbers(base: Path, fields: list[str]) -> list[float]:
    try:
        return [float(field) for field in fields]
    except ValueError as error:
        raise DatasetError(
            f"{base} has coordinates that are no numbers: {error}", "download it again"
        ) from error
