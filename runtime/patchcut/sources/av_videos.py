"""Recordings read through PyAV."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from patchcut.errors import SourceError
from patchcut.frames import Frame
from patchcut.sources.base import Source
from patchcut.sources.containers import CHECK_ADDRESS, COPY_AGAIN, frame_rate, promise_of, video_stream
from patchcut.sources.cut_files import is_cut_short
from patchcut.sources.frame_clock import ChunkTimes, FrameClock

# A demuxer that fails so often in a row has lost its place; one that fails now and then finds it again.
_MAX_FAILURES = 16
# Clearly less than the end that a header states: durations of last packets are rounded or left out.
_SHORT_S = 0.5
_LARGE_FRAME = 2**24

# The decoder fills what is missing of a JPEG with grey and says nothing.
_RAW_JPEG, _JPEG_END = frozenset({"mjpeg", "jpeg_pipe"}), b"\xff\xd9"


class AvVideo(Source):
    """Frames of a recording; those that the decoder calls damaged are skipped, and counted in `problems`.

    `Frame.time_s` is the container's own: pts * time_base. `total` is given where an index counts the frames
    that are shown. Frames are turned as the display matrix says, in their own size, with pixels as stored.

    Args:
        av: the module.
        container: opened by `containers.py`; closed with this source.
        name: what a person would call it.
        every: yield frames 0, every, 2 * every, ...; those between are not converted.
        max_pixels: frames of more are not decoded.
        file: what the container reads, closed with it; None for an address.
    Raises:
        SourceError: it holds no video, or frames of more than `max_pixels`.
    """

    def __init__(
        self,
        av: Any,
        container: Any,
        name: str,
        *,
        every: int,
        max_pixels: int,
        file: BinaryIO | None = None,
    ) -> None:
        self._av = av
        self._container = container
        self._file = file
        self._every = every
        self._stream = video_stream(container, name)
        self._decoder = self._stream.codec_context
        self._prepare_decoder(name, max_pixels)
        self._promise = promise_of(container, self._stream)
        self._cut = file is not None and file.seekable() and is_cut_short(file)
        self._formats = frozenset(container.format.name.split(","))
        self._chunk_times = ChunkTimes() if "avi" in self._formats else None
        self._packets_seen = self._lost = 0
        self._packets_end_s = 0.0
        self._key_seen = False
        frames = self._promise.frames
        total = None if frames is None else -(-frames // every)
        super().__init__("video", name, total=total, fps=frame_rate(self._stream))

    def __iter__(self) -> Iterator[Frame]:
        clock = FrameClock(self._stream.time_base, self.fps)
        image_of = _Converter(self._av)
        shown = 0
        for frame in self._frames():
            index = shown + self._lost
            shown += 1
            time_s = clock.time_s(frame.pts, frame.duration or 0)
            if index % self._every == 0:
                yield Frame(image_of(frame), "bgr", self.name, index, time_s)
        self._cut = self._cut or self._is_short()
        self.end_s = clock.end_s(None if self._cut else self._promise.video_end_s)
        self._tell_missing(shown)
        self.close()

    def close(self) -> None:
        self._container.close()
        if self._file is not None:
            self._file.close()

    def _prepare_decoder(self, name: str, max_pixels: int) -> None:
        width, height = self._decoder.width, self._decoder.height
        if width * height > max_pixels:
            what = f"has frames of {width}x{height} pixels, more than max_pixels allows ({max_pixels})"
            raise SourceError(name, what, "scale it down")
        self._decoder.options = {"max_pixels": str(max_pixels)}
        # A thread for each of several frames is faster; a thread for each part of one takes less memory.
        self._decoder.thread_type = "AUTO" if width * height < _LARGE_FRAME else "SLICE"

    def _frames(self) -> Iterator[Any]:
        """Decoded frames in the order of display, without those that the decoder calls corrupt."""
        for packet in self._packets():
            yield from self._decode(packet)
        yield from self._decode(None)

    def _decode(self, packet: Any) -> Iterator[Any]:
        if packet is not None and self._chunk_times is not None:
            self._chunk_times.add(packet.pts)
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
            if packet.stream_index != self._stream.index:
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
        # In a broadcast the flag also says that another recording follows: there the decoder tells.
        return not packet.is_corrupt or "mpegts" in self._formats

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
        if start is not None and packet.time_base is not None:
            end_s = float((start + (packet.duration or 0)) * packet.time_base)
            self._packets_end_s = max(self._packets_end_s, end_s)

    def _is_short(self) -> bool:
        """True if fewer packets came than an index lists, or none up to the end that the header states."""
        promise = self._promise
        if promise.frames is not None and self._packets_seen < promise.frames:
            return True
        return promise.packets_end_s is not None and self._packets_end_s < promise.packets_end_s - _SHORT_S

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


class _Converter:
    """[H, W, 3] uint8 BGR of decoded frames: matrix and range as tagged, and turned as it is to be shown."""

    def __init__(self, av: Any) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> npt.NDArray[np.uint8]:
        shown = self._reformatter.reformat(frame, format="bgr24", interpolation="BICUBIC")
        image: npt.NDArray[np.uint8] = shown.to_ndarray()
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
