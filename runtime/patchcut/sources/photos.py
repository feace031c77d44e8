"""Photos: decoding one file."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut.endings import finished_first
from patchcut.errors import COPY_AGAIN, FrameError, SourceError, install_hint
from patchcut.frames import Frame, as_frame
from patchcut.opencv import load_cv2
from patchcut.pixels import AS_IT_COMES, PixelRule, Pixels, to_8_bits
from patchcut.sources.headers import Header, as_stored, read_header, turn_steps

# OpenCV reads most of them, Pillow the others where it is installed; a folder says which it had to skip.
_PHOTOS = (
    "jpg jpeg jpe jfif png apng bmp dib webp gif tif tiff ppm pgm pbm pnm pam pfm hdr jp2 j2k avif heic heif "
    "ico tga"
)
PHOTO_SUFFIXES = frozenset(f".{suffix}" for suffix in _PHOTOS.split())

# What Pillow may be asked for; some of its other formats start programs.
_PILLOW = "AVIF BMP DIB GIF ICO JPEG2000 PCX PNG PPM QOI SGI TGA TIFF WEBP"

# Older ones hold an OpenJPEG that writes past its memory where a file is damaged.
_SAFE_FOR_JPEG2000 = (4, 12)

_CONVERT = "convert it to JPEG or PNG"
_NO_MEMORY = ("does not fit in memory when decoded", "scale it down, or lower --max-pixels (max_pixels)")


def read_photo(path: Path, name: str | None = None, *, upright: bool = True) -> npt.NDArray[np.uint8]:
    """[H, W, 3] uint8 BGR, the image of `read_frame`.

    Raises:
        SourceError: as `read_frame`.
    Examples:
        >>> patchcut.output.whole_files.write_image(folder / "x.png", frame)
        >>> patchcut.sources.photos.read_photo(folder / "x.png").shape
        (512, 512, 3)
    """
    return read_frame(path, name, upright=upright).image


@finished_first()
def read_frame(
    path: Path,
    name: str | None = None,
    *,
    index: int = 0,
    upright: bool = True,
    rule: PixelRule = AS_IT_COMES,
) -> Frame:
    """A photo as a frame: BGR, of 8 bits, alpha laid over mid grey.

    Args:
        path: the file.
        name: what it is called; its path by default.
        index: of the frame.
        upright: turned as the file says (EXIF, or an AVIF's `irot` and `imir`); False: as it is stored.
        rule: how values of more than 8 bits are read, and how many pixels may be.
    Raises:
        SourceError: "[name] is cut short: ...; copy or download it again", or what else is wrong with it.
    Examples:
        >>> patchcut.output.whole_files.write_image(folder / "x.png", frame)
        >>> patchcut.sources.photos.read_frame(folder / "x.png", "x.png").name
        'x.png'
    """
    name = str(path) if name is None else name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(name, f"cannot be read: {error.strerror or error}", "check the file") from error
    except MemoryError as error:
        raise SourceError(name, *_NO_MEMORY) from error
    pixels = decode_photo(data, name, upright=upright, rule=rule)
    return Frame(pixels.image, "bgr", name, index, visible=pixels.visible, notes=pixels.notes)


def decode_photo(
    data: bytes | bytearray,
    name: str,
    *,
    upright: bool = True,
    rule: PixelRule = AS_IT_COMES,
    header: Header | None = None,
) -> Pixels:
    """The pixels of a picture file that is in memory, BGR; of several pictures those of the first.

    Args:
        data: the file.
        name: what errors call it.
        upright, rule: as for `read_frame`.
        header: what `read_header` found, where that was asked already.
    Raises:
        SourceError: as `read_frame`.
    Examples:
        >>> ppm = b"P6 2 1 255 " + bytes([255, 0, 0, 0, 0, 255])
        >>> patchcut.sources.photos.decode_photo(ppm, "x.ppm").image.tolist()
        [[[0, 0, 255], [255, 0, 0]]]
    """
    if not data:
        raise SourceError(name, "is empty (0 bytes)", COPY_AGAIN)
    header = read_header(bytes(data)) if header is None else header
    if header is not None:
        if header.damage and header.kind != "TIFF":  # whose pages are whole by themselves
            raise SourceError(name, header.damage, COPY_AGAIN)
        if wrong := rule.too_large(header.height, header.width):
            raise SourceError(name, *wrong)
    try:
        pixels = _decode(data, name, header, upright, rule)
    except MemoryError as error:
        raise SourceError(name, *_NO_MEMORY) from error
    except FrameError as error:
        raise SourceError(name, error.what, error.remedy) from error
    if header is not None and header.pictures > 1:
        first = f"[{name}] only the first of its {header.pictures} pictures was read; name the file by itself"
        pixels = replace(pixels, notes=(*pixels.notes, first))
    return pixels


def _decode(
    data: bytes | bytearray, name: str, header: Header | None, upright: bool, rule: PixelRule
) -> Pixels:
    values = _by_opencv(data, name, header)
    lacks_alpha = header is not None and header.alpha and values is not None and values.shape[2:] != (4,)
    if values is None or lacks_alpha:
        pixels = _by_pillow(data, name, header, upright, rule)
        if pixels is not None:
            return pixels
    if values is None:
        raise SourceError(name, *_why_undecoded(data, header))
    if header is None:  # OpenCV has turned it, if it knew how
        return _pixels(values, name, rule)
    if upright:
        values = _turned(values, header.orientation)
    pixels = _pixels(values, name, rule, header)
    if lacks_alpha:
        unread = f"[{name}] its alpha was not read, so that what it hides may be found; pip install pillow"
        pixels = replace(pixels, notes=(*pixels.notes, unread))
    return pixels


def _by_opencv(data: bytes | bytearray, name: str, header: Header | None) -> npt.NDArray[Any] | None:
    """What OpenCV decodes, None where it cannot; with alpha and all bits where the header tells of them."""
    cv2 = load_cv2()
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    if header is not None:
        if header.kind == "JPEG 2000" and not is_safe_for_jpeg2000(cv2):
            what = f"is a JPEG 2000 file, which OpenCV {cv2.__version__} does not decode safely"
            raise SourceError(name, what, f"pip install 'opencv-python-headless>=4.12', or {_CONVERT}")
        deep = header.alpha or ((header.deep or header.said) and header.kind != "AVIF")
        flags = cv2.IMREAD_UNCHANGED if deep else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        if header.kind == "TIFF" and header.orientation != 1:
            data = as_stored(data)
    try:
        image: npt.NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise _decoder_error(error, name) from error
    return image


def is_safe_for_jpeg2000(cv2: Any) -> bool:
    """Whether this OpenCV (its module `cv2`) survives damaged files of JPEG 2000.

    Examples:
        >>> from types import SimpleNamespace
        >>> patchcut.sources.photos.is_safe_for_jpeg2000(SimpleNamespace(__version__="4.11.0"))
        False
    """
    return tuple(int(number) for number in cv2.__version__.split(".")[:2]) >= _SAFE_FOR_JPEG2000


def _pixels(values: npt.NDArray[Any], name: str, rule: PixelRule, header: Header | None = None) -> Pixels:
    if values.dtype == np.uint8 and values.shape[2:] == (3,) and (header is None or header.said is None):
        return Pixels(values)
    said, premultiplied = (None, False) if header is None else (header.said, header.premultiplied)
    return to_8_bits(values, name, rule, said=said, premultiplied=premultiplied)


def _turned(values: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Pixels turned upright from how EXIF's number says that they are stored."""
    cv2 = load_cv2()
    transposed, upside_down, left_to_right = turn_steps(orientation)
    turned: npt.NDArray[Any] = cv2.transpose(values) if transposed else values
    if upside_down or left_to_right:
        turned = cv2.flip(turned, -1 if upside_down and left_to_right else int(left_to_right))
    return turned


def _by_pillow(
    data: bytes | bytearray, name: str, header: Header | None, upright: bool, rule: PixelRule
) -> Pixels | None:
    """What Pillow decodes, None where it cannot or is not installed."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels, which were counted, and of odd EXIF
            if header is not None and header.kind == "HEIC":
                from pillow_heif import open_heif

                image: Any = open_heif(io.BytesIO(data)).to_pillow()
            else:
                image = Image.open(io.BytesIO(data), formats=known_formats(Image, _PILLOW))
                if wrong := rule.too_large(image.height, image.width):
                    raise SourceError(name, *wrong)
                image = ImageOps.exif_transpose(image) if upright else image
            frame = as_frame(image, rule=rule)
    except (MemoryError, SourceError):
        raise
    except Exception:  # Pillow's readers raise whatever they meet in a broken file
        return None
    notes = tuple(note.replace("[frame]", f"[{name}]", 1) for note in frame.notes)
    return Pixels(np.ascontiguousarray(frame.image[..., ::-1]), frame.visible, notes if upright else ())


def known_formats(pillow: Any, names: str) -> list[str]:
    """Those of several formats that this Pillow (its module `Image`) knows; it stumbles over others.

    Examples:
        >>> from PIL import Image
        >>> patchcut.sources.photos.known_formats(Image, "PNG MADEUP")
        ['PNG']
    """
    pillow.init()
    return [name for name in names.split() if name in pillow.OPEN]


def _decoder_error(error: Any, name: str) -> SourceError:
    if "CV_IO_MAX_IMAGE" in str(error):
        remedy = "scale it down, or raise OPENCV_IO_MAX_IMAGE_PIXELS if you trust it"
        return SourceError(name, "has more pixels than OpenCV's safety limit", remedy)
    if "memory" in str(error).lower():
        return SourceError(name, *_NO_MEMORY)
    return SourceError(name, f"cannot be decoded: {error.err}", COPY_AGAIN)


def _why_undecoded(data: bytes | bytearray, header: Header | None) -> tuple[str, str]:
    if header is not None and header.kind == "HEIC":
        if _has_pillow_heif():
            return "is damaged and cannot be decoded", COPY_AGAIN
        return "is a HEIC file, which OpenCV does not decode", f"{install_hint('heic')}, or {_CONVERT}"
    if data[4:8] == b"ftyp" and header is None:
        brand = data[8:12].decode("ascii", "replace").strip().upper()
        return f"is a {brand} file, which OpenCV does not decode", _CONVERT
    if header is not None:
        return "is damaged and cannot be decoded", f"{COPY_AGAIN}; if others read it, {_CONVERT}"
    return "is not an image that OpenCV reads", f"{_CONVERT}; pip install pillow reads some more formats"


def _has_pillow_heif() -> bool:
    try:
        import pillow_heif  # noqa: F401
    except ImportError:
        return False
    return True
