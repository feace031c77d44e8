"""Anybody's own folders, and what strangers' have instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs patchcut[export]")

from patchcut.errors import OptionError, SourceError
from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets import LAYOUTS, Choices, open_dataset


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
    dataset = open_dataset("masks", masks_root)
    examples = dataset.examples
    assert (dataset.name, dataset.published) == (masks_root.name, None)
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
    root = boxes_root(tmp_path, content)
    dataset = open_dataset("boxes", root)
    examples = dataset.examples
    assert "difficult ones left out" in dataset.truth
    assert [example.name for example in examples] == ["1", "2"]
    assert [e.boxes_xyxy.tolist() for e in examples if e.boxes_xyxy is not None] == [
        [[2, 1, 3, 2]],
        [[0, 0, 6, 4], [1, 2, 4, 4]],
    ]
    counted = open_dataset("boxes", root, Choices(difficult=True))
    assert "difficult ones count" in counted.truth
    assert [len(e.boxes_xyxy) for e in counted.examples if e.boxes_xyxy is not None] == [1, 2, 2]


def test_class_masks_choose_their_images(masks_root: Path) -> None:
    for extra in ("d.jpg", "unused.jpg"):
        put(masks_root / "images" / extra)
    examples = open_dataset("classes", masks_root).examples
    assert [example.name for example in examples] == ["a", "b", "c.x", "unused"]
    assert {example.mask_kind for example in examples} == {"index"}
    (masks_root / "images" / "unused.jpg").unlink()
    with pytest.raises(DatasetError, match="images has no image for 1 of 4 images: unused;"):
        open_dataset("classes", masks_root)


def test_sequences_are_folders(tmp_path: Path) -> None:
    for name in ("dog/00001", "dog/00000", "bear/7"):
        put(tmp_path / "images" / f"{name}.jpg")
        put(tmp_path / "masks" / f"{name}.png")
    examples = open_dataset("sequences", tmp_path).examples
    assert [(e.sequence, e.name) for e in examples] == [
        ("bear", "bear/7"),
        ("dog", "dog/00000"),
        ("dog", "dog/00001"),
    ]
    assert {example.mask_kind for example in examples} == {"colour"}
    assert [example.is_end for example in examples] == [True, True, True]
    put(tmp_path / "images" / "cat" / "0.jpg")
    with pytest.raises(DatasetError, match="masks/cat is not a folder"):
        open_dataset("sequences", tmp_path)


@pytest.mark.parametrize("layout", ["sequences", "davis16", "davis17"])
def test_videos_and_frames_can_be_chosen(tmp_path: Path, layout: str) -> None:
    for video, count in (("bear", 8), ("cat", 1), ("dog", 3)):
        for frame in range(count):
            put(tmp_path / "images" / video / f"{frame:05}.jpg")
            put(tmp_path / "masks" / video / f"{frame:05}.png")
    dataset = open_dataset(layout, tmp_path, Choices(sequences=("dog", "bear"), every=3))
    assert [(e.name, e.is_end) for e in dataset.examples] == [
        ("bear/00000", True),
        ("bear/00003", False),
        ("bear/00006", False),
        ("dog/00000", True),
    ]
    assert {e.mask_kind for e in dataset.examples} == {"objects" if layout == "davis17" else "colour"}
    assert dataset.ends_count == (layout == "davis17")
    assert (dataset.name, dataset.published) == (tmp_path.name, None)
    with pytest.raises(DatasetError, match="images has no video 'cow'; videos: bear, cat, dog"):
        open_dataset(layout, tmp_path, Choices(sequences=("dog", "cow")))
    (tmp_path / "masks" / "bear" / "00004.png").unlink()
    with pytest.raises(
        DatasetError, match="masks/bear has no mask for 1 of 8 images: 00004; each frame needs"
    ):
        open_dataset(layout, tmp_path)
    assert len(open_dataset(layout, tmp_path, Choices(sequences=("cat",))).examples) == 1


def test_unknown_layouts_and_roots_are_told(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match="no layout 'voc'; layouts: masks, classes, boxes, semantic, sequences, ecssd"
    ):
        open_dataset("voc", tmp_path)
    for layout in LAYOUTS:
        with pytest.raises(DatasetError, match="none is not a folder"):
            open_dataset(layout, tmp_path / "none")
    for layout in ("masks", "classes"):
        with pytest.raises(
            DatasetError, match="is not a folder of images and masks: looked for images, masks in it;"
        ):
            open_dataset(layout, tmp_path)
    with pytest.raises(DatasetError, match=r"cannot read .*boxes\.json: No such file"):
        open_dataset("boxes", tmp_path)


def test_missing_masks_are_counted(masks_root: Path) -> None:
    put(masks_root / "images" / "d.png")
    put(masks_root / "masks" / "d.png")
    for name, expected in (
        ("b.bmp", "masks has no mask for 1 of 4 images: b; add them"),
        ("a.png", "for 2 of 4 images: a, b;"),
        ("d.png", "for 3 of 4 images: a, b, d;"),
        ("c.x.png", "for 4 of 4 images: a, b, c.x and 1 more;"),
    ):
        (masks_root / "masks" / name).unlink()
        with pytest.raises(DatasetError, match=expected):
            open_dataset("masks", masks_root)


def test_masks_of_other_sizes_are_counted(masks_root: Path) -> None:
    assert cv2.imwrite(str(masks_root / "masks" / "b.bmp"), np.zeros((6, 4), np.uint8))
    expected = r"b\.bmp is 4x6, its image 6x4; masks must have their images' size"
    with pytest.raises(DatasetError, match=expected):
        open_dataset("masks", masks_root)
    assert cv2.imwrite(str(masks_root / "masks" / "c.x.png"), np.zeros((6, 4), np.uint8))
    with pytest.raises(DatasetError, match=r"b\.bmp is .*, and 1 more of 3 have other sizes;"):
        open_dataset("masks", masks_root)


def test_files_that_are_no_images_are_told_before_any_work(masks_root: Path) -> None:
    for folder in ("masks", "images"):
        kept = (masks_root / folder / "a.png").read_bytes()
        (masks_root / folder / "a.png").write_bytes(b"no picture")
        with pytest.raises(SourceError, match=rf"{folder}/a\.png\] is not an image"):
            open_dataset("masks", masks_root)
        (masks_root / folder / "a.png").write_bytes(kept)


def test_images_on_their_side_are_turned(tmp_path: Path) -> None:
    """A plain folder's masks are of what a person sees; the mask of a published set is of what is stored."""
    pillow = pytest.importorskip("PIL.Image")
    exif = pillow.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    pillow.new("RGB", (8, 4)).save(tmp_path / "images" / "a.jpg", exif=exif)
    for masks, size in (("masks", (4, 8)), ("ground_truth_mask", (8, 4))):
        (tmp_path / masks).mkdir()
        pillow.new("L", size).save(tmp_path / masks / "a.png")
    assert open_dataset("masks", tmp_path).examples[0].upright
    assert not open_dataset("ecssd", tmp_path).examples[0].upright
    pillow.new("L", (8, 4)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(DatasetError, match=r"a\.png is 8x4, its image 4x8"):
        open_dataset("masks", tmp_path)


@pytest.mark.parametrize(
    ("layout", "choices", "expected"),
    [
        ("masks", Choices(split="val"), r"\[split\] must be left out for masks, got 'val'"),
        ("voc07", Choices(split="all"), r"\[split\] must be one of trainval, train, val, test for voc07"),
        ("ecssd", Choices(difficult=False), r"\[difficult\] must be left out for ecssd, got False"),
        ("voc12", Choices(names=Path("x.txt")), r"\[list\] must be left out for voc12, got x\.txt"),
        ("masks", Choices(every=2), r"\[every\] must be left out for masks, got 2"),
        ("ecssd", Choices(sequences=("a",)), r"\[sequences\] must be left out for ecssd"),
        ("davis16", Choices(every=0), r"\[every\] must be a whole number from 1 to 2147483647, got 0"),
        ("davis17", Choices(split="test-dev"), r"\[split\] must be one of val, train for davis17"),
    ],
)
def test_choices_that_a_layout_does_not_have(
    tmp_path: Path, layout: str, choices: Choices, expected: str
) -> None:
    with pytest.raises(OptionError, match=expected):
        open_dataset(layout, tmp_path, choices)


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
