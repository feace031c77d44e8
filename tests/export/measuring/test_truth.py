"""Masks as data sets encode them."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs patchcut[export]")

from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets import Classes, Example, MaskKind
from patchcut_export.measuring.truth import read_truth
from PIL import Image

KINDS: tuple[MaskKind, ...] = get_args(MaskKind)
CLASSES = Classes(("background",), {0: 0}, has_background=True)


def mask_file(path: Path, mask: np.ndarray) -> Example:
    assert cv2.imwrite(str(path), mask)
    return Example("x", path, path)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_masks_are_cut_at_half_their_range(tmp_path: Path, kind: type) -> None:
    top = np.iinfo(kind).max
    mask = np.array([[0, top // 4, top // 2 + top // 200, top]], kind)
    read = read_truth(mask_file(tmp_path / "m.png", mask), (1, 4)).foreground
    assert read.dtype == bool
    assert read.tolist() == [[False, False, True, True]]
    colour = cv2.merge([mask, mask, mask])
    assert read_truth(mask_file(tmp_path / "c.png", colour), (1, 4)).foreground.tolist() == read.tolist()


def test_bad_masks_are_told(tmp_path: Path) -> None:
    good = mask_file(tmp_path / "m.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(DatasetError, match="is 4x3, its image 3x4; masks must have"):
        read_truth(good, (4, 3))
    assert not read_truth(good, (3, 4)).foreground.any()
    ones = mask_file(tmp_path / "ones.png", np.eye(3, dtype=np.uint8))
    with pytest.raises(DatasetError, match=r"no value but 0 and 1.*multiply by 255"):
        read_truth(ones, (3, 3))
    for content in (b"", b"no picture"):
        (tmp_path / "bad.png").write_bytes(content)
        for kind in KINDS:
            with pytest.raises(DatasetError, match=r"bad\.png cannot be read as an image"):
                read_truth(Example("x", tmp_path, tmp_path / "bad.png", kind, classes=CLASSES), (3, 4))
    with pytest.raises(DatasetError, match=r"cannot read .*gone\.png: No such file"):
        read_truth(Example("x", tmp_path, tmp_path / "gone.png"), (3, 4))


def palette_file(path: Path, indices: np.ndarray, colours: bytes) -> Path:
    picture = Image.fromarray(indices.astype(np.uint8), "P")
    picture.putpalette(colours)
    picture.save(path)
    return path


def test_class_masks_hold_indices_whatever_their_palette(tmp_path: Path) -> None:
    indices = np.array([[0, 1, 20], [255, 7, 0]], np.uint8)
    shades = bytes(range(255, -1, -1))
    path = palette_file(tmp_path / "p.png", indices, bytes(v for shade in shades for v in (shade, 0, 9)))
    assert cv2.imwrite(str(tmp_path / "g.png"), indices)
    for file in (path, tmp_path / "g.png"):
        truth = read_truth(Example("x", file, file, "index"), (2, 3))
        assert truth.classes is not None and truth.known is not None
        assert truth.classes.tolist() == indices.tolist()
        assert truth.foreground.tolist() == [[False, True, True], [False, True, False]]
        assert truth.known.tolist() == [[True, True, True], [False, True, True]]
    with pytest.raises(DatasetError, match=r"p\.png is 3x2, its image 2x3"):
        read_truth(Example("x", path, path, "index"), (3, 2))


def test_class_masks_in_colours_are_told(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "c.png"), np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"c\.png holds colours \(RGB\), expected a class index"):
        read_truth(Example("x", tmp_path, tmp_path / "c.png", "index"), (2, 3))


def test_anything_but_black_is_an_object(tmp_path: Path) -> None:
    objects = np.array([[0, 1, 2, 0]], np.uint8)
    colours = bytes([0, 0, 0, 128, 0, 0, 0, 1, 0])
    files = [palette_file(tmp_path / "2017.png", objects, colours)]
    for name, picture in (
        ("2016.png", np.where(objects > 0, 255, 0).astype(np.uint8)),
        ("rgb.png", np.stack([objects, objects * 0, objects * 100], axis=2)),
    ):
        assert cv2.imwrite(str(tmp_path / name), picture)
        files.append(tmp_path / name)
    for file in files:
        truth = read_truth(Example("x", file, file, "colour"), (1, 4))
        assert truth.foreground.tolist() == [[False, True, True, False]]
        assert truth.known is None
