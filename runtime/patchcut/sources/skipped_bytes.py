"""Bytes that a demuxer jumped over without a word, because it could not make sense of them."""

from __future__ import annotations

from typing import BinaryIO

# Headers between packets take up to 24 bytes in files that are whole.
_LONGEST_HEADER = 64
_MOST_HOLES = 1000
# What may stand between the blocks of a Matroska file: cues, tags, seek heads, chapters, attachments and
# clusters; padding, checksums, blocks of tracks that FFmpeg does not know, and what belongs to a block.
_MATROSKA_IDS = (
    *map(bytes.fromhex, ("1c53bb6b", "1254c367", "114d9b74", "1043a770", "1941a469", "1f43b675")),
    *map(bytes.fromhex, ("ec", "bf", "a0", "a3", "ab", "a7", "75a1", "75a2", "9b", "fb", "a4")),
)
# FLV: the size of the tag before, then a tag of data.
_FLV_DATA_TAG = 0x12


class SkippedBytes:
    """Holes between the packets of a Matroska, WebM or FLV file.

    FFmpeg looks for the next place that makes sense where these are damaged, and tells nobody.
    Examples:
        >>> import io
        >>> skipped = patchcut.sources.skipped_bytes.SkippedBytes()
        >>> for position in (0, 107, 1000):
        ...     skipped.note(position, 100)
        >>> skipped.any_damaged(io.BytesIO(bytes(1100)))
        True
    """

    def __init__(self) -> None:
        self._end: int | None = None
        self._holes: list[int] = []

    def note(self, position: int, size: int) -> None:
        """A packet came from these bytes."""
        hole = 0 if self._end is None else position - self._end
        if hole > _LONGEST_HEADER and self._end is not None and len(self._holes) < _MOST_HOLES:
            self._holes.append(self._end)
        self._end = max(self._end or 0, position + size)

    def any_damaged(self, file: BinaryIO) -> bool:
        """Whether a hole begins with nothing that such a file may hold."""
        return any(not _is_known(file, hole) for hole in self._holes)


def _is_known(file: BinaryIO, position: int) -> bool:
    file.seek(position)
    start = file.read(5)
    return start.startswith(_MATROSKA_IDS) or (len(start) == 5 and start[4] == _FLV_DATA_TAG)
