"""Photos: decoding one file, and walking many."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut.errors import SourceError
from patchcut.frames import Frame
from patchcut.opencv import load_cv2
from patchcut.sources.base import Source

# HEIC is listed so that a folder of phone pictures says why it was skipped.
_PHOTOS = "jpg jpeg jpe jfif png bmp dib webp tif tiff ppm pgm pbm pnm jp2 avif heic heif"
PHOTO_SUFFIXES = frozenset(f".{suffix}" for suffix in _PHOTOS.split())

_COPY_AGAIN = "copy or download it again"

_JPEG_START = b"\xff\xd8\xff"
_PNG_START = b"\x89PNG\r\n\x1a\n"
# In a scan, 0xff followed by 0 is data and by d0..d7 a restart: neither ends it.
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_JPEG_SOI, _JPEG_EOI, _JPEG_SOS, _JPEG_TEM = 0xD8, 0xD9, 0xDA, 0x01


class PhotoSource(Source):
    """Photos of a list, in its order; a photo that cannot be read is skipped and told.

    Args:
        paths: the files.
        root: folder that frame names are relative to.
        name: what a person would call the list.
    """

    def __init__(self, paths: Sequence[Path], root: Path, name: str) -> None:
        super().__init__("images", name, total=len(paths))
        self._paths = paths
        self._root = root.absolute()

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self._paths):
            name = path.absolute().relative_to(self._root).as_posix()
            try:
                image = read_photo(path, name)
            except SourceError as error:
                self.problems.append(str(error))
                continue
            yield Frame(image, "bgr", name, index)


def read_photo(path: Path, name: str | None = None, *, upright: bool = True) -> npt.NDArray[np.uint8]:
    """[H, W, 3] uint8 BGR; grey, alpha and 16 bits are converted.

    Args:
        path: the file.
        name: its name in errors; its path by default.
        upright: turned as its EXIF orientation says; False: as it is stored.
    Raises:
        SourceError: "[name] is cut short: ...; copy or download it again", or what else is wrong with it.
    Examples:
        >>> patchcut.output.whole_files.write_image(folder / "x.png", frame)
        >>> patchcut.sources.photos.read_photo(folder / "x.png").shape
        (512, 512, 3)
    """
    name = str(path) if name is None else name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(name, f"cannot be read: {error.strerror or error}", "check the file") from error
    if not data:
        raise SourceError(name, "is empty (0 bytes)", _COPY_AGAIN)
    if not is_whole(data):
        raise SourceError(name, "is cut short: its end is missing", _COPY_AGAIN)
    return _decode(data, name, upright)


def is_whole(data: bytes) -> bool:
    """False if `data` is a JPEG, PNG or WebP without its end; OpenCV fills what is missing with grey.

    Examples:
        >>> patchcut.sources.photos.is_whole(b"RIFF" + (100).to_bytes(4, "little") + b"WEBP")
        False
    """
    if data.startswith(_JPEG_START):
        return _jpeg_is_whole(data)
    if data.startswith(_PNG_START):
        return _png_is_whole(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return len(data) >= int.from_bytes(data[4:8], "little") + 8
    return True


def _jpeg_is_whole(data: bytes) -> bool:
    """True if an end-of-image marker follows a scan; segments, and thumbnails in them, are stepped over."""
    position, scanned = 2, False
    while marker := _JPEG_MARKER.search(data, position):
        code, position = marker[1][0], marker.end()
        if code == _JPEG_EOI:
            return scanned
        if code not in (_JPEG_SOI, _JPEG_TEM):
            position += int.from_bytes(data[position : position + 2], "big")
        scanned = scanned or code == _JPEG_SOS
    return False


def _png_is_whole(data: bytes) -> bool:
    position = len(_PNG_START)
    while position + 12 <= len(data):
        if data[position + 4 : position + 8] == b"IEND":
            return True
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return False


def _decode(data: bytes, name: str, upright: bool) -> npt.NDArray[np.uint8]:
    cv2 = load_cv2()
    flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image: npt.NDArray[np.uint8] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise _decoder_error(error, name) from error
    if image is None:
        raise SourceError(name, *_why_undecoded(data))
    return image


def _decoder_error(error: Any, name: str) -> SourceError:
    if "CV_IO_MAX_IMAGE" in str(error):
        remedy = "scale it down, or raise OPENCV_IO_MAX_IMAGE_PIXELS if you trust it"
        return SourceError(name, "has more pixels than OpenCV's safety limit", remedy)
    if "memory" in str(error).lower():
        return SourceError(name, "does not fit in memory when decoded", "scale it down")
    return SourceError(name, f"cannot be decoded: {error.err}", _COPY_AGAIN)


def _why_undecoded(data: bytes) -> tuple[str, str]:
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("ascii", "replace").strip().upper()
        return f"is a {brand} file, which this OpenCV does not decode", "convert it to JPEG or PNG"
    if data.startswith((_JPEG_START, _PNG_START)):
        return "is damaged and cannot be decoded", _COPY_AGAIN
    return "is not an image that OpenCV reads", "convert it to JPEG or PNG"
