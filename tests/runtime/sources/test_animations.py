"""Animations are videos with exact times, pages are photos; Pillow, FFmpeg and OpenCV are the oracles."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest
from patchcut.errors import SourceError
from patchcut.frames import as_frame
from patchcut.pixels import PixelRule
from patchcut.sources import open_source
from patchcut.sources.animations import open_animation
from patchcut.sources.headers import read_header, tiff_pages
from PIL import Image

from tests.runtime.sources.files import encoded, needs_codec, picture

DELAYS_MS = [80, 120, 40, 500, 90, 70, 200]
FORMATS = {"GIF": ".gif", "WEBP": ".webp", "PNG": ".png", "AVIF": ".avif"}


def images(count: int = len(DELAYS_MS), mode: str = "RGB") -> list[Image.Image]:
    return [Image.fromarray(picture(seed=seed)[..., ::-1]).convert(mode) for seed in range(count)]


def animation(format: str, frames: list[Image.Image] | None = None, **options: Any) -> bytes:
    if format == "AVIF":
        needs_codec(format)
    frames = images() if frames is None else frames
    buffer = io.BytesIO()
    options = {"duration": DELAYS_MS[: len(frames)], "loop": 3, **options}
    frames[0].save(buffer, format, save_all=True, append_images=frames[1:], **options)
    return buffer.getvalue()


@pytest.mark.parametrize("format", FORMATS)
def test_an_animation_is_a_video_with_exact_times(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{FORMATS[format]}"
    path.write_bytes(animation(format))
    with open_source(path) as source:
        assert (source.kind, source.total) == ("video", len(DELAYS_MS))
        assert source.fps == pytest.approx(1000 * len(DELAYS_MS) / sum(DELAYS_MS))
        frames = list(source)
    assert source.problems == [] and source.end_s == sum(DELAYS_MS) / 1000
    begins_ms = np.cumsum([0, *DELAYS_MS[:-1]]).tolist()
    assert [frame.time_s for frame in frames] == [begin / 1000 for begin in begins_ms]
    assert [(frame.name, frame.index) for frame in frames] == [(path.name, i) for i in range(len(DELAYS_MS))]
    shown = Image.open(path)
    for index, frame in enumerate(frames):
        shown.seek(index)
        np.testing.assert_array_equal(frame.image, np.asarray(shown.convert("RGB")))


@pytest.mark.parametrize("format", ["GIF", "PNG"])
def test_times_are_those_of_ffmpeg(format: str, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / f"x{FORMATS[format]}"
    path.write_bytes(animation(format))
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    with open_source(path) as source:
        assert [frame.time_s for frame in source] == times


@pytest.mark.parametrize("format", FORMATS)
def test_every_other_frame(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{FORMATS[format]}"
    path.write_bytes(animation(format))
    with open_source(path) as source:
        all_frames = list(source)
    with open_source(path, every=3) as source:
        frames = list(source)
    assert source.total == 3 and [frame.index for frame in frames] == [0, 3, 6]
    for frame in frames:
        np.testing.assert_array_equal(frame.image, all_frames[frame.index].image)
        assert frame.time_s == all_frames[frame.index].time_s


@pytest.mark.parametrize("disposal", [0, 1, 2, 3])
def test_frames_are_laid_over_one_another_as_they_say(disposal: int, tmp_path: Path) -> None:
    frames = []
    for step in range(5):
        rgba = np.zeros((60, 80, 4), np.uint8)
        rgba[10:30, 10 * step : 10 * step + 15] = (250, 40 * step, 30, 255)
        frames.append(Image.fromarray(rgba))
    path = tmp_path / "x.gif"
    path.write_bytes(animation("GIF", frames, disposal=disposal))
    with open_source(path) as source:
        read = list(source)
    shown = Image.open(path)
    assert len(read) == 5
    for index, frame in enumerate(read):
        shown.seek(index)
        want = as_frame(shown)
        np.testing.assert_array_equal(frame.image, want.image)
        np.testing.assert_array_equal(frame.visible, want.visible)
        assert frame.visible is not None and not frame.visible[40:].any()


def test_a_delay_of_nothing_is_a_tenth_of_a_second(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "x.gif"
    path.write_bytes(animation("GIF", duration=[0, 10, 20, 30, 0, 10, 20]))
    with open_source(path) as source:
        times = [frame.time_s for frame in source]
    assert times[:5] == pytest.approx([0, 0.1, 0.11, 0.13, 0.16])
    with av.open(str(path)) as container:
        assert times == [frame.time for frame in container.decode(video=0)]


def test_the_still_picture_of_an_apng_is_no_frame(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(animation("PNG", default_image=True, duration=DELAYS_MS[:6]))
    with open_source(path) as source:
        frames = list(source)
    assert (source.total, len(frames), source.problems) == (6, 6, [])
    np.testing.assert_array_equal(frames[0].image, picture(seed=1)[..., ::-1])


@pytest.mark.parametrize("format", FORMATS)
def test_one_picture_is_a_photo(format: str, tmp_path: Path) -> None:
    if format == "AVIF":
        needs_codec(format)
    path = tmp_path / f"x{FORMATS[format]}"
    images()[0].save(path)
    assert open_animation(path, every=1) is None
    with open_source(path) as source:
        (frame,) = source
    assert (source.kind, frame.time_s, source.problems) == ("images", None, [])


@pytest.mark.parametrize("share", [1 / 12, 1 / 3, 2 / 3, 0.95])
@pytest.mark.parametrize("format", FORMATS)
def test_an_animation_that_was_cut_is_told(format: str, share: float, tmp_path: Path) -> None:
    data = animation(format)
    path = tmp_path / f"x{FORMATS[format]}"
    path.write_bytes(data[: int(share * len(data))])
    try:
        with open_source(path) as source:
            frames = list(source)
    except SourceError as error:
        assert "cut short" in str(error) or "damaged" in str(error)
        return
    assert len(frames) < len(DELAYS_MS) or share > 0.9
    assert len(source.problems) == 1
    assert "frames were read; copy or download it again" in source.problems[0]


def test_a_gif_without_its_last_byte_is_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "x.gif"
    path.write_bytes(animation("GIF")[:-1])
    with open_source(path) as source:
        assert len(list(source)) == len(DELAYS_MS)
    assert source.problems == [
        "[x.gif] is cut short: its end is missing; 7 of 7 frames were read; copy or download it again"
    ]


@pytest.mark.parametrize("format", FORMATS)
def test_without_pillow_it_says_that_only_the_first_was_read(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if format != "PNG":
        needs_codec(format)
    path = tmp_path / f"x{FORMATS[format]}"
    path.write_bytes(animation(format))
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image", raising=False)
    with open_source(path) as source:
        count = len(list(source))
    # OpenCV before 4.11 reads no animated WebP.
    reads = format != "WEBP" or hasattr(cv2, "imreadanimation")
    which = "only the first" if reads else "none"
    said = f"[{path.name}] {which} of 7 frames was read; pip install 'pillow>=11.3'"
    assert (count, source.problems, source.notes) == (reads, [said], [])


@pytest.mark.parametrize("format", FORMATS)
def test_an_animation_among_photos_says_that_its_first_was_read(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{FORMATS[format]}"
    path.write_bytes(animation(format))
    source = open_source(iter([path]))
    assert len(list(source)) == 1
    assert "only the first of its 7 pictures was read; name the file by itself" in source.notes[0]


@pytest.mark.parametrize("format", FORMATS)
def test_an_animation_of_too_many_pixels_is_refused(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{FORMATS[format]}"
    path.write_bytes(animation(format))
    with pytest.raises(SourceError, match="has 80x60 pixels, more than max_pixels allows"):
        open_source(path, rule=PixelRule(max_pixels=4799))


def test_a_gif_whose_frame_is_larger_than_its_screen_is_bounded() -> None:
    data = bytearray(animation("GIF"))
    at = data.index(b"\x2c\x00\x00\x00\x00" + struct.pack("<HH", 80, 60))
    data[at + 5 : at + 9] = struct.pack("<HH", 65_535, 65_535)
    header = read_header(bytes(data))
    assert header is not None and (header.height, header.width) == (65_535, 65_535)


def test_frames_are_segmented_as_a_video(tmp_path: Path, toy_bundle: Path) -> None:
    path = tmp_path / "x.gif"
    path.write_bytes(animation("GIF"))
    results = list(patchcut.load(toy_bundle).stream(path))
    assert [result.time_s for result in results][:3] == [0, 0.08, 0.2]


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
def test_pages_of_a_tiff_are_photos(depth: type, compression: str | None, tmp_path: Path) -> None:
    pages = [picture(40 + seed, 60, seed)[..., 0].astype(depth) for seed in range(4)]
    pages = [page * 257 for page in pages] if depth is np.uint16 else pages
    path = tmp_path / "scan.tif"
    first, *others = map(Image.fromarray, pages)
    first.save(path, save_all=True, append_images=others, compression=compression)
    with open_source(path) as source:
        frames = list(source)
    assert (source.kind, source.total, source.problems) == ("images", 4, [])
    assert [(frame.name, frame.index, frame.time_s) for frame in frames] == [
        (f"scan.tif#{i + 1}", i, None) for i in range(4)
    ]
    for frame, page in zip(frames, pages, strict=True):
        want = page if depth is np.uint8 else page // 257
        np.testing.assert_array_equal(frame.image[..., 0], want)
    with open_source(path, every=3) as source:
        assert [frame.name for frame in source] == ["scan.tif#1", "scan.tif#4"]


@pytest.mark.parametrize("big", [False, True])
def test_pages_that_opencv_wrote(big: bool, tmp_path: Path) -> None:
    path = tmp_path / "scan.tiff"
    pages = [picture(seed=seed) for seed in range(3)]
    if big:
        first, *others = (Image.fromarray(page[..., ::-1]) for page in pages)
        first.save(path, save_all=True, append_images=others, big_tiff=True)
    else:
        assert cv2.imwritemulti(str(path), pages)
    with open_source(path) as source:
        for frame, page in zip(source, pages, strict=True):
            np.testing.assert_array_equal(frame.image, page)


def test_a_smaller_copy_is_no_page(tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    first, second = images(2)
    first.save(path, save_all=True, append_images=[second], tiffinfo={254: 0})
    data = bytearray(path.read_bytes())
    _, (offset, _) = tiff_pages(data)
    at = data.index(struct.pack("<HH", 254, 4), offset)
    struct.pack_into("<I", data, at + 8, 1)
    path.write_bytes(data)
    assert open_animation(path, every=1) is None


def test_a_page_that_is_damaged_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    first, *others = images(3)
    first.save(path, save_all=True, append_images=others)
    data = bytearray(path.read_bytes())
    _, (second, _), _ = tiff_pages(data)
    at = data.index(struct.pack("<HH", 273, 4), second)  # where its pixels are
    struct.pack_into("<I", data, at + 8, 2**31)
    path.write_bytes(data)
    with open_source(path) as source:
        kept = [frame.name for frame in source]
    assert kept == ["scan.tif#1", "scan.tif#3"]
    assert len(source.problems) == 1 and source.problems[0].startswith("[scan.tif#2] ")


def test_a_tiff_that_was_cut_gives_its_whole_pages(tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    first, *others = images(3)
    first.save(path, save_all=True, append_images=others)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 5])
    with open_source(path) as source:
        assert [frame.name for frame in source] == ["scan.tif#1"]
    assert (
        source.problems[-1] == "[scan.tif] is cut short: a page of it is missing; copy or download it again"
    )


def test_pages_in_a_circle_end(tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    first, second = images(2)
    first.save(path, save_all=True, append_images=[second])
    data = bytearray(path.read_bytes())
    begin = int.from_bytes(data[4:8], "little")
    at = begin + 2 + 12 * int.from_bytes(data[begin : begin + 2], "little")
    data[at : at + 4] = data[4:8]
    path.write_bytes(data)
    with open_source(path) as source:
        assert len(list(source)) == 1


def test_other_files_are_none(tmp_path: Path) -> None:
    for name, data in {"x.jpg": encoded(".jpg"), "empty": b"", "x.txt": b"GIF", "y.txt": b"II*\0"}.items():
        (tmp_path / name).write_bytes(data)
        assert open_animation(tmp_path / name, every=1) is None
    with pytest.raises(OSError):
        open_animation(tmp_path / "missing.gif", every=1)
