"""Video files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from patchcut.errors import SourceError
from patchcut.frames import Frame
from patchcut.sources.base import Source
from patchcut.sources.captures import frame_count, frame_rate, no_frame, open_capture, property_id

_VIDEOS = "mp4 m4v mov avi mkv webm mpg mpeg ts mts m2ts wmv flv 3gp ogv mjpeg mjpg"
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _VIDEOS.split())

# Reads that may fail in a row before the rest of a file is given up: ten seconds at 25 fps.
_MAX_GAP = 250
# These write down how many frames they hold; elsewhere OpenCV guesses from duration and rate.
_COUNTED = "mp4 m4v mov avi 3gp"
_COUNTED_SUFFIXES = frozenset(f".{suffix}" for suffix in _COUNTED.split())


class VideoFile(Source):
    """Frames of a video file; those that do not decode are skipped, and counted in `problems`.

    Args:
        path: the file.
        every: yield frames 0, every, 2 * every, ...; those between are not converted.
    Raises:
        SourceError: "[cars.mp4] cannot be opened as a video; ...".
    """

    def __init__(self, path: Path, *, every: int = 1) -> None:
        if path.stat().st_size == 0:
            raise SourceError(path.name, "is empty (0 bytes)", "copy or download it again")
        # Absolute, so that FFmpeg takes nothing in the name for a protocol.
        self._capture = open_capture(str(path.resolve()))
        if not self._capture.isOpened():
            what = "cannot be opened as a video: damaged, cut short, or a codec that this OpenCV lacks"
            raise SourceError(path.name, what, "play it to check, or convert it: ffmpeg -i IN OUT.mp4")
        self._frames_in_file = frame_count(self._capture)
        self._counted = path.suffix.lower() in _COUNTED_SUFFIXES
        self._every = every
        total = None if self._frames_in_file is None else -(-self._frames_in_file // every)
        super().__init__("video", path.name, total=total, fps=frame_rate(self._capture))

    def __iter__(self) -> Iterator[Frame]:
        index = read = gaps = misses = 0
        time_s = 0.0
        while not self._ended(index, misses):
            ok, image = self._read(wanted=index % self._every == 0)
            if ok:
                read, gaps, misses = read + 1, gaps + misses, 0
                time_s = self._time_s(index, time_s)
                if image is not None:
                    yield Frame(image, "bgr", self.name, index, time_s)
            else:
                misses += 1
            index += 1
        self._tell_missing(read, gaps, time_s)

    def close(self) -> None:
        self._capture.release()

    def _read(self, wanted: bool) -> tuple[bool, Any]:
        if not wanted:
            return self._capture.grab(), None
        ok, image = self._capture.read()
        return ok, image

    def _ended(self, index: int, misses: int) -> bool:
        """True where nothing more can come: a failed read inside a file may be followed by good frames."""
        if misses == 0:
            return False
        return self._frames_in_file is None or index >= self._frames_in_file or misses >= _MAX_GAP

    def _time_s(self, index: int, previous_s: float) -> float:
        position_s = float(self._capture.get(property_id("POS_MSEC"))) / 1000
        if index == 0 or position_s > previous_s:
            return position_s
        # Some decoders lose the clock on their last, delayed frames and answer 0.
        return max(previous_s, index / self.fps if self.fps else 0.0)

    def _tell_missing(self, read: int, gaps: int, last_s: float) -> None:
        if read == 0:
            self.problems.append(no_frame(self.name))
        elif gaps or self._is_short(read, last_s):
            total = self._frames_in_file or read + gaps
            what = f"decoded {read} of {total} frames: the file is damaged or cut short"
            self.problems.append(str(SourceError(self.name, what, "copy or download it again")))

    def _is_short(self, read: int, last_s: float) -> bool:
        """True if the file promised clearly more; a few frames are lost to edit lists and rounding."""
        total = self._frames_in_file
        if total is None:
            return False
        if not self._counted and self.fps:
            read = round(last_s * self.fps) + 1
        return total - read > max(2, total // 100)
