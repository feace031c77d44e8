"""Values of more than 8 bits, and of fewer, by one rule: as arrays, PIL images and files."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest
from patchcut import FrameError, OptionError, SourceError
from patchcut.cli.app import app
from patchcut.frames import as_frame
from patchcut.pixels import AS_IT_COMES, PixelRule, parse_value_range, to_8_bits
from patchcut.sources import open_source
from patchcut.sources.photos import decode_photo, is_safe_for_jpeg2000
from PIL import Image
from typer.testing import CliRunner

from tests.runtime.sources.files import encoded, needs_codec, picture

GREY = picture()[..., 0]  # [60, 80] uint8, all of its range
GREY = cv2.normalize(GREY, None, 0, 255, cv2.NORM_MINMAX)
NOTE = "fix the range with --value-range LO:HI"


def deep(bits: int) -> np.ndarray:
    """[60, 80] uint16, `GREY` in the lowest of 16 bits."""
    return np.rint(GREY.astype(float) / 255 * (2**bits - 1)).astype(np.uint16)


def tiff(image: np.ndarray, kind: int = 1, *, bits: int = 0, data: bytes = b"", **tags: int) -> bytes:
    """A TIFF file of one grey page; `tags` are of shorts, such as t281=4095."""
    data = data or image.astype(image.dtype.newbyteorder("<")).tobytes()
    height, width = image.shape
    own = {256: width, 257: height, 258: bits or 8 * image.itemsize, 259: 1, 262: 1, 277: 1, 278: height}
    shorts = {**own, 339: kind, **{int(name[1:]): value for name, value in tags.items()}}
    entries = [(tag, struct.pack("<HHIHH", tag, 3, 1, value, 0)) for tag, value in shorts.items()]
    entries += [(273, struct.pack("<HHII", 273, 4, 1, 8)), (279, struct.pack("<HHII", 279, 4, 1, len(data)))]
    directory = b"".join(entry for _, entry in sorted(entries))
    return (
        b"II*\0"
        + struct.pack("<I", 8 + len(data))
        + data
        + struct.pack("<H", len(entries))
        + directory
        + bytes(4)
    )


def pil(mode: str, values: np.ndarray) -> Image.Image:
    """A PIL image of more than 8 bits."""
    if mode == "I":
        return Image.fromarray(values.astype(np.int32))
    if mode == "F":
        return Image.fromarray(values.astype(np.float32))
    raw = values.astype(">u2" if mode == "I;16B" else "<u2").tobytes()
    return Image.frombytes(mode, values.shape[::-1], raw)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I", "F"])
def test_few_bits_of_many_are_seen_and_said_by_every_way(bits: int, mode: str) -> None:
    values = deep(bits)
    ways = [as_frame(values), as_frame(values[..., None]), as_frame(pil(mode, values))]
    ways += [as_frame(np.repeat(values[..., None], 3, axis=2))]
    images = [frame.image for frame in ways]
    notes = [frame.notes for frame in ways]
    for suffix in (".png", ".tif", ".jp2") if is_safe_for_jpeg2000(cv2) else (".png", ".tif"):
        pixels = decode_photo(encoded(suffix, values), "x")
        images.append(pixels.image)
        notes.append(pixels.notes)
    for image, note in zip(images, notes, strict=True):
        assert np.abs(image.astype(int) - GREY[..., None]).max() <= 4
        np.testing.assert_allclose(image, images[0], atol=1)
        assert len(note) == 1 and NOTE in note[0] and "\n" not in note[0]


@pytest.mark.parametrize("way", ["array", "pil", ".png", ".tif"])
def test_all_of_16_bits_stay_as_they_are(way: str) -> None:
    values = deep(16)
    made: dict[str, Callable[[], Any]] = {
        "array": lambda: as_frame(values),
        "pil": lambda: as_frame(pil("I;16", values)),
        ".png": lambda: decode_photo(encoded(".png", values), "x"),
        ".tif": lambda: decode_photo(encoded(".tif", values), "x"),
    }
    frame = made[way]()
    np.testing.assert_array_equal(frame.image, np.repeat(GREY[..., None], 3, axis=2))
    assert frame.notes == ()


@pytest.mark.parametrize("low, high", [(7000, 9000), (29_500, 31_000), (40_000, 41_000)])
def test_a_narrow_range_is_stretched(low: int, high: int) -> None:
    """Thermal cameras: counts, or hundredths of a kelvin."""
    values = (low + GREY / 255 * (high - low)).astype(np.uint16)
    values[3, 5] = 65_535  # a broken pixel
    frame = as_frame(values)
    assert np.abs(np.delete(frame.image[..., 0].astype(int) - GREY, 3, axis=0)).max() <= 5
    assert f"mostly {low // 1000}" in frame.notes[0]


def test_the_range_of_the_format_is_taken() -> None:
    values = deep(12) // 2  # half of what is promised
    want = np.rint(values / 4095 * 255)[..., None]
    packed = values.astype(np.uint32).reshape(-1, 2)
    packed = packed[:, 0] << 12 | packed[:, 1]
    raw = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], 1).astype(np.uint8).tobytes()
    sbit = b"\x00\x00\x00\x01sBIT\x0c" + struct.pack(">I", zlib.crc32(b"sBIT\x0c"))
    png = encoded(".png", values)
    files = {
        "pgm": b"P5 # a comment\n80 60\n4095\n" + values.astype(">u2").tobytes(),
        "ppm": b"P6 80 60 4095\n" + np.repeat(values[..., None], 3, axis=2).astype(">u2").tobytes(),
        "largest sample of a TIFF": tiff(values, t281=4095),
        "12 packed bits of a TIFF": tiff(values, bits=12, data=raw),
        "significant bits of a PNG": png[:33] + sbit + png[33:],
    }
    for name, data in files.items():
        pixels = decode_photo(data, name)
        assert np.abs(pixels.image - want).max() <= 1, name
        assert pixels.notes == (), name


def test_few_bits_of_8_are_scaled_where_the_format_says_so() -> None:
    values = GREY // 17
    pixels = decode_photo(b"P5 80 60 15\n" + values.tobytes(), "x.pgm")
    np.testing.assert_array_equal(pixels.image[..., 0], values * 17)


def test_a_range_that_the_picture_does_not_keep_is_not_taken() -> None:
    pixels = decode_photo(tiff(deep(16), t281=4095), "x.tif")
    np.testing.assert_array_equal(pixels.image[..., 0], GREY)


@pytest.mark.parametrize("way", ["array", "pil", "file", "stream"])
def test_a_chosen_range_holds_by_every_way(way: str) -> None:
    rule, values = PixelRule((1000, 3000)), deep(12)
    want = np.rint((np.clip(values, 1000, 3000).astype(float) - 1000) / 2000 * 255)
    made: dict[str, Callable[[], Any]] = {
        "array": lambda: as_frame(values, rule=rule),
        "pil": lambda: as_frame(pil("I;16", values), rule=rule),
        "file": lambda: decode_photo(encoded(".png", values), "x", rule=rule),
        "stream": lambda: next(iter(open_source([values], rule=rule))),
    }
    frame = made[way]()
    assert np.abs(frame.image[..., 0] - want).max() <= 1
    assert frame.notes == ()
    assert as_frame(picture(), rule=rule).image.max() > 200  # 8 bits stay


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
def test_floats_of_0_to_1_stay_as_they_are(dtype: str) -> None:
    frame = as_frame((GREY / 255).astype(dtype))
    assert np.abs(frame.image[..., 0].astype(int) - GREY).max() <= 1
    assert frame.notes == ()
    pixels = decode_photo(tiff((GREY / 255).astype(np.float32), 3), "x.tif")
    np.testing.assert_array_equal(pixels.image[..., 0], GREY)


@pytest.mark.parametrize("dtype", ["<i2", ">u2", "<u4", "<i8"])
def test_wide_integers_of_any_order_of_bytes(dtype: str) -> None:
    values = deep(12).astype(dtype)
    assert np.abs(as_frame(values).image[..., 0].astype(int) - GREY).max() <= 4


def test_numbers_that_are_none_are_black_and_do_no_harm() -> None:
    values = GREY.astype(np.float32) * 7
    values[0, :3] = np.nan, np.inf, -np.inf
    image = as_frame(values).image
    assert image[0, :3, 0].tolist() == [0, 255, 0]
    assert np.abs(image[1:, :, 0].astype(int) - GREY[1:]).max() <= 4
    for extreme in (np.array([[1e308, -1e308]]), np.full((2, 2), 1e308), np.full((2, 2), 5e-324)):
        assert as_frame(extreme).image.dtype == np.uint8
    with pytest.raises(FrameError, match=r"\[x\] holds no finite value; check"):
        to_8_bits(np.full((2, 2), np.nan), "x", AS_IT_COMES)


def test_one_grey_stays_one_grey() -> None:
    for value in (0, 3000, 65_535):
        image = as_frame(np.full((5, 6), value, np.uint16)).image
        assert len(np.unique(image)) == 1 and abs(int(image[0, 0, 0]) - value / 257) <= 1


def test_a_small_thing_on_an_even_ground_is_seen() -> None:
    values = np.full((60, 80), 300, np.uint16)
    values[20:24, 30:34] = 2000
    image = as_frame(values).image[..., 0]
    assert int(image[22, 32]) - int(image[0, 0]) > 200


def test_hidden_pixels_have_no_say_in_the_range() -> None:
    values = np.zeros((60, 80, 4), np.uint16)
    values[..., :3] = deep(12)[..., None]
    values[..., 3] = 65_535
    values[:, :40, :3], values[:, :40, 3] = 60_000, 0
    frame = as_frame(values)
    assert frame.image[:, 40:].max() > 200
    assert frame.visible is not None and not frame.visible[:, :40].any() and frame.visible[:, 40:].all()


def test_a_note_is_told_once_for_many_pictures() -> None:
    source = open_source([deep(12), deep(12), deep(10)])
    assert len(list(source)) == 3
    assert len(source.notes) == 1 and source.problems == []


def test_a_segmenter_says_it_once(
    toy_bundle: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchcut.notes._told", set())
    seg = patchcut.load(toy_bundle)
    for _ in range(3):
        seg(deep(12))
    list(seg.stream([deep(12)]))
    assert [NOTE in record.message for record in caplog.records] == [True]


def test_the_command_line_says_it_and_heeds_the_options(tmp_path: Path, toy_bundle: Path) -> None:
    (tmp_path / "x.png").write_bytes(encoded(".png", deep(12)))
    words = ["run", str(tmp_path / "x.png"), "--bundle", str(toy_bundle)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and "[x.png] its uint16 values are mostly" in done.output
    assert NOTE in done.output.replace("\n", " ")
    end = json.loads(CliRunner().invoke(app, [*words, "--json"]).output.splitlines()[-1])
    assert (end["problems"], len(end["notes"])) == ([], 1)
    done = CliRunner().invoke(app, [*words, "--value-range", "0:4095"])
    assert done.exit_code == 0 and NOTE not in done.output
    done = CliRunner().invoke(app, [*words, "--max-pixels", "100"])
    assert done.exit_code == 1 and "has 80x60 pixels, more than max_pixels allows" in done.output


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jp2"])
def test_alpha_of_a_file_hides_as_that_of_an_array(suffix: str) -> None:
    if suffix == ".jp2":
        needs_codec("JPEG2000")
    image = np.dstack([picture(), np.full((60, 80), 255, np.uint8)])
    image[:, 50:, 3] = 0
    image[:, 40:50, 3] = 100
    params = (cv2.IMWRITE_WEBP_QUALITY, 101) if suffix == ".webp" else ()
    want, pixels = as_frame(image), decode_photo(encoded(suffix, image, *params), "x")
    assert np.abs(pixels.image.astype(int) - want.image).max() <= 2
    np.testing.assert_array_equal(pixels.visible, want.visible)


@pytest.mark.parametrize(
    "format, mode",
    [
        *[("PNG", mode) for mode in ("RGBA", "P", "LA", "RGB", "L")],
        *[("TIFF", "RGBA"), ("TIFF", "LA"), ("TGA", "RGBA"), ("TGA", "LA")],
        *[(format, "RGBA") for format in ("GIF", "ICO", "WEBP", "AVIF")],
    ],
)
def test_alpha_of_every_kind_hides_as_pillow_says(format: str, mode: str) -> None:
    if format == "AVIF":
        needs_codec(format)
    rgba = np.dstack([picture(48, 48), np.full((48, 48), 255, np.uint8)])
    rgba[:, 30:, 3] = 0
    image = Image.fromarray(rgba)
    image = image.quantize(60) if mode == "P" else image.convert(mode)
    # One colour stands for what is transparent.
    options: dict[str, Any] = {"transparency": image.getpixel((9, 9))} if mode in ("RGB", "L") else {}
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    want = as_frame(Image.open(io.BytesIO(buffer.getvalue())))
    pixels = decode_photo(buffer.getvalue(), "x")
    assert want.visible is not None and pixels.visible is not None
    np.testing.assert_array_equal(pixels.visible, want.visible)
    assert np.abs(pixels.image[..., ::-1].astype(int) - want.image)[want.visible].mean() <= 1


@pytest.mark.parametrize("mode", ["foreground", "parts", "scene"])
@pytest.mark.parametrize("refine", ["none", "guided", "bilateral"])
def test_nothing_is_found_where_nothing_can_be_seen(
    mode: str, refine: str, embedded_bundle: Any, photo: np.ndarray
) -> None:
    small = cv2.resize(photo, (160, 120))
    image = np.dstack([small, np.full((120, 160), 255, np.uint8)])
    image[:, 70:, 3] = 0
    result = patchcut.load(embedded_bundle, mode=mode, refine=refine, nothing_below=0)(image)
    assert len(result) > 0
    assert not result.label_map[:, 70:].any() and not result.region_ids[:, 70:].any()
    assert (result.boxes[:, 2] <= 70).all()


@pytest.mark.parametrize("text", ["5", "1:1", "3:2", "a:b", ":", "0:inf", "nan:1", "0:1:2", "", 5, None])
def test_a_range_that_is_none_is_told(text: object) -> None:
    with pytest.raises(OptionError, match=r"\[value_range\] must be auto or LO:HI such as 0:4095"):
        parse_value_range("value_range", text)
    if isinstance(text, str):
        with pytest.raises(OptionError):
            patchcut.Settings(value_range=text)


def test_an_unreadable_picture_of_no_numbers_is_a_source_error() -> None:
    with pytest.raises(SourceError, match=r"\[x.tif\] holds no finite value"):
        decode_photo(tiff(np.full((4, 4), np.nan, np.float32), 3), "x.tif")
