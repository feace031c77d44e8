from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from patchcut.errors import SourceError
from patchcut.sources import open_source
from patchcut.sources.photos import is_whole, read_photo

from tests.runtime.sources.files import encoded, names, picture


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_exif(jpeg: bytes, orientation: int, thumbnail: bytes = b"") -> bytes:
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"II*\x00" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    body = b"Exif\x00\x00" + tiff + thumbnail
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def test_photo(tmp_path: Path) -> None:
    (tmp_path / "é.png").write_bytes(encoded(".png"))
    with open_source(tmp_path / "é.png") as source:
        (frame,) = source
    assert (source.kind, source.total, source.problems) == ("images", 1, [])
    assert (frame.name, frame.index, frame.color, frame.time_s) == ("é.png", 0, "bgr", None)
    np.testing.assert_array_equal(frame.image, picture())


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(picture()[..., 0], id="grey"),
        pytest.param(np.dstack([picture(), picture()[..., :1]]), id="alpha"),
        pytest.param(picture().astype(np.uint16) * 257, id="16 bits"),
    ],
)
def test_other_pixels_become_bgr(tmp_path: Path, image: np.ndarray) -> None:
    (tmp_path / "x.png").write_bytes(encoded(".png", image))
    read = read_photo(tmp_path / "x.png")
    assert (read.shape, read.dtype) == ((60, 80, 3), np.uint8)
    channel = picture()[..., 0]
    assert np.abs(read[..., 0].astype(int) - channel).max() <= 1


def test_exif_turns_the_photo(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(with_exif(encoded(".jpg"), orientation=6))
    read = read_photo(tmp_path / "x.jpg")
    assert read.shape == (80, 60, 3)
    assert np.abs(read.astype(int) - np.rot90(picture(), -1)).mean() < 5
    stored = read_photo(tmp_path / "x.jpg", upright=False)
    assert np.abs(stored.astype(int) - picture()).mean() < 5


@pytest.mark.parametrize(
    "params", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)]
)
def test_jpeg_is_whole_until_its_end_is_cut(params: tuple[int, ...]) -> None:
    jpeg = encoded(".jpg", picture(240, 320), *params)
    assert is_whole(jpeg)
    assert is_whole(jpeg + b"\x00trailing bytes of a phone")
    assert not any(is_whole(jpeg[:length]) for length in range(3, len(jpeg), 7))
    assert not is_whole(jpeg[: len(jpeg) // 2] + bytes(len(jpeg) // 2))


def test_thumbnail_does_not_make_a_jpeg_whole() -> None:
    jpeg = with_exif(encoded(".jpg"), 1, thumbnail=encoded(".jpg", picture(12, 16)))
    assert is_whole(jpeg)
    assert not is_whole(jpeg[:-100])


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_other_formats_are_whole_until_cut(suffix: str) -> None:
    data = encoded(suffix)
    assert is_whole(data)
    assert not any(is_whole(data[:length]) for length in range(12, len(data), 5))


def test_unreadable_photo_is_a_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    source = open_source(folder)
    assert names(source) == []
    assert source.problems[0] == "[b/übung [1].png] cannot be read: Permission denied; check the file"


def test_decompression_bomb_is_a_line(tmp_path: Path) -> None:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    bomb = b"\x89PNG\r\n\x1a\n" + header + pixels + png_chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(
        SourceError, match=r"bomb.png\] has more pixels than OpenCV's safety limit; scale it down"
    ):
        open_source(tmp_path / "bomb.png")


def test_phone_picture_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.heic").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(40))
    with pytest.raises(SourceError, match="is a HEIC file, which this OpenCV does not decode; convert it"):
        open_source(tmp_path / "x.heic")
