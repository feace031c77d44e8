"""Recordings read in pieces: where they can be cut, and the frames of one piece.

A piece begins at a key frame, which needs none before it. What is shown from one key frame's time until the
next one's belongs to it, those frames included that are stored after the next key frame and shown before it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut.errors import SourceError
from patchcut.frames import Frame
from patchcut.pixels import AS_IT_COMES, PixelRule
from patchcut.pyav import load_av
from patchcut.sources.av_videos import AvVideo, Converter, PacketTimes, prepare_decoder
from patchcut.sources.containers import open_file, video_stream
from patchcut.sources.videos import open_video

# A demuxer that fails so often in a row has lost its place.
_MAX_FAILURES = 16


def packet_times(path: Path, *, rule: PixelRule = AS_IT_COMES) -> PacketTimes | None:
    """When the frames of a video are shown; the file is read once, and nothing is decoded.

    None where it cannot be cut, so that it has to be read from its begin to its end: PyAV is missing, packets
    tell no times, or it is damaged, which whoever decodes it is told.

    Raises:
        SourceError: it is no video.
        OSError: it cannot be read.
    Examples:
        >>> (folder / "empty.mp4").touch()
        >>> patchcut.sources.key_frames.packet_times(folder / "empty.mp4")
        Traceback (most recent call last):
        patchcut.errors.SourceError: [empty.mp4] is empty (0 bytes); copy or download it again
    """
    video = open_video(path, rule=rule)
    if not isinstance(video, AvVideo):
        video.close()
        return None
    return video.packet_times()


def groups_of(times: PacketTimes) -> list[npt.NDArray[np.int64]]:
    """The times of the frames from each key frame to the next, in ticks, rising; together they are all.

    Examples:
        >>> from fractions import Fraction
        >>> ticks = np.arange(6)
        >>> times = patchcut.sources.av_videos.PacketTimes(ticks, ticks[::4], Fraction(1, 25))
        >>> [group.tolist() for group in patchcut.sources.key_frames.groups_of(times)]
        [[0, 1, 2, 3], [4, 5]]
    """
    return np.split(times.shown, np.searchsorted(times.shown, times.keys[1:]))


def frames_at(
    path: Path, name: str, ticks: Sequence[int], *, rule: PixelRule = AS_IT_COMES
) -> Iterator[tuple[int, Frame]]:
    """The frames that are shown at some times: the place of each in `ticks`, and the frame.

    One that cannot be decoded is left out. Decoding begins at the last key frame that is not later than the
    first of them; for those that are missing then, once more at the begin of the file: an index may lead too
    far, and not all that is called a key frame is one.

    Args:
        path: a video that `packet_times` has read.
        name: of the frames.
        ticks: rising.
        rule: how many pixels a frame may have.
    Raises:
        SourceError: it cannot be opened as a video, or PyAV is missing.
        OSError: it cannot be read.
    """
    places = {tick: place for place, tick in enumerate(ticks)}
    for sought in (True, False):
        if places:
            yield from _frames(path, name, places, rule, sought=sought)


def _frames(
    path: Path, name: str, places: dict[int, int], rule: PixelRule, *, sought: bool
) -> Iterator[tuple[int, Frame]]:
    """The frames of some times, which are taken out of `places` with each."""
    av = load_av()
    if av is None:
        raise SourceError(name, "was cut at key frames, which needs PyAV", "install it here, too")
    first, last = min(places), max(places)
    with path.open("rb") as file, contextlib.closing(open_file(av, file, name)) as container:
        stream = video_stream(container, name)
        prepare_decoder(container, stream, name, rule)
        if sought:
            with contextlib.suppress(av.error.FFmpegError):  # then it is read from where it stands
                container.seek(first, stream=stream)
        base, convert = stream.time_base, Converter(av)
        packets = _packets(av, container, stream)
        begin = next(packets)
        # What is shown before the frame that decoding begins with is made of others that were not decoded.
        earliest = begin.pts if sought and begin is not None and begin.pts is not None else min(places)
        for decoded in _decoded(av, stream, chain([begin], packets)):
            if decoded.is_corrupt or decoded.pts is None or decoded.pts < earliest:
                continue
            if decoded.pts > last:
                return
            if (place := places.pop(decoded.pts, None)) is not None:
                time_s = decoded.pts * base.numerator / base.denominator
                yield place, Frame(convert(decoded), "bgr", name, place, time_s)


def _decoded(av: Any, stream: Any, packets: Iterable[Any]) -> Iterator[Any]:
    """Frames in the order of display; what cannot be decoded is passed over."""
    for packet in packets:
        with contextlib.suppress(av.error.FFmpegError, MemoryError, EOFError):
            yield from stream.codec_context.decode(packet)


def _packets(av: Any, container: Any, stream: Any) -> Iterator[Any]:
    failures = 0
    while failures <= _MAX_FAILURES:
        try:
            for packet in container.demux(stream):
                failures = 0
                yield packet  # the last one is empty, and has the decoder give what it holds back
            return
        except (av.error.FFmpegError, OSError):
            failures += 1
    yield None
