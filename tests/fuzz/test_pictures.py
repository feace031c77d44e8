"""Pictures that were cut, flipped and given other headers end in frames or in one line."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from patchcut.errors import PatchcutError
from patchcut.pixels import PixelRule
from patchcut.sources import open_source
from patchcut.sources.photos import is_safe_for_jpeg2000
from PIL import Image

INPUTS = 2_600
LONGEST_S = 10.0
RULE = PixelRule(max_pixels=2**20)


def picture(channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    """[24, 32, channels] of smooth colours."""
    grid = np.random.default_rng(channels).integers(0, 256, (4, 5, channels)).astype(np.uint8)
    image = cv2.resize(grid, (32, 24))
    return image if dtype is np.uint8 else image.astype(dtype) * 257


def by_opencv(suffix: str, image: np.ndarray, *params: int) -> bytes:
    ok, data = cv2.imencode(suffix, image, params)
    assert ok
    return data.tobytes()


def by_pillow(format: str, mode: str = "RGB", pictures: int = 1, **options: Any) -> bytes:
    frames = [Image.fromarray(picture(4)).rotate(90 * i).convert(mode) for i in range(pictures)]
    if pictures > 1:
        options = {"save_all": True, "append_images": frames[1:], "duration": 50, **options}
    buffer = io.BytesIO()
    frames[0].save(buffer, format, **options)
    return buffer.getvalue()


def makers() -> dict[str, Callable[[], bytes]]:
    """What makes a small intact file of each kind."""
    exif = Image.Exif()
    exif[0x0112] = 6
    grey16 = picture(3, np.uint16)[..., 0]
    return {
        "jpeg": lambda: by_pillow("JPEG", exif=exif),
        "progressive jpeg": lambda: by_opencv(".jpg", picture(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "cmyk jpeg": lambda: by_pillow("JPEG", "CMYK"),
        "png": lambda: by_pillow("PNG", exif=exif),
        "png with alpha": lambda: by_opencv(".png", picture(4)),
        "png of 16 bits": lambda: by_opencv(".png", grey16),
        "png of 16 bits with alpha": lambda: by_opencv(".png", picture(4, np.uint16)),
        "png with a palette": lambda: by_pillow("PNG", "P", transparency=3),
        "png with a colour that hides": lambda: by_pillow("PNG", "L", transparency=40),
        "apng": lambda: by_pillow("PNG", "RGB", 4),
        "webp": lambda: by_pillow("WEBP", exif=exif),
        "webp with alpha": lambda: by_pillow("WEBP", "RGBA", lossless=True),
        "animated webp": lambda: by_pillow("WEBP", "RGB", 4),
        "tiff": lambda: by_pillow("TIFF", exif=exif),
        "tiff with alpha": lambda: by_pillow("TIFF", "RGBA"),
        "tiff of 16 bits": lambda: by_opencv(".tif", grey16),
        "tiff of floats": lambda: by_opencv(".tif", grey16.astype(np.float32)),
        "tiff of pages": lambda: by_pillow("TIFF", "RGB", 3, compression="tiff_lzw"),
        "big tiff": lambda: by_pillow("TIFF", "RGB", 2, big_tiff=True),
        "bmp": lambda: by_opencv(".bmp", picture()),
        "gif": lambda: by_pillow("GIF", "P"),
        "animated gif": lambda: by_pillow("GIF", "P", 5),
        "pgm": lambda: b"P5\n32 24\n1000\n" + (grey16 // 66).astype(">u2").tobytes(),
        "ppm": lambda: b"P6 # x\n32 24 255\n" + picture().tobytes(),
        "pgm of text": lambda: b"P2 3 2 15 " + b"1 2 3 4 5 15\n",
        "pbm": lambda: b"P4\n32 24\n" + picture()[..., 0].tobytes()[:96],
        "pam": lambda: by_opencv(".pam", picture()),
        "pfm": lambda: by_opencv(".pfm", picture().astype(np.float32) / 255),
        "hdr": lambda: by_opencv(".hdr", picture().astype(np.float32) / 255),
        "jp2": lambda: by_opencv(".jp2", cv2.resize(picture(), (64, 64))),
        "jp2 with alpha": lambda: by_pillow("JPEG2000", "RGBA"),
        "avif": lambda: by_pillow("AVIF", "RGB", exif=exif),
        "avif with alpha": lambda: by_pillow("AVIF", "RGBA"),
        "animated avif": lambda: by_pillow("AVIF", "RGB", 3),
        "ico": lambda: by_pillow("ICO", "RGBA", sizes=[(24, 24)]),
        "tga": lambda: by_pillow("TGA", "RGBA"),
    }


def seeds() -> dict[str, bytes]:
    """A small intact file of each kind that OpenCV and Pillow have a codec for here."""
    made: dict[str, bytes] = {}
    for name, make in makers().items():
        if name.startswith("jp2") and not is_safe_for_jpeg2000(cv2):
            continue
        with contextlib.suppress(KeyError, OSError, cv2.error):  # no such codec
            made[name] = make()
    assert len(made) > 25
    return made


def cut(data: bytes, random_: random.Random) -> bytes:
    return data[: random_.randrange(len(data))]


def flip(data: bytes, random_: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random_.choice((1, 1, 3, 20))):
        changed[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    return bytes(changed)


def change_header(data: bytes, random_: random.Random) -> bytes:
    """Writes an extreme number over one near the begin, where formats have their sizes."""
    changed, size = bytearray(data), random_.choice((1, 2, 4))
    value = random_.choice((0, 1, 2**31, 2**31 - 1, 2**32 - 1, 65_535, 20_000, random_.getrandbits(32)))
    at = random_.randrange(max(1, min(len(data) - size, 200)))
    order = random_.choice("<>")
    changed[at : at + size] = struct.pack(order + "I", value)[:size]
    return bytes(changed)


def drop(data: bytes, random_: random.Random) -> bytes:
    begin, length = random_.randrange(len(data)), random_.choice((1, 4, 12, 100))
    return data[:begin] + data[begin + length :]


def repeat(data: bytes, random_: random.Random) -> bytes:
    begin, length = random_.randrange(len(data)), random_.choice((1, 4, 12, 100))
    return data[:begin] + data[begin : begin + length] * random_.choice((2, 50)) + data[begin:]


def add_tail(data: bytes, random_: random.Random) -> bytes:
    tail = random_.choice((b"\xff", b"\x00", b"\xff\xd8\xff", b"\x00\x00\x00\x08free"))
    return data[: random_.choice((len(data), len(data) // 2))] + tail * random_.choice((1, 1000, 20_000))


def swap(data: bytes, random_: random.Random) -> bytes:
    """A header of one kind before the body of another."""
    other = random_.choice(list(SEEDS.values()))
    at = random_.randrange(1, 64)
    return other[:at] + data[at:]


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    cut,
    flip,
    change_header,
    change_header,
    drop,
    repeat,
    add_tail,
    swap,
)
SEEDS = seeds()


def mutants() -> Iterator[tuple[str, bytes]]:
    random_ = random.Random(11)
    while True:
        for name, data in SEEDS.items():
            mutate = random_.choice(MUTATIONS)
            changed = mutate(data, random_)
            if random_.random() < 0.2:
                changed = random_.choice(MUTATIONS)(changed or b"\0", random_)
            yield f"{name}, {mutate.__name__}", changed


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("name", SEEDS)
def test_an_intact_picture_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.img"
    path.write_bytes(SEEDS[name])
    with open_source(path, rule=RULE) as source:
        frames = list(source)
    assert frames and source.problems == []


def test_broken_pictures_end_in_frames_or_a_line(tmp_path: Path) -> None:
    path = tmp_path / "x.png"  # so that no video is looked for in it
    read = told = 0
    for name, data in islice(mutants(), INPUTS):
        path.write_bytes(data)
        started = time.perf_counter()
        try:
            with open_source(path, rule=RULE) as source:
                for frame in islice(source, 20):
                    assert frame.image.dtype == np.uint8 and frame.image.shape[2] == 3, name
                    assert frame.image.size <= 3 * RULE.max_pixels, name
                    assert frame.visible is None or frame.visible.shape == frame.image.shape[:2], name
                    read += 1
            lines = source.problems + source.notes
        except PatchcutError as error:
            lines = [str(error)]
            told += 1
        assert all(line.startswith("[") and "\n" not in line for line in lines), (name, lines)
        assert time.perf_counter() - started < LONGEST_S, name
    assert read > INPUTS // 10 and told > INPUTS // 4  # both happen
