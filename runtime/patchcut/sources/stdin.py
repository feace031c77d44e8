"""What is piped in: a photo, or a video that is read as it comes."""

from __future__ import annotations

import io
import sys
from typing import IO, Any

from patchcut.errors import SourceError
from patchcut.frames import Frame
from patchcut.pixels import PixelRule
from patchcut.sources.arrays import FrameSource
from patchcut.sources.base import Source
from patchcut.sources.photos import decode_photo
from patchcut.sources.sniffing import HEAD_BYTES, kind_of_bytes

_NAME = "stdin"
_MAX_PHOTO_BYTES = 2**30
_REMEDY = "pipe a photo or video in: cat x.jpg | patchcut run -"


def open_stdin(every: int, rule: PixelRule) -> Source:
    """The photo or video on standard input, whichever its first bytes say.

    Raises:
        SourceError: "[stdin] is empty; pipe a photo or video in: ...".
    """
    pipe = getattr(sys.stdin, "buffer", None)
    if pipe is None or pipe.closed:
        raise SourceError(_NAME, "is closed", _REMEDY)
    if pipe.isatty():
        raise SourceError(_NAME, "is a terminal", _REMEDY)
    try:
        return _open_pipe(pipe, every, rule)
    except OSError as error:
        raise SourceError(_NAME, f"cannot be read: {error.strerror or error}", _REMEDY) from error


def _open_pipe(pipe: IO[bytes], every: int, rule: PixelRule) -> Source:
    head = pipe.read(HEAD_BYTES)
    if not head:
        raise SourceError(_NAME, "is empty (0 bytes)", _REMEDY)
    kind = kind_of_bytes(head)
    if kind == "video":
        return _open_video(_Piped(head, pipe), every, rule)
    if kind != "photo":
        raise SourceError(_NAME, "is neither a photo nor a video", "pipe in a JPEG, PNG or MP4")
    data = head + pipe.read(_MAX_PHOTO_BYTES - len(head) + 1)
    if len(data) > _MAX_PHOTO_BYTES:
        raise SourceError(_NAME, f"holds a photo of more than {_MAX_PHOTO_BYTES} bytes", "give it as a file")
    pixels = decode_photo(data, _NAME, rule=rule)
    frame = Frame(pixels.image, "bgr", _NAME, visible=pixels.visible, notes=pixels.notes)
    return FrameSource([frame], kind="images", name=_NAME, rule=rule)


def _open_video(piped: _Piped, every: int, rule: PixelRule) -> Source:
    raise SourceError(_NAME, "is a video, for which PyAV is needed", "pip install 'patchcut[video]'")


class _Piped(io.RawIOBase):
    """A pipe of which the first bytes were read already; closing it leaves standard input open."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        super().__init__()
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def readinto(self, buffer: Any) -> int:
        if not self._head:
            read: int = self._rest.readinto(buffer)  # type: ignore[attr-defined]
            return read
        view = memoryview(buffer).cast("B")
        size = min(len(view), len(self._head))
        view[:size], self._head = self._head[:size], self._head[size:]
        return size
