"""Containers that say how many bytes they have: whether a file holds them all."""

from __future__ import annotations

import os
from typing import BinaryIO

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_OGG_PAGE = b"OggS"
_LONGEST_OGG_PAGE = 27 + 255 + 255 * 255
_UNKNOWN_LENGTH = 2**32 - 1
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_MP4_FIRST = frozenset({b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide"})
_MOST_BOXES = 2**20


def is_cut_short(file: BinaryIO) -> bool:
    """True if a file ends before the size that it states; the position is kept.

    Matroska, WebM, AVI, Ogg, ASF (WMV) and fragmented MP4: FFmpeg takes the end of such a file for the end of
    the recording. Other containers are False: FFmpeg says it of them, or they state no size.
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
            length = int.from_bytes(head[4:8], "little")
            return length != _UNKNOWN_LENGTH and length + 8 > size
        if head.startswith(_OGG_PAGE):
            file.seek(max(0, size - _LONGEST_OGG_PAGE))
            return not _last_page_is_whole(file.read())
        if head.startswith(_ASF):
            return _asf_size(head) > size
        return head[4:8] in _MP4_FIRST and _last_fragment_is_cut(file, size)
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


def _asf_size(head: bytes) -> int:
    """The size that an ASF file states, 0 where it does not: a live one is marked as a broadcast."""
    start = head.find(_ASF_FILE)
    if start < 0 or len(head) < start + 92 or head[start + 88] & 1:
        return 0
    return int.from_bytes(head[start + 40 : start + 48], "little")


def _last_fragment_is_cut(file: BinaryIO, size: int) -> bool:
    """Whether the last box of an MP4 is an index or part of a fragment, and goes on past the end.

    Without fragments, the index says what is missing of the frames.
    """
    position, fragmented = 0, False
    for _ in range(_MOST_BOXES):
        file.seek(position)
        start = file.read(16)
        kind, length = start[4:8], int.from_bytes(start[:4], "big")
        if length == 1:
            length = int.from_bytes(start[8:], "big")
        if len(start) < 8 or length < 8:  # 0 is up to the end
            return fragmented and 0 < len(start) < 8
        fragmented = fragmented or kind == b"moof"
        if position + length > size:
            return kind in (b"moov", b"moof") or (fragmented and kind == b"mdat")
        position += length
    return False
