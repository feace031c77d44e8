"""Recordings read through PyAV."""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from patchcut.errors import COPY_AGAIN, SourceError
from patchcut.frames import Frame
from patchcut.pixels import PixelRule
from patchcut.sources.base import Source
from patchcut.sources.containers import (
    CHECK_ADDRESS,
    MAX_FRAME_PIXELS,
    frame_rate,
    promise_of,
    video_stream,
)
from patchcut.sources.cut_files import is_cut_short
from patchcut.sources.frame_clock import ChunkTimes, FrameClock
from patchcut.sources.skipped_bytes import SkippedBytes

# A demuxer that fails so often in a row has lost its place; one that fails now and then finds it again.
_MAX_FAILURES = 16
# Clearly less than the end that a header states: durations of last packets are rounded or left out.
_SHORT_S = 0.5
_LARGE_FRAME = 2**24
# The flag comes a packet or two before the gap.
_SPLICE_PACKETS, _LEAP_FRAMES = 3, 2.5

# Their demuxers look for a place to go on, and tell nobody.
_RESYNCING = frozenset({"matroska", "flv"})

# Their demuxers leave out or fill a last frame of which a part is missing, and tell nobody.
_NOTHING_BUT_FRAMES = frozenset({"dv", "obu", "yuv4mpegpipe"})

# Only the decoder tells that raw H.264 was cut; with several threads it forgot it once in 70 times.
_RAW_H264 = "h264"

# They have no time for each frame: FFmpeg makes some up, and others after a seek.
_NO_TIMES = frozenset({"avi", "mpeg"})
# Their packets may be there for later ones only; a container of VP9 or AV1 has them in those that are shown.
_SHOW_NOTHING = frozenset({"vp8"})

# The decoder fills what is missing of a JPEG with grey and says nothing.
_RAW_JPEG, _JPEG_END = frozenset({"mjpeg", "jpeg_pipe"}), b"\xff\xd9"


@dataclass(frozen=True)
class PacketTimes:
    """When the frames of a recording are shown.

    Attributes:
        shown: [n] int64, ticks, rising: those from the first key frame on.
        keys: [k] int64, ticks, rising: those of key frames.
        time_base: seconds of a tick.
    """

    shown: npt.NDArray[np.int64]
    keys: npt.NDArray[np.int64]
    time_base: Fraction


class AvVideo(Source):
    """Frames of a recording; those that the decoder calls damaged are skipped, and counted in `problems`.

    `Frame.time_s` is the container's own: pts * time_base. `total` is given where an index counts the frames
    that are shown. Frames are turned as the display matrix says, in their own size, with pixels as stored.

    Args:
        av: the module.
        container: opened by `containers.py`; closed with this source.
        name: what a person would call it.
        every: yield frames 0, every, 2 * every, ...; those between are not converted.
        rule: how many pixels a frame may have.
        file: what the container reads, closed with it; None for an address.
    Raises:
        SourceError: it holds no video, or frames that are too large.
    """

    def __init__(
        self,
        av: Any,
        container: Any,
        name: str,
        *,
        every: int,
        rule: PixelRule,
        file: BinaryIO | None = None,
    ) -> None:
        self._av = av
        self._container = container
        self._file = file
        self._stream = video_stream(container, name)
        self._decoder = self._stream.codec_context
        prepare_decoder(container, self._stream, name, rule)
        seekable = file is not None and file.seekable()
        self._cut = file is not None and seekable and is_cut_short(file)
        self._promise = promise_of(container, self._stream, seekable=seekable, cut=self._cut)
        self._formats = frozenset(container.format.name.split(","))
        self._chunk_times = ChunkTimes() if "avi" in self._formats else None
        watched = seekable and bool(self._formats & _RESYNCING)
        self._skipped = SkippedBytes() if watched else None
        self._packets_seen = self._lost = 0
        self._packets_end_s = 0.0
        self._packets_end_bytes = 0
        self._last_packet: tuple[int, float] | None = None
        self._key_seen = False
        self._gap = 0
        self._last_dts: int | None = None
        frames = self._promise.frames
        total = None if frames is None else -(-frames // every)
        super().__init__(
            "video", name, total=total, fps=frame_rate(self._stream, None if self._cut else frames)
        )
        self.every = every
        self.has_sound = bool(container.streams.audio)

    def __iter__(self) -> Iterator[Frame]:
        clock = FrameClock(self._stream.time_base, self.fps)
        image_of = Converter(self._av)
        shown = 0
        for frame in self._frames():
            index = shown + self._lost
            shown += 1
            time_s = clock.time_s(frame.pts, frame.duration or 0)
            if index % self.every == 0:
                yield Frame(image_of(frame), "bgr", self.name, index, time_s)
        self._cut = self._cut or self._is_short()
        self.end_s = clock.end_s(() if self._cut else self._ends_s())
        self._tell_missing(shown)
        self.close()

    def packet_times(self) -> PacketTimes | None:
        """When frames are shown, read from packets of which none is decoded; it takes the place of iterating.

        None where that cannot tell: frames without times of their own, packets that show none, and damage.
        """
        times, keys = array("q"), array("q")
        known = not self._formats & _NO_TIMES and self._decoder.codec.canonical_name not in _SHOW_NOTHING
        for packet in self._packets() if known else ():
            if packet.is_discard:
                continue
            known = packet.pts is not None
            if not known:
                break
            times.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
        known = known and not (self._lost or self._cut or self._is_short())
        self.close()
        shown, key = np.unique(np.asarray(times, np.int64)), np.unique(np.asarray(keys, np.int64))
        if not known or len(shown) != len(times) or not len(key):
            return None
        return PacketTimes(shown[shown >= key[0]], key, self._stream.time_base)

    def close(self) -> None:
        self._container.close()
        if self._file is not None:
            self._file.close()

    def _frames(self) -> Iterator[Any]:
        """Decoded frames in the order of display, without those that the decoder calls corrupt."""
        for packet in self._packets():
            yield from self._decode(packet)
        yield from self._decode(None)

    def _decode(self, packet: Any) -> Iterator[Any]:
        if packet is not None and self._chunk_times is not None:
            self._chunk_times.add(packet.dts)
        try:
            frames = self._decoder.decode(packet)
        except EOFError:  # drained already
            return
        except (self._av.error.FFmpegError, MemoryError):
            self._lose(None)
            return
        for frame in frames:
            if frame.is_corrupt:
                self._lose(frame.pts)
                continue
            if self._chunk_times is not None:
                frame.pts = self._chunk_times.take(frame.pts)
            yield frame

    def _lose(self, pts: int | None) -> None:
        """Counts a frame as lost; none before the first key frame, which nobody can show: a broadcast begins
        anywhere."""
        self._lost += self._key_seen
        if self._chunk_times is not None:
            self._chunk_times.take(pts)

    def _packets(self) -> Iterator[Any]:
        """The video's packets that are whole; the others' are looked at for where the recording ends."""
        for packet in self._all_packets():
            if packet.size == 0:
                continue
            self._note_end(packet)
            if self._skipped is not None and packet.pos is not None and packet.pos >= 0:
                self._skipped.note(packet.pos, packet.size)
            if packet.pos is not None and packet.pos >= 0:
                self._packets_end_bytes = max(self._packets_end_bytes, packet.pos + packet.size)
            if packet.stream_index != self._stream.index:
                # Sound of which a part is missing; a broadcast begins and ends anywhere.
                self._cut = self._cut or (packet.is_corrupt and "mpegts" not in self._formats)
                continue
            self._packets_seen += not packet.is_discard
            self._key_seen = self._key_seen or packet.is_keyframe
            if self._is_whole(packet):
                yield packet
            else:
                self._lost += self._key_seen

    def _is_whole(self, packet: Any) -> bool:
        if self._formats & _RAW_JPEG:
            return bytes(packet).rstrip(b"\0").endswith(_JPEG_END)
        if "mpegts" in self._formats:
            self._watch_gap(packet)
            return True
        return not packet.is_corrupt

    def _watch_gap(self, packet: Any) -> None:
        """A broadcast's flag says that something is missing hereabouts; the decoder shows what it can.

        It is damage where the time leaps forward next; where it runs back another recording follows.
        """
        previous, self._last_dts = self._last_dts, packet.dts
        if packet.is_corrupt and self._key_seen:
            self._gap = _SPLICE_PACKETS
        elif self._gap and previous is not None and packet.dts is not None:
            self._gap = 0 if packet.dts < previous else self._gap - 1
            leap_s = float((packet.dts - previous) * packet.time_base)
            self._cut = self._cut or leap_s > _LEAP_FRAMES / (self.fps or 25)

    def _all_packets(self) -> Iterator[Any]:
        failures = 0
        while True:
            try:
                for packet in self._container.demux():
                    failures = 0
                    yield packet
                return
            except (self._av.error.FFmpegError, OSError):
                failures += 1
                self._cut = True
                if self._file is None or failures > _MAX_FAILURES:  # each try at a dead server takes its time
                    return

    def _note_end(self, packet: Any) -> None:
        start = packet.dts if packet.pts is None else packet.pts
        if start is None or packet.time_base is None:
            return
        end_s = float((start + (packet.duration or 0)) * packet.time_base)
        self._packets_end_s = max(self._packets_end_s, end_s)
        if packet.stream_index == self._stream.index and not packet.is_discard:
            self._last_packet = max(self._last_packet or (start, end_s), (start, end_s))

    def _ends_s(self) -> Iterator[float | None]:
        """Where the container says that the video ends, the best first."""
        yield self._promise.video_end_s
        if "mov" in self._formats and self._last_packet is not None:  # each sample has its duration
            yield self._last_packet[1]

    def _is_short(self) -> bool:
        """True if bytes were skipped, packets of an index did not come, or none up to the stated end."""
        promise = self._promise
        if self._skipped is not None and self._file is not None and self._skipped.any_damaged(self._file):
            return True
        if self._ends_within_a_frame():
            return True
        if promise.frames is not None and self._packets_seen < promise.frames:
            return True
        return promise.packets_end_s is not None and self._packets_end_s < promise.packets_end_s - _SHORT_S

    def _ends_within_a_frame(self) -> bool:
        """True if a file that has nothing but frames ends elsewhere than its last one."""
        if self._file is None or not self._file.seekable() or not self._formats & _NOTHING_BUT_FRAMES:
            return False
        return self._packets_end_bytes != self._file.seek(0, os.SEEK_END)

    def _tell_missing(self, shown: int) -> None:
        codec = f"its codec is {self._decoder.codec.canonical_name}"
        if shown == 0 and not self._lost and not self._cut:
            what, remedy = f"opened, but no frame could be decoded; {codec}", "play it elsewhere to check"
        elif self._file is None and self._cut:
            what, remedy = f"stopped sending after {shown} frames", CHECK_ADDRESS
        elif self._lost or self._cut:
            what, remedy = f"{self._count(shown)}: the file is damaged or cut short", COPY_AGAIN
            what += f"; {codec}" if shown == 0 else ""
        else:
            return
        self.problems.append(str(SourceError(self.name, what, remedy)))

    def _count(self, shown: int) -> str:
        total = max(self._promise.frames or 0, shown + self._lost)
        return f"decoded {shown} of {total} frames" if total > shown else f"decoded {shown} frames"


def prepare_decoder(container: Any, stream: Any, name: str, rule: PixelRule) -> None:
    """Has the decoder of a stream keep to the pixels that are allowed, and chooses its threads.

    Raises:
        SourceError: its frames have more pixels.
    """
    decoder, max_pixels = stream.codec_context, min(rule.max_pixels, MAX_FRAME_PIXELS)
    width, height = decoder.width, decoder.height
    if too_large := PixelRule(max_pixels=max_pixels).too_large(height, width):
        raise SourceError(name, *too_large)
    decoder.options = {"max_pixels": str(max_pixels)}
    # A thread for each of several frames is faster; a thread for each part of one takes less memory.
    decoder.thread_type = "SLICE" if width * height >= _LARGE_FRAME else "AUTO"
    if container.format.name == _RAW_H264:
        decoder.thread_count = 1


class Converter:
    """[H, W, 3] uint8 BGR of decoded frames: matrix and range as tagged, and turned as it is to be shown."""

    def __init__(self, av: Any) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> npt.NDArray[np.uint8]:
        shown = self._reformatter.reformat(frame, format="bgr24", interpolation="BICUBIC")
        image: npt.NDArray[np.uint8] = np.asarray(shown.to_ndarray(), np.uint8)
        matrix = frame.side_data.get("DISPLAYMATRIX")
        return image if matrix is None else turned(image, bytes(matrix))


def turned(image: npt.NDArray[np.uint8], display_matrix: bytes) -> npt.NDArray[np.uint8]:
    """`image` in one of eight orientations: the nearest to a display matrix of 3x3 int32, row vectors.

    x' = a x + c y, y' = b x + d y; what else the matrix does, scaling and oblique angles, is left out.
    """
    a, b, _, c, d, *_ = struct.unpack("9i", display_matrix)
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, across, down = image.transpose(1, 0, 2), c, b
    else:
        across, down = a, d
    step_x, step_y = -1 if across < 0 else 1, -1 if down < 0 else 1
    return np.ascontiguousarray(image[::step_y, ::step_x])
