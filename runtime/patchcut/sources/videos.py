"""Moving pictures: a video file, a camera, a network stream."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from patchcut.errors import SourceError
from patchcut.frames import Frame
from patchcut.opencv import load_cv2
from patchcut.sources.base import Source, SourceKind
from patchcut.sources.newest import NewestFrames

_VIDEOS = "mp4 m4v mov avi mkv webm mpg mpeg ts mts m2ts wmv flv 3gp ogv mjpeg mjpg"
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _VIDEOS.split())

# Reads that may fail in a row before the rest of a file is given up: ten seconds at 25 fps.
_MAX_GAP = 250
_OPEN_TIMEOUT_MS = 10_000
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
        # Absolute, so that FFmpeg takes no part of the name for a protocol.
        self._capture = _open_capture(str(path.resolve()))
        if not self._capture.isOpened():
            what = "cannot be opened as a video: damaged, cut short, or a codec that this OpenCV lacks"
            raise SourceError(path.name, what, "play it to check, or convert it: ffmpeg -i IN OUT.mp4")
        self._frames_in_file = _frame_count(self._capture)
        self._counted = path.suffix.lower() in _COUNTED_SUFFIXES
        self._every = every
        total = None if self._frames_in_file is None else -(-self._frames_in_file // every)
        super().__init__("video", path.name, total=total, fps=_frame_rate(self._capture))

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
        position_s = float(self._capture.get(_cap("POS_MSEC"))) / 1000
        if index == 0 or position_s > previous_s:
            return position_s
        # Some decoders lose the clock on their last, delayed frames and answer 0.
        return max(previous_s, index / self.fps if self.fps else 0.0)

    def _tell_missing(self, read: int, gaps: int, last_s: float) -> None:
        if read == 0:
            self.problems.append(_no_frame(self.name))
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


class LiveVideo(Source):
    """Frames of a camera or a network stream, until it ends; `time_s` counts from its opening.

    A live picture is read on a thread of its own and only its newest frame is kept: who is slower than the
    camera misses frames (`index` jumps, `dropped` counts them) and never lags behind. A recording behind a
    URL, which says how many frames it has, is read to its last frame like a file.

    Args:
        address: index of a camera, or a URL.
        every: yield frames 0, every, 2 * every, ...
    Raises:
        SourceError: "[camera 0] cannot be opened; ...".
    """

    def __init__(self, address: int | str, *, every: int = 1) -> None:
        kind: SourceKind = "camera" if isinstance(address, int) else "stream"
        name = f"camera {address}" if isinstance(address, int) else without_password(address)
        self._capture = _open_camera(address) if isinstance(address, int) else _open_stream(address)
        if not self._capture.isOpened():
            raise SourceError(name, "cannot be opened", _LIVE_REMEDY[kind])
        self._frames_in_file = _frame_count(self._capture) if kind == "stream" else None
        self._every = every
        self._start_s = time.monotonic()
        self._newest: NewestFrames | None = None
        total = None if self._frames_in_file is None else -(-self._frames_in_file // every)
        super().__init__(kind, name, total=total, fps=_frame_rate(self._capture))
        self.live = self._frames_in_file is None

    def __iter__(self) -> Iterator[Frame]:
        if not self.live:
            yield from self._read()
            return
        self._newest = NewestFrames(self._read())
        try:
            yield from self._newest
        finally:
            self._newest.stop()

    @property
    def dropped(self) -> int:
        return 0 if self._newest is None else self._newest.dropped

    def close(self) -> None:
        if self._newest is None:
            self._capture.release()
        else:
            self._newest.stop()  # its thread releases the capture: nobody else may while it reads

    def _read(self) -> Generator[Frame, None, None]:
        """Every frame in its turn; releases the capture at the end."""
        index = 0
        try:
            while self._capture.grab():
                if index % self._every == 0:
                    ok, image = self._capture.retrieve()
                    if not ok:
                        break
                    yield Frame(image, "bgr", self.name, index, time.monotonic() - self._start_s)
                index += 1
            self._tell_end(index)
        finally:
            self._capture.release()

    def _tell_end(self, frames: int) -> None:
        if frames == 0:
            self.problems.append(_no_frame(self.name))
        elif self._frames_in_file is None or frames < self._frames_in_file:
            what = f"stopped sending after {frames} frames"
            self.problems.append(str(SourceError(self.name, what, _LIVE_REMEDY[self.kind])))


_LIVE_REMEDY: dict[SourceKind, str] = {
    "camera": "check that it is plugged in, that no other program holds it, and its rights (group video)",
    "stream": "check the address, the network and the password",
}


def without_password(url: str) -> str:
    """`url` with the password of "scheme://user:password@host" left out."""
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1@", url)


def _no_frame(name: str) -> str:
    return str(SourceError(name, "opened, but no frame could be decoded", "play it elsewhere to check"))


def _cap(name: str) -> int:
    return int(getattr(load_cv2(), f"CAP_PROP_{name}"))


def _open_capture(address: int | str) -> Any:
    return load_cv2().VideoCapture(address)


def _open_camera(index: int) -> Any:
    capture = _open_capture(index)
    capture.set(_cap("BUFFERSIZE"), 1)  # the newest frame rather than the oldest waiting
    return capture


def _open_stream(url: str) -> Any:
    cv2 = load_cv2()
    limits = [_cap("OPEN_TIMEOUT_MSEC"), _OPEN_TIMEOUT_MS, _cap("READ_TIMEOUT_MSEC"), _OPEN_TIMEOUT_MS]
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits)
    return capture if capture.isOpened() else _open_capture(url)


def _frame_count(capture: Any) -> int | None:
    count = capture.get(_cap("FRAME_COUNT"))
    return int(count) if math.isfinite(count) and 0 < count < 1e9 else None


def _frame_rate(capture: Any) -> float | None:
    rate = float(capture.get(_cap("FPS")))
    return rate if math.isfinite(rate) and 0 < rate <= 1000 else None
