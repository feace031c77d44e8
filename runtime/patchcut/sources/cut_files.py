"""Containers that say how many bytes they have: whether a file holds them all."""

from __future__ import annotations

import os
from typing import BinaryIO

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_OGG_PAGE = b"OggS"
_LONGEST_OGG_PAGE = 27 + 255 + 255 * 255


def is_cut_short(file: BinaryIO) -> bool:
    """True if a Matroska, WebM, AVI or Ogg file ends before the size that it states; the position is kept.

    FFmpeg takes the end of such a file for the end of the recording. Other containers are False: FFmpeg says
    it of them, or they state no size.
    Examples:
        >>> import io
        >>> patchcut.sources.cut_files.is_cut_short(io.BytesIO(b"OggS" + bytes(30)))
        False
    """
    position = file.tell()
    try:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(4096)
        if head.startswith(_EBML):
            end = _segment_end(head)
            return end is not None and end > size
        if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
            return int.from_bytes(head[4:8], "little") + 8 > size
        if head.startswith(_OGG_PAGE):
            file.seek(max(0, size - _LONGEST_OGG_PAGE))
            return not _last_page_is_whole(file.read())
        return False
    finally:
        file.seek(position)


def _segment_end(head: bytes) -> int | None:
    """Where a Matroska segment ends, None where it does not say."""
    header, start = _vint(head, len(_EBML))
    if header is None:
        return None
    start += header
    if head[start : start + 4] != _SEGMENT:
        return None
    length, begin = _vint(head, start + 4)
    return None if length is None else begin + length


def _vint(data: bytes, position: int) -> tuple[int | None, int]:
    """EBML's number of variable length at `position`, None where unknown; and the position after it."""
    first = data[position] if position < len(data) else 0
    if not first:
        return None, position
    length = 9 - first.bit_length()
    value = int.from_bytes(data[position : position + length], "big") & ((1 << 7 * length) - 1)
    unknown = value == (1 << 7 * length) - 1
    return None if unknown else value, position + length


def _last_page_is_whole(tail: bytes) -> bool:
    start = tail.rfind(_OGG_PAGE)
    if start < 0 or start + 27 > len(tail):
        return False
    segments = tail[start + 26]
    sizes = tail[start + 27 : start + 27 + segments]
    return len(sizes) == segments and start + 27 + segments + sum(sizes) <= len(tail)
