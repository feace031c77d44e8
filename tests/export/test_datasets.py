"""Layouts, and what strangers' folders have instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs patchcut[export]")

from patchcut_export.datasets import Example, open_dataset
from patchcut_export.errors import DatasetError
from patchcut_export.evaluation import read_mask


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.zeros((4, 6, 3), np.uint8))
    return path


@pytest.fixture
def masks_root(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "c.x.jpeg"):
        put(tmp_path / "images" / name)
    for name in ("a.png", "b.bmp", "c.x.png", "unused.png"):
        put(tmp_path / "masks" / name)
    (tmp_path / "images" / "notes.txt").touch()
    (tmp_path / "images" / "._a.jpg").touch()
    return tmp_path


def boxes_root(root: Path, content: Any) -> Path:
    put(root / "images" / "1.jpg")
    put(root / "images" / "2.jpg")
    (root / "boxes.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return root


def entry(file: object, *boxes: object, **fields: object) -> dict[str, object]:
    return {"file": file, "objects": [{"bbox": box, **fields} for box in boxes]}


def test_masks_are_found_by_name(masks_root: Path) -> None:
    examples = open_dataset("masks", masks_root)
    assert [example.name for example in examples] == ["a", "b", "c.x"]
    assert [example.image.name for example in examples] == ["a.png", "b.JPG", "c.x.jpeg"]
    assert [example.mask.name for example in examples if example.mask] == ["a.png", "b.bmp", "c.x.png"]


def test_boxes_become_half_open(tmp_path: Path) -> None:
    hard = {"bbox": [1, 1, 2, 2], "difficult": 1}
    content = {
        "2": entry("images/2.jpg", [1, 1, 6, 4], [2, 3, 4, 4]),
        "1": {"file": "images/1.jpg", "objects": [hard, {"bbox": [3, 2, 3, 2], "difficult": 0}]},
        "0": {"file": "images/1.jpg", "objects": [hard]},
    }
    examples = open_dataset("boxes", boxes_root(tmp_path, content))
    assert [example.name for example in examples] == ["1", "2"]
    assert [e.boxes_xyxy.tolist() for e in examples if e.boxes_xyxy is not None] == [
        [[2, 1, 3, 2]],
        [[0, 0, 6, 4], [1, 2, 4, 4]],
    ]


def test_unknown_layouts_and_roots_are_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no layout 'voc'; layouts: boxes, masks"):
        open_dataset("voc", tmp_path)
    for layout in ("masks", "boxes"):
        with pytest.raises(DatasetError, match="none is not a folder"):
            open_dataset(layout, tmp_path / "none")
    with pytest.raises(
        DatasetError, match="images is not a folder; the layout is a folder with images/ and masks/"
    ):
        open_dataset("masks", tmp_path)
    with pytest.raises(DatasetError, match=r"cannot read .*boxes\.json: No such file"):
        open_dataset("boxes", tmp_path)


def test_missing_masks_are_counted(masks_root: Path) -> None:
    for name, expected in (("b.bmp", "no mask for b;"), ("a.png", "no mask for a and 1 more;")):
        (masks_root / "masks" / name).unlink()
        with pytest.raises(DatasetError, match=expected):
            open_dataset("masks", masks_root)


def test_no_images_are_told(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(DatasetError, match="has no images in the layout 'masks'"):
        open_dataset("masks", tmp_path)
    with pytest.raises(DatasetError, match="has no images in the layout 'boxes'"):
        open_dataset("boxes", boxes_root(tmp_path, {}))


def test_two_files_of_one_name_are_told(masks_root: Path) -> None:
    put(masks_root / "images" / "a.bmp")
    with pytest.raises(DatasetError, match=r"has both a\.bmp and a\.png"):
        open_dataset("masks", masks_root)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1, 2]",
        "3",
        {"1": [1]},
        {"1": {"objects": []}},
        {"1": {"file": "images/1.jpg"}},
        {"1": entry(7, [1, 1, 2, 2])},
        {"1": {"file": "images/1.jpg", "objects": [{}]}},
        {"1": entry("images/1.jpg", [1, 1, 2])},
        {"1": entry("images/1.jpg", [1, 1, 2], [1, 2, 3], [4, 4, 4], [4, 4, 4])},  # twelve numbers
        {"1": entry("images/1.jpg", [1, 1, "x", 2])},
        {"1": entry("images/1.jpg", [5, 1, 2, 2])},  # left of its own left side
        {"1": entry("images/1.jpg", [1, 1, float("nan"), 2])},
        {"1": entry("images/1.jpg", 4)},
    ],
)
def test_malformed_boxes_are_one_line(tmp_path: Path, content: object) -> None:
    with pytest.raises(DatasetError) as raised:
        open_dataset("boxes", boxes_root(tmp_path, content))
    assert "boxes.json is not a list of boxes" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_boxes_of_an_image_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"boxes\.json names .*3\.jpg, which is not there"):
        open_dataset("boxes", boxes_root(tmp_path, {"1": entry("images/3.jpg", [1, 1, 2, 2])}))


def mask_file(path: Path, mask: np.ndarray) -> Example:
    assert cv2.imwrite(str(path), mask)
    return Example("x", path, path)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_masks_are_cut_at_half_their_range(tmp_path: Path, kind: type) -> None:
    top = np.iinfo(kind).max
    mask = np.array([[0, top // 4, top // 2 + top // 200, top]], kind)
    read = read_mask(mask_file(tmp_path / "m.png", mask), (1, 4))
    assert read.dtype == bool
    assert read.tolist() == [[False, False, True, True]]
    colour = cv2.merge([mask, mask, mask])
    assert read_mask(mask_file(tmp_path / "c.png", colour), (1, 4)).tolist() == read.tolist()


def test_bad_masks_are_told(tmp_path: Path) -> None:
    good = mask_file(tmp_path / "m.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(DatasetError, match="is 4x3, its image 3x4; masks must have"):
        read_mask(good, (4, 3))
    assert not read_mask(good, (3, 4)).any()
    ones = mask_file(tmp_path / "ones.png", np.eye(3, dtype=np.uint8))
    with pytest.raises(DatasetError, match=r"no value but 0 and 1.*multiply by 255"):
        read_mask(ones, (3, 3))
    for content in (b"", b"no picture"):
        (tmp_path / "bad.png").write_bytes(content)
        with pytest.raises(DatasetError, match="cannot be read as an image"):
            read_mask(Example("x", tmp_path, tmp_path / "bad.png"), (3, 4))
    with pytest.raises(DatasetError, match=r"cannot read .*gone\.png: No such file"):
        read_mask(Example("x", tmp_path, tmp_path / "gone.png"), (3, 4))
