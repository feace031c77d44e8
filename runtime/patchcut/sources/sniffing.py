"""What a file holds, by its suffix and its first bytes; nothing is decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from patchcut.sources.headers import HEIF_BRANDS, JPEG_START, PNG_START
from patchcut.sources.photos import PHOTO_SUFFIXES
from patchcut.sources.videos import VIDEO_SUFFIXES

FileKind = Literal["photo", "video", "raw", "other"]

HEAD_BYTES = 512

_RAWS = "3fr arw cr2 cr3 crw dng erf iiq kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f"
_RAW_SUFFIXES = frozenset(f".{suffix}" for suffix in _RAWS.split())
_SOUNDS = "aac aif aiff flac m4a m4b mka mp3 oga ogg opus wav wma"
_SOUND_SUFFIXES = frozenset(f".{suffix}" for suffix in _SOUNDS.split())
# TypeScript has the suffixes of MPEG's transport streams.
_ALSO_TEXT = frozenset({".ts", ".mts"})

_PHOTO_STARTS = (
    JPEG_START,
    PNG_START,
    b"GIF87a",
    b"GIF89a",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"\0\0\0\x0cjP  ",
    b"\0\0\0\x0cJXL ",
    b"\xff\x4f\xff\x51",
    b"#?RADIANCE",
    b"qoif",
    b"8BPS",
    b"v/1\x01",
)
_VIDEO_STARTS = (
    b"\x1aE\xdf\xa3",
    b"FLV\x01",
    b"OggS",
    b"0&\xb2u\x8ef\xcf\x11",
    b"\0\0\x01\xba",
    b"\0\0\x01\xb3",
    b"YUV4MPEG2 ",
    b"DKIF",
)
_SOUND_BRANDS = frozenset({b"M4A ", b"M4B ", b"M4P "})
_MOVIE_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"pnot"})
_BMP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})


def kind_of(path: Path) -> FileKind:
    """What a file holds: its suffix says so where that is known, else its first bytes.

    "raw" is what a camera keeps of a photo before it is developed; "other" is neither photo nor video.

    Raises:
        OSError: it cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in PHOTO_SUFFIXES:
        return "photo"
    if suffix in _RAW_SUFFIXES:
        return "raw"
    if suffix in _SOUND_SUFFIXES:
        return "other"
    if suffix in VIDEO_SUFFIXES and suffix not in _ALSO_TEXT:
        return "video"
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if suffix in _ALSO_TEXT:
        return "other" if is_text(head) else "video"
    return kind_of_bytes(head)


def kind_of_bytes(head: bytes) -> FileKind:
    """What a file holds that begins so.

    Args:
        head: its first `HEAD_BYTES`, or all of a shorter one.
    """
    if head.startswith(_PHOTO_STARTS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "photo"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "photo"
    if head[:1] == b"P" and head[1:2] in b"1234567fF" and head[2:3].isspace():
        return "photo"
    if head.startswith(_VIDEO_STARTS) or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return "video"
    if head[4:8] in _MOVIE_BOXES:
        return _kind_of_brand(head)
    return "video" if _is_transport_stream(head) else "other"


def is_text(head: bytes) -> bool:
    """Whether bytes are all text."""
    return bool(head) and not any(byte < 32 and byte not in b"\t\n\r\f" for byte in head)


def _kind_of_brand(head: bytes) -> FileKind:
    if head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS:
        return "photo"
    return "other" if head[8:12] in _SOUND_BRANDS else "video"


def _is_transport_stream(head: bytes) -> bool:
    """A packet of 188 bytes begins with 0x47; cameras put four bytes of time before each."""
    return any(
        len(head) > first + packet and head[first] == head[first + packet] == 0x47
        for first, packet in ((0, 188), (4, 192))
    )
