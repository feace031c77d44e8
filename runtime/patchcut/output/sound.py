"""The sound of a recording, copied into its overlay video packet by packet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from patchcut.errors import SourceError
from patchcut.pyav import load_av
from patchcut.sources import Source
from patchcut.sources.containers import open_file

# Where a joined recording starts its clock again, its sound has no place in the video any more.
_RUNS_BACK_S = 1.0

_REMEDY = "add it afterwards: ffmpeg -i OVERLAY -i VIDEO -map 0:v -map 1:a -c:v copy OUT.mp4"


class Sound:
    """The packets of a recording's first choice of sound, on the clock of a video that is made of it.

    Args:
        part: the recording; it has sound.
        begin_s: the second of its clock at which the video begins.
    Attributes:
        template: the stream of FFmpeg that packets are of; None where there are none to be had.
        lost: why the video lacks sound or a part of it, in words; None where it does not.
    Examples:
        >>> from patchcut.output.sound import Sound
        >>> part = patchcut.open_source([frame])
        >>> part.has_sound = True
        >>> Sound(part, 0.0).lost
        'it comes from no file'
    """

    def __init__(self, part: Source, begin_s: float) -> None:
        self.lost: str | None = None
        self.template: Any = None
        self._name = part.name
        self._begin_s = begin_s
        self._container: Any = None
        self._file: Any = None
        self._packets: Iterator[Any] = iter(())
        self._next: Any = None
        self._errors: tuple[type[Exception], ...] = (SourceError, OSError, ValueError)
        av = load_av()
        if part.path is None or av is None:
            self.lose("it comes from no file")
            return
        self._errors += (av.error.FFmpegError,)
        try:
            self._file = part.path.open("rb")
            self._container = open_file(av, self._file, part.name)
            self.template = self._container.streams.best("audio")
            self._packets = self._demuxed()
        except self._errors as error:
            self.lose(f"it cannot be read ({getattr(error, 'strerror', None) or error})")

    @property
    def codec(self) -> str:
        """FFmpeg's name of what it is encoded with.

        Examples:
            >>> from patchcut.output.sound import Sound
            >>> Sound(patchcut.open_source([frame]), 0.0).codec
            ''
        """
        context = None if self.template is None else self.template.codec_context
        return "" if context is None else str(context.codec.canonical_name)

    def until(self, end_s: float) -> Iterator[Any]:
        """The packets that begin before a second of the video and have not been given yet.

        The first may begin before the video: it ends in it.
        Examples:
            >>> from patchcut.output.sound import Sound
            >>> list(Sound(patchcut.open_source([frame]), 0.0).until(10.0))
            []
        """
        while True:
            if self._next is None:
                try:
                    self._next = next(self._packets, None)
                except self._errors:
                    self.lose("its file is damaged")
            if self._next is None or self._next.pts * self._next.time_base >= end_s:
                return
            packet, self._next = self._next, None
            yield packet

    def lose(self, why: str) -> None:
        """Ends it: nothing more of it is in the video.

        Examples:
            >>> from patchcut.output.sound import Sound
            >>> sound = Sound(patchcut.open_source([frame]), 0.0)
            >>> sound.lose("MP4 takes no wmav2")
        """
        self.lost = self.lost or why
        self._packets, self._next = iter(()), None

    def note(self) -> str | None:
        """A line for the notes of the recording; None where nothing is lost.

        Examples:
            >>> from patchcut.output.sound import Sound
            >>> Sound(patchcut.open_source([frame]), 0.0).note()[:72]
            '[frames] not all of its sound is in the overlay video: it comes from no '
        """
        if self.lost is None:
            return None
        what = f"not all of its sound is in the overlay video: {self.lost}"
        return str(SourceError(self._name, what, _REMEDY))

    def close(self) -> None:
        """Closes the file; harmless when called again.

        Examples:
            >>> from patchcut.output.sound import Sound
            >>> Sound(patchcut.open_source([frame]), 0.0).close()
        """
        for held in (self._container, self._file):
            if held is not None:
                with contextlib.suppress(*self._errors):
                    held.close()

    def _demuxed(self) -> Iterator[Any]:
        """Packets with times, shifted to the video's clock and in order, from the first that ends in it."""
        last: int | None = None
        for packet in self._container.demux(self.template):
            if packet.pts is None or packet.dts is None or packet.is_corrupt:
                continue
            shift = round(self._begin_s / packet.time_base)
            packet.pts -= shift
            packet.dts -= shift
            if packet.pts + (packet.duration or 0) < 0:
                continue
            if last is not None and packet.dts <= last:
                if (last - packet.dts) * packet.time_base > _RUNS_BACK_S:
                    self.lose("its clock starts again")
                    return
                continue
            last = packet.dts
            yield packet
