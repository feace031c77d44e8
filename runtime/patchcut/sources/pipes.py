"""Photos and videos that come through a pipe, such as standard input."""

from __future__ import annotations

import io
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any, BinaryIO, cast

from patchcut.errors import SourceError
from patchcut.pixels import AS_IT_COMES, PixelRule
from patchcut.pyav import load_av
from patchcut.sources.base import Source
from patchcut.sources.containers import COPY_AGAIN
from patchcut.sources.single import open_file
from patchcut.sources.videos import open_video, open_video_stream

_HEAD_BYTES = 1 << 12
_COPY_BYTES = 1 << 20

# What pictures begin with; an ISO file (HEIC, AVIF, MP4) has its brand at byte 8.
_PICTURES = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG\r\n\x1a\n": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"\0\0\0\x0cjP  ": ".jp2",
}
_BRANDS = {b"avif": ".avif", b"avis": ".avif", b"heic": ".heic", b"heix": ".heic", b"mif1": ".heic"}
_NETPBM = frozenset(b"P%d" % kind for kind in range(1, 7))
# A photo may hold a few pictures one after the other: depths, gains, previews.
_MOTION_JPEG_FRAMES = 8


def open_stream(file: BinaryIO, name: str, *, every: int = 1, rule: PixelRule = AS_IT_COMES) -> Source:
    """The frames of a photo, an animation or a video that is read from an open file, which may be a pipe.

    A video is read as it comes: Matroska, MPEG-TS, AVI, fragmented MP4 and others. What has to be there as a
    whole, such as a photo, or an MP4 whose index stands at its end, is first copied into a temporary folder.
    Where PyAV is missing everything is copied.

    Args:
        file: binary; read to the end of the photo or video, and closed with the source if that is a video.
        name: what a person would call it, such as "stdin".
        every: yield frames 0, every, 2 * every, ...
        rule: how many pixels a frame may have.
    Raises:
        SourceError: it is empty, or neither a picture nor a video.
    Examples:
        >>> import io
        >>> patchcut.sources.pipes.open_stream(io.BytesIO(), "stdin")
        Traceback (most recent call last):
        patchcut.errors.SourceError: [stdin] is empty (0 bytes); copy or download it again
    """
    head = _read_head(file)
    if not head:
        raise SourceError(name, "is empty (0 bytes)", COPY_AGAIN)
    stream = cast("BinaryIO", _Rejoined(head, file))
    av = load_av()
    suffix = _picture_suffix(head)
    if av is None or suffix or index_comes_late(head):
        return _open_copy(stream, name, suffix, every, rule)
    return open_video_stream(av, stream, name, every=every, rule=rule)


def index_comes_late(head: bytes) -> bool:
    """True for an MP4 whose frames come before their index, and so make no sense as they come.

    Args:
        head: the first bytes.
    """
    if head[4:8] != b"ftyp":
        return False
    position = 0
    while position + 8 <= len(head):
        size, kind = int.from_bytes(head[position : position + 4], "big"), head[position + 4 : position + 8]
        if kind == b"moov":
            return False
        if size < 8:  # to the end of the file, or 64 bits long: of frames
            return True
        position += size
    return True


class _Rejoined(io.RawIOBase):
    """The first bytes, read already, and what follows them; it cannot seek."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = io.BytesIO(head)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._head.read(len(buffer)) or _read_some(self._rest, len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self._rest.close()
        super().close()


def _read_some(file: BinaryIO, count: int) -> bytes:
    """What is there, up to `count` bytes, rather than a wait for all of them; nothing at the end."""
    read = getattr(file, "read1", file.read)
    return bytes(read(count) or b"")


def _read_head(file: BinaryIO) -> bytes:
    """The first bytes, as many as it takes to tell what they are."""
    head = b""
    while len(head) < _HEAD_BYTES and (piece := _read_some(file, _HEAD_BYTES - len(head))):
        head += piece
    return head


def _picture_suffix(head: bytes) -> str:
    """The suffix of files that begin like this picture, "" where it is none."""
    for start, suffix in _PICTURES.items():
        if head.startswith(start):
            return suffix
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    if head[:2] in _NETPBM and head[2:3].isspace():
        return ".ppm"
    return _BRANDS.get(head[8:12], "") if head[4:8] == b"ftyp" else ""


def _open_copy(stream: BinaryIO, name: str, suffix: str, every: int, rule: PixelRule) -> Source:
    """The frames of a copy in a temporary folder, which is removed with the source."""
    folder = Path(tempfile.mkdtemp(prefix="patchcut-"))
    path = folder / (name.replace("/", "-") + (suffix or ".video"))
    try:
        with path.open("wb") as copy:
            shutil.copyfileobj(stream, copy, _COPY_BYTES)
        if suffix == ".jpg" and _is_motion_jpeg(path):
            path, suffix = path.rename(path.with_suffix(".mjpeg")), ""
        opener = open_file if suffix else open_video
        source = opener(path, every=every, rule=rule)
    except SourceError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise SourceError(name, error.what, error.remedy) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    source.name = name
    weakref.finalize(source, shutil.rmtree, folder, ignore_errors=True)
    return source


def _is_motion_jpeg(path: Path) -> bool:
    return path.read_bytes().count(b"\xff\xd9\xff\xd8\xff") > _MOTION_JPEG_FRAMES
