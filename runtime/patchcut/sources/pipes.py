"""Photos and videos that come through a pipe, such as standard input."""

from __future__ import annotations

import io
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any, BinaryIO, cast

from patchcut.errors import COPY_AGAIN, SourceError
from patchcut.pixels import AS_IT_COMES, PixelRule
from patchcut.pyav import load_av
from patchcut.sources.base import Source
from patchcut.sources.headers import JPEG_START
from patchcut.sources.single import open_file
from patchcut.sources.sniffing import kind_of_bytes
from patchcut.sources.videos import open_video, open_video_stream

_HEAD_BYTES = 1 << 12
_COPY_BYTES = 1 << 20

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
    is_photo = kind_of_bytes(head) == "photo"
    if av is None or is_photo or index_comes_late(head):
        return _open_copy(stream, name, is_photo, every, rule)
    return open_video_stream(av, stream, name, every=every, rule=rule)


def without_lock(file: BinaryIO) -> BinaryIO:
    """The same bytes through another buffer: Python aborts where it ends while a thread waits in stdin's.

    Args:
        file: a buffered reader, of which something may have been read; anything else comes back as it is. It
            is closed where nobody holds it any more, and what comes back with it.
    Examples:
        >>> import io
        >>> stdin = io.BufferedReader(io.BytesIO(b"abc"))
        >>> with patchcut.sources.pipes.without_lock(stdin) as file:
        ...     file.read()
        b'abc'
    """
    if not isinstance(file, io.BufferedReader):
        return file
    buffered = file.read1(len(file.peek(1)))  # all that it holds
    return cast("BinaryIO", _Rejoined(buffered, io.BufferedReader(file.raw)))


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
        if kind == b"mdat" or size < 8:  # to the end of the file, or 64 bits long: of frames
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


def _open_copy(stream: BinaryIO, name: str, is_photo: bool, every: int, rule: PixelRule) -> Source:
    """The frames of a copy in a temporary folder, which is removed with the source."""
    folder = Path(tempfile.mkdtemp(prefix="patchcut-"))
    path = folder / name.replace("/", "-")
    try:
        with path.open("wb") as copy:
            shutil.copyfileobj(stream, copy, _COPY_BYTES)
        if is_photo and _is_motion_jpeg(path):
            path, is_photo = path.rename(path.with_suffix(".mjpeg")), False
        opener = open_file if is_photo else open_video
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
    data = path.read_bytes()
    return data.startswith(JPEG_START) and data.count(b"\xff\xd9" + JPEG_START) > _MOTION_JPEG_FRAMES
