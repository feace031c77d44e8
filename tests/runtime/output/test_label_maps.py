from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from patchcut import OutputError
from patchcut.output import read_label_map
from patchcut.output.label_maps import encode_label_map
from patchcut.output.overlay import color_of
from PIL import Image


def made_map(count: int, size_hw: tuple[int, int] = (50, 70)) -> np.ndarray:
    labels = np.random.default_rng(count).integers(0, count, size_hw).astype(np.int32)
    labels.flat[0], labels.flat[-1] = 0, count - 1
    return labels


@pytest.mark.parametrize("count", [1, 2, 3, 17, 200, 256])
@pytest.mark.parametrize("size_hw", [(1, 1), (1, 40), (50, 70)])
def test_pillow_reads_numbers_and_shows_colours(tmp_path: Path, count: int, size_hw: tuple[int, int]) -> None:
    labels = made_map(count, size_hw)
    data = encode_label_map(labels, count)
    image = Image.open(io.BytesIO(data))
    image.load()
    assert image.mode == "P"
    np.testing.assert_array_equal(np.array(image), labels)
    colors = np.array([(0, 0, 0), *(color_of(label) for label in range(1, count))], np.uint8)
    np.testing.assert_array_equal(np.array(image.convert("RGB")), colors[labels])
    (tmp_path / "x.png").write_bytes(data)
    read = read_label_map(tmp_path / "x.png")
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, labels)


def test_opencv_shows_the_colours_of_the_overlay() -> None:
    labels = made_map(5)
    data = np.frombuffer(encode_label_map(labels, 5), np.uint8)
    shown = cv2.imdecode(data, cv2.IMREAD_COLOR)
    for label in range(1, 5):
        assert np.all(shown[labels == label] == color_of(label, "bgr"))
    assert not shown[labels == 0].any()


def test_colours_go_with_names_where_they_have_their_own() -> None:
    labels = made_map(4)
    data = np.frombuffer(encode_label_map(labels, 4, (0, 9, 2, 30)), np.uint8)
    shown = cv2.imdecode(data, cv2.IMREAD_COLOR)
    for label, number in enumerate((9, 2, 30), start=1):
        assert np.all(shown[labels == label] == color_of(number, "bgr"))


@pytest.mark.parametrize("count", [257, 400])
def test_more_labels_than_a_palette_has_are_grey(tmp_path: Path, count: int) -> None:
    labels = made_map(count)
    path = tmp_path / "x.png"
    path.write_bytes(encode_label_map(labels, count))
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, labels)
    np.testing.assert_array_equal(np.array(Image.open(path)), labels)
    np.testing.assert_array_equal(read_label_map(path), labels)


@pytest.mark.parametrize(("count", "bits"), [(2, 1), (4, 2), (9, 4), (16, 4), (30, 8)])
def test_pictures_saved_again_are_read(tmp_path: Path, count: int, bits: int) -> None:
    """With fewer bits, other chunks before the pixels, and transparency."""
    labels, path = made_map(count), tmp_path / "x.png"
    image = Image.open(io.BytesIO(encode_label_map(labels, count)))
    image.save(path, transparency=0, dpi=(72, 72))
    assert path.read_bytes()[24:26] == bytes([bits, 3])
    np.testing.assert_array_equal(read_label_map(path), labels)


def test_what_is_no_label_map_is_told(tmp_path: Path) -> None:
    good = encode_label_map(made_map(9), 9)
    (tmp_path / "cut.png").write_bytes(good[:60])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    cv2.imwrite(str(tmp_path / "color.png"), np.zeros((4, 4, 3), np.uint8))
    for name in ("cut", "text", "empty", "color"):
        with pytest.raises(OutputError, match=rf"\[labels\] .*{name}.png is no label map"):
            read_label_map(tmp_path / f"{name}.png")
    with pytest.raises(OutputError, match=r"\[labels\] cannot read .*gone.png: No such file"):
        read_label_map(tmp_path / "gone.png")


def test_damaged_label_maps_are_told_or_read(tmp_path: Path) -> None:
    rng, good, path = np.random.default_rng(0), encode_label_map(made_map(9), 9), tmp_path / "x.png"
    told = 0
    for i in range(400):
        damaged = bytearray(good[: rng.integers(len(good))] if i % 2 else good)
        for _ in range(3):
            at = int(rng.integers(min(len(damaged), 60 if i % 3 else 10**6) or 1))  # mostly the header
            damaged[at : at + 1] = bytes([rng.integers(256)])
        path.write_bytes(damaged)
        try:
            assert read_label_map(path).ndim == 2
        except OutputError:
            told += 1
    assert 100 < told < 400


def test_what_png_cannot_hold_is_told() -> None:
    with pytest.raises(OutputError, match="cannot encode 5x0 pixels as PNG"):
        encode_label_map(np.zeros((0, 5), np.int32), 2)
