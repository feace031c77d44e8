"""Containers that PyAV opens: which stream is the video, what the file promises, what is wrong with it."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any, BinaryIO

from patchcut.errors import COPY_AGAIN, SourceError

# Four times a frame of 8K. A decoder keeps a dozen frames: this bounds what a hostile header makes it take.
MAX_FRAME_PIXELS = 2**27
CHECK_ADDRESS = "check the address, the network and the password"

NETWORK_TIMEOUT_S = 10.0
# A call into Python for each piece: 32 KiB, PyAV's own, costs 5 % of the time of a 1080p file.
_READ_BYTES = 1 << 18

# FFmpeg's AV_DISPOSITION_*: a cover in a file of music, thumbnails of chapters, a single picture.
_ATTACHED_PIC, _TIMED_THUMBNAILS, _STILL_IMAGE = 1 << 10, 1 << 11, 1 << 20
_DEFAULT = 1
_UNKNOWN_FRAMES = 1 << 30
_NO_VIDEO = _ATTACHED_PIC | _TIMED_THUMBNAILS | _STILL_IMAGE


@dataclass(frozen=True)
class Promise:
    """What a container says of its video before it is read.

    Attributes:
        frames: how many it shows by an index that counts them; None where it has no such index.
        packets_end_s: when its last packet of any stream ends; None where it does not say.
        video_end_s: when its last frame ends; None where it does not say.
    """

    frames: int | None = None
    packets_end_s: float | None = None
    video_end_s: float | None = None


def open_file(av: Any, file: BinaryIO, name: str) -> Any:
    """The container in an open file or pipe, which may open no other file and no connection.

    Raises:
        SourceError: "[x.mp4] cannot be opened as a video: ...".
    """
    options = {"protocol_whitelist": "none"}
    try:
        return av.open(file, container_options=options, buffer_size=_READ_BYTES, metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise SourceError(name, *_why_not_opened(file)) from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # A damaged file names a place before its begin
        raise SourceError(name, *_why_not_opened(file)) from error


def open_url(av: Any, url: str, name: str) -> Any:
    """The container at an address; a server that does not answer for ten seconds is given up.

    Raises:
        SourceError: "[http://host/x.mp4] cannot be opened: Server returned 404 Not Found; ...".
    """
    try:
        return av.open(url, timeout=NETWORK_TIMEOUT_S, metadata_errors="replace")
    except av.error.ExitError:
        what = f"did not answer within {NETWORK_TIMEOUT_S:g} s"
    except av.error.FFmpegError as error:
        what = f"cannot be opened: {error.strerror}"
    except (OSError, ValueError):  # text that is no address
        what = "cannot be opened"
    raise SourceError(name, what, CHECK_ADDRESS)  # not from it: FFmpeg's words hold the password


def video_stream(container: Any, name: str) -> Any:
    """The stream that a player would show: no cover picture, no single picture beside a video.

    Raises:
        SourceError: there is no video, or no decoder for it.
    """
    videos = [stream for stream in container.streams.video if not _disposition(stream) & _NO_VIDEO]
    if not videos:
        held = "sound" if container.streams.audio else "data"
        what = f"holds {held}, but no video"
        raise SourceError(name, what, "name a photo or a video")
    best = container.streams.best("video")
    chosen = max(videos, key=lambda stream: _preference(stream, best))
    if chosen.codec_context is None:
        what = "holds a video of a codec that FFmpeg does not know"
        raise SourceError(name, what, "convert it where it plays: ffmpeg -i IN -c:v libx264 OUT.mp4")
    return chosen


def _disposition(stream: Any) -> int:
    return int(getattr(stream.disposition, "value", stream.disposition))  # an enum before PyAV 18


def _preference(stream: Any, best: Any) -> tuple[bool, ...]:
    default = bool(_disposition(stream) & _DEFAULT)
    return stream.codec_context is not None, stream.frames != 1, default, stream is best


def frame_rate(stream: Any, frames: int | None) -> float | None:
    """Frames a second: the mean where the container knows it, None where nobody does.

    Args:
        frames: how many there are, where that is known.
    """
    mean = None
    if frames and stream.duration and stream.duration > 0:
        mean = frames / (stream.duration * stream.time_base)
    for rate in (mean, stream.average_rate, stream.guessed_rate):
        if rate and 0 < rate <= 1000:
            return float(rate)
    return None


def promise_of(container: Any, stream: Any, *, seekable: bool, cut: bool) -> Promise:
    """What the container promises of `stream`.

    Args:
        seekable: an index at the end of the file could be read.
        cut: that end is missing.
    """
    formats = container.format.name.split(",")
    if "mov" in formats:
        return Promise(frames=_shown_samples(stream), video_end_s=_track_end_s(stream))
    if "avi" in formats:
        return Promise(frames=_avi_frames(stream, cut) if seekable else None)
    if "matroska" in formats or "flv" in formats:
        end_s = container.duration / 1e6 if container.duration and container.duration > 0 else None
        alone = len(container.streams) == 1
        return Promise(packets_end_s=end_s, video_end_s=end_s if alone else _tagged_end_s(stream))
    return Promise()


def _track_end_s(stream: Any) -> float | None:
    """The end of the last sample; not its packet's, whose duration a parser may guess from the rate."""
    if stream.start_time is None or not stream.duration:
        return None
    return float((stream.start_time + stream.duration) * stream.time_base)


def _shown_samples(stream: Any) -> int | None:
    """Samples in the index of an MP4 or MOV that its edit list shows; None for fragments."""
    if not stream.frames:
        return None
    return sum(1 for entry in stream.index_entries if not entry.is_discard)


def _avi_frames(stream: Any, cut: bool) -> int | None:
    """Entries of an AVI's index; of one that is missing the header's count.

    The header also counts empty chunks, which let the frame before them stay. What was written into a pipe
    has no index, and a count that stands for none.
    """
    if stream.frames >= _UNKNOWN_FRAMES:
        return None
    if cut:
        return int(stream.frames) or None
    entries = len(stream.index_entries)
    return entries if entries > 1 else None


def _tagged_end_s(stream: Any) -> float | None:
    """The end of one of several tracks, which Matroska keeps as a tag "00:00:03.270000000"."""
    fields = stream.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = map(float, fields)
    except ValueError:
        return None
    return 3600 * hours + 60 * minutes + seconds


def _why_not_opened(file: BinaryIO) -> tuple[str, str]:
    """What is wrong with a file that FFmpeg does not open, and what to do."""
    head = b""
    if file.seekable():
        file.seek(0)
        head = file.read(12)
    if head[4:8] == b"ftyp":
        what = "cannot be opened as a video: its index of frames (moov) is missing or damaged"
        return f"{what}, as when it is cut short or was never finished", COPY_AGAIN
    what = "cannot be opened as a video: damaged, cut short, or of a format that FFmpeg does not know"
    return what, "play it to check, or convert it: ffmpeg -i IN OUT.mp4"
