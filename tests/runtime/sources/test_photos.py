from __future__ import annotations

import io
import struct
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest
from patchcut import Frame
from patchcut.errors import SourceError
from patchcut.frames import as_frame
from patchcut.pixels import PixelRule
from patchcut.sources import open_source, photos
from patchcut.sources.headers import Header, read_header
from patchcut.sources.photos import decode_photo, read_frame, read_photo
from PIL import Image, ImageOps

from tests.runtime.sources.files import encoded, names, needs_codec, picture


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
        pytest.param(np.dstack([picture(), np.full((60, 80), 255, np.uint8)]), id="alpha"),
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


def is_whole(data: bytes) -> bool:
    header = read_header(data)
    assert header is not None
    return not header.damage


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
    said = r"bomb.png\] has 100000x100000 pixels, more than max_pixels allows \(268435456\); scale it down"
    with pytest.raises(SourceError, match=said):
        open_source(tmp_path / "bomb.png")


@pytest.mark.parametrize("installed", [True, False])
def test_phone_picture_says_what_it_is(
    tmp_path: Path, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.heic").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(40))
    said = "is damaged and cannot be decoded"
    if not installed:
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        said = r"is a HEIC file, which OpenCV does not decode; pip install .*\[heic\].*, or convert it"
    with pytest.raises(SourceError, match=said):
        open_source(tmp_path / "x.heic")


def test_phone_picture_is_read(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.fromarray(picture()[..., ::-1])).save(tmp_path / "x.heic", quality=95)
    frame = read_frame(tmp_path / "x.heic", "x.heic")
    assert (frame.name, frame.image.shape, frame.visible) == ("x.heic", (60, 80, 3), None)
    assert np.abs(frame.image.astype(int) - picture()).mean() < 4
    with pytest.raises(SourceError, match=r"has 80x6\d pixels, more than max_pixels allows"):
        read_frame(tmp_path / "x.heic", rule=PixelRule(max_pixels=4799))  # stored in blocks of 64


FORMATS = ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_turned_as_it_says(format: str, alpha: bool, orientation: int) -> None:
    """AVIF says it by `irot` and `imir`, into which Pillow turns EXIF's number."""
    if format == "JPEG" and alpha:
        pytest.skip("JPEG has no alpha")
    if format == "AVIF":
        needs_codec(format)
    image = picture()
    if alpha:
        image = np.dstack([image, np.where(np.arange(80) < 20, 0, 255)[None].repeat(60, 0).astype(np.uint8)])
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"quality": 95} if format != "WEBP" else {"lossless": True}
    Image.fromarray(image).save(buffer, format, exif=exif, **options)
    data = buffer.getvalue()
    upright = as_frame(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    pixels = decode_photo(data, "x")
    assert pixels.image.shape == upright.image.shape
    assert np.abs(pixels.image[..., ::-1].astype(int) - upright.image).mean() < 3
    assert (pixels.visible is None) == (not alpha)
    if alpha:
        np.testing.assert_array_equal(pixels.visible, upright.visible)
    stored = decode_photo(data, "x", upright=False)
    assert stored.image.shape == (60, 80, 3)
    seen = np.s_[:, 25:] if alpha else np.s_[:, :]
    assert np.abs(stored.image[..., ::-1].astype(int) - picture())[seen].mean() < 6


def test_deep_pictures_are_turned_as_they_say() -> None:
    values = picture()[..., 0].astype(np.uint16) * 257
    for format in ("PNG", "TIFF"):
        exif, buffer = Image.Exif(), io.BytesIO()
        exif[0x0112] = 6
        Image.fromarray(values).save(buffer, format, exif=exif)
        image = decode_photo(buffer.getvalue(), "x").image[..., 0]
        np.testing.assert_array_equal(image, np.rot90(picture()[..., 0], -1))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp", ".gif", ".ppm", ".jp2", ".avif"])
def test_a_header_says_the_size_before_anything_is_decoded(
    suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if suffix in (".gif", ".avif"):
        needs_codec(suffix[1:].upper())
    data = encoded(suffix)
    header = read_header(data)
    assert header is not None and (header.height, header.width, header.damage) == (60, 80, "")
    monkeypatch.setattr("patchcut.sources.photos.load_cv2", None)  # nobody decodes
    with pytest.raises(SourceError, match=r"\[x\] has 80x60 pixels, more than max_pixels .*--max-pixels"):
        decode_photo(data, "x", rule=PixelRule(max_pixels=4799))


def test_jpeg_2000_is_refused_where_a_damaged_one_would_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(".jp2", picture(240, 320))
    monkeypatch.setattr(cv2, "__version__", "4.11.0")
    with pytest.raises(SourceError, match=r"OpenCV 4.11.0 does not decode safely; pip install .*>=4\.12"):
        decode_photo(data, "x.jp2")


@pytest.mark.parametrize("suffix", [".tga", ".ico"])
def test_what_opencv_does_not_read_pillow_does(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    Image.fromarray(picture(60, 60)[..., ::-1]).save(path)
    with open_source(tmp_path) as source:
        (frame,) = source
    assert source.problems == []
    assert frame.image.shape[2] == 3 and frame.image.std() > 20
    with pytest.raises(SourceError, match="more than max_pixels allows"):
        read_frame(path, rule=PixelRule(max_pixels=100))


def test_a_tail_of_ones_costs_no_time() -> None:
    jpeg = encoded(".jpg")
    started = time.perf_counter()
    assert is_whole(jpeg + b"\xff" * 2_000_000)
    assert not is_whole(jpeg[:-2] + b"\xff" * 2_000_000)
    assert is_whole(jpeg[:-2] + b"\xff" * 2_000_000 + b"\xd9")
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP"])
def test_a_file_of_endless_parts_is_damaged_at_once(kind: str) -> None:
    begin, part = {
        "JPEG": (b"\xff\xd8", b"\xff\xe0\x00\x02"),
        "PNG": (encoded(".png")[:33], png_chunk(b"teXt", b"")),
        "WebP": (b"RIFF\x00\x00\x00\x00WEBP", b"JUNK\x00\x00\x00\x00"),
    }[kind]
    begun = time.perf_counter()
    header = read_header(begin + part * (16_000_000 // len(part)))
    assert time.perf_counter() - begun < 1, "a part at a time takes seconds"
    assert header is not None
    assert (header.kind, header.height) == (kind, 0)
    assert "makes no sense" in header.damage


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    jpeg = encoded(".jpg", picture(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    scan = jpeg.rindex(b"\xff\xda")
    bomb = jpeg[:scan] + jpeg[scan:-2] * 1000 + jpeg[-2:]
    with pytest.raises(SourceError, match=r"has \d+ scans, where a photo has about ten"):
        decode_photo(bomb, "x.jpg")
    assert decode_photo(jpeg, "x.jpg").image.shape == (60, 80, 3)


def test_a_photo_that_memory_lacks_room_for_ends_no_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = photos._by_opencv

    def greedy(data: bytes, name: str, header: Header | None) -> np.ndarray | None:
        if name.startswith("b/"):
            raise MemoryError
        return decode(data, name, header)

    monkeypatch.setattr(photos, "_by_opencv", greedy)
    source = open_source(folder)
    assert len(names(source)) >= 1
    assert "does not fit in memory when decoded; scale it down" in source.problems[0]


def test_a_frame_that_memory_lacks_room_for_ends_no_stream(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seg = patchcut.load(toy_bundle)
    segment = seg._work.segment

    def greedy(frames: Sequence[Frame], *args: Any) -> Any:
        if any(frame.image.shape[0] > 50 for frame in frames):
            raise MemoryError
        return segment(frames, *args)

    monkeypatch.setattr(seg._work, "segment", greedy)
    with open_source([picture(40), picture(60), picture(30)]) as source:
        assert [result.index for result in seg.results(source)] == [0, 2]
    assert "does not fit in memory when it is segmented; scale it down" in source.problems[0]
