"""A video that PyAV writes, each frame with its own time."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut.output.encoder import NoEncoder
from patchcut.output.sound import Sound

# The rates of film, television and screens, their 1000/1001, milliseconds and 1/90,000 s are whole numbers
# of 1/360,000 s.
_TICKS = 360_000
# What FFmpeg says of a packet that a container does not take; a ValueError has no number.
_NOT_TAKEN = (None, errno.EINVAL, errno.EPERM)
# MP4 takes no longer sample: 1 h 39 min.
_LONGEST_TICKS = 2**31 - 1
# FFmpeg's conversions read whole vectors, also at the end of the last row.
_READ_BEYOND = 64


@dataclass(frozen=True)
class Codec:
    """An encoder of FFmpeg.

    Attributes:
        name: FFmpeg's.
        odd_sizes: whether it takes a frame of 191x143: H.264 halves the colour planes and must have it even.
        ticks: a second, at most what the codec takes.
        options: FFmpeg's.
    """

    name: str
    odd_sizes: bool
    ticks: int = _TICKS
    options: dict[str, str] = field(default_factory=dict)


# Without B-frames, so that frames are stored in the order of display and each one's duration is its own.
# What is encoded takes cycles from what segments: on overlays of a street (vtest.avi) the fastest preset with
# these takes 5.2 ms of CPU a frame and 13.6 kB at 42.7 dB of luma, "veryfast" 9.2 ms and 11.2 kB. At equal
# quality the fastest preset alone takes 4.3 ms and 18 kB.
_X264 = {
    "crf": "20",
    "preset": "ultrafast",
    "bf": "0",
    "deblock": "0:0",
    "8x8dct": "1",
    "partitions": "i8x8,i4x4",
    "aq-mode": "1",
    "mbtree": "1",
    "rc-lookahead": "10",
}
_VP9 = {"crf": "24", "b": "0", "deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "row-mt": "1"}

# What browsers play, then what else there may be; LGPL builds have no libx264.
CODECS = (
    Codec("libx264", odd_sizes=False, options=_X264),
    Codec("libopenh264", odd_sizes=False, options={"b": "4M"}),
    Codec("libvpx-vp9", odd_sizes=True, options=_VP9),
    Codec("mpeg4", odd_sizes=True, ticks=60_000, options={"qscale": "3", "flags": "+qscale"}),
)


class AvEncoder:
    """Writes one MP4.

    Args:
        av: the module.
        codec: how frames are encoded.
        size_wh: size of every frame.
        fps: frames a second, roughly; frames have their own times.
        path: the file, written over if it is there.
        target: what it is to be called.
        sound: what is copied into it; None leaves it without.
    Raises:
        NoEncoder: it does not take frames of that size, or not that sound.
        OSError: the file cannot be written.
    """

    def __init__(
        self,
        av: Any,
        codec: Codec,
        size_wh: tuple[int, int],
        fps: float,
        path: Path,
        target: Path,
        *,
        sound: Sound | None = None,
    ) -> None:
        from av.video.reformatter import VideoReformatter

        self._av = av
        self._ticks = codec.ticks
        self._durations: dict[int, int] = {}
        self._next_pts = 0
        self._reformatter = VideoReformatter()
        # One frame for all images: making it anew costs 2 ms of 768x576, most of it for fresh memory.
        width, height = size_wh
        memory = np.zeros(height * width * 3 + _READ_BEYOND, np.uint8)
        self._image = memory[:-_READ_BEYOND].reshape(height, width, 3)
        self._frame = av.VideoFrame.from_numpy_buffer(self._image, format="bgr24")
        # Opened here: FFmpeg takes no name that is not UTF-8.
        self._file = path.open("wb")
        try:
            options = {"movie_timescale": str(_TICKS)}
            self._container = av.open(self._file, "w", format="mp4", container_options=options)
            self._stream = self._add_stream(codec, size_wh, fps)
            self._sound, self._sound_stream = sound, self._add_sound(sound)
            if sound is not None:  # now, so that sound that MP4 does not take costs no video
                self._container.start_encoding()
        except (av.error.FFmpegError, ValueError) as error:
            self._file.close()
            raise NoEncoder from error

    @property
    def takes_sound(self) -> bool:
        """Whether sound is copied into it."""
        return self._sound is not None

    def append(self, image: npt.NDArray[np.uint8], start_s: float, duration_s: float) -> None:
        """Appends [H, W, 3] uint8 BGR, shown from a second on for some seconds.

        Raises:
            OSError: the file cannot be written.
        """
        pts = max(round(start_s * self._ticks), self._next_pts)
        end = round((start_s + duration_s) * self._ticks)
        duration = min(max(end - pts, 1), _LONGEST_TICKS)
        np.copyto(self._image, image)
        frame = self._reformatter.reformat(self._frame, format="yuv420p")
        frame.pts, frame.time_base = pts, Fraction(1, self._ticks)
        self._durations[pts] = duration
        self._next_pts = pts + duration
        self._encode(frame)
        self._copy_sound(self._next_pts / self._ticks)

    def finish(self) -> None:
        """Writes what is left, and closes the file.

        Raises:
            OSError: as `append`.
        """
        try:
            self._encode(None)
            with self._os_errors():
                self._container.close()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Closes the file as it is."""
        with contextlib.suppress(self._av.error.FFmpegError, OSError):
            self._container.close()
        with contextlib.suppress(OSError):
            self._file.close()

    def _add_stream(self, codec: Codec, size_wh: tuple[int, int], fps: float) -> Any:
        rate = Fraction(fps).limit_denominator(1001)
        stream = self._container.add_stream(codec.name, rate=rate, options=dict(codec.options))
        stream.width, stream.height = size_wh
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = stream.time_base = Fraction(1, codec.ticks)
        # What the conversion from RGB makes, said so that players need not guess it from the size.
        context.colorspace, context.color_range = 5, 1
        context.open()
        return stream

    def _add_sound(self, sound: Sound | None) -> Any:
        if sound is None:
            return None
        if sound.codec not in self._container.supported_codecs:
            raise NoEncoder
        return self._container.add_stream_from_template(sound.template)

    def _copy_sound(self, end_s: float) -> None:
        """What comes before a second of the video; a packet that MP4 does not take ends it."""
        if self._sound is None:
            return
        for packet in self._sound.until(end_s):
            packet.stream = self._sound_stream
            try:
                with self._os_errors():
                    self._container.mux(packet)
            except (OSError, ValueError) as error:
                if getattr(error, "errno", None) not in _NOT_TAKEN:
                    raise
                self._sound.lose(f"MP4 does not take all of its {self._sound.codec}")

    def _encode(self, frame: Any) -> None:
        with self._os_errors():
            for packet in self._stream.encode(frame):
                packet.duration = self._durations.pop(packet.pts, packet.duration)
                self._container.mux(packet)

    @contextlib.contextmanager
    def _os_errors(self) -> Iterator[None]:
        try:
            yield
        except self._av.error.FFmpegError as error:
            raise OSError(error.errno, error.strerror) from error
