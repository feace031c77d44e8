"""Cameras and network streams."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

from patchcut.ahead import Ahead, waiting
from patchcut.errors import SourceError
from patchcut.frames import Frame
from patchcut.opencv import load_cv2
from patchcut.sources.base import Source, SourceKind
from patchcut.sources.captures import frame_count, frame_rate, no_frame, open_capture, property_id

_TIMEOUT_MS = 10_000
# A live source that stops is opened again after these pauses, until it sends or they are over.
_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
# More than OpenCV takes to give an address up: to open it, and to read from it.
_SILENCE_S = 30.0
_MOST_CAMERAS = 999

_PORT = re.compile(r":\d*$")
# Many cameras take their password in the path or the query.
_SECRET = re.compile(
    r"((?:pass|passwd|password|pwd|token|secret|auth|key|sig|signature)=)[^&_/#]*", re.IGNORECASE
)

_LIVE_REMEDY: dict[SourceKind, str] = {
    "camera": "check that it is plugged in, that no other program holds it, and its rights (group video)",
    "stream": "check the address, the network and the password",
}


class LiveVideo(Source):
    """Frames of a camera or a network stream, until it ends; `time_s` of a live one counts from its opening.

    A live picture is read on a thread of its own and only its newest frame is kept: a reader slower than the
    camera misses frames (`index` jumps, `dropped` counts them) and never lags. One that stops sending is
    opened again after growing pauses, 15 s in all, and `problems` tells. A recording at a URL, which says how
    many frames it has, is read to its last frame like a file; it comes here where PyAV is missing.

    Args:
        address: index of a camera, or a URL.
        every: yield frames 0, every, 2 * every, ...
    Raises:
        SourceError: "[camera 0] cannot be opened; ...".
    """

    def __init__(self, address: int | str, *, every: int = 1) -> None:
        kind: SourceKind = "camera" if isinstance(address, int) else "stream"
        name = f"camera {address}" if isinstance(address, int) else without_password(address)
        _check_address(address, name)
        self._address = address
        self._capture = self._open()
        if not self._capture.isOpened():
            raise SourceError(name, "cannot be opened", _LIVE_REMEDY[kind])
        self._frames_in_file = frame_count(self._capture) if kind == "stream" else None
        self._start_s = time.monotonic()
        self._newest: Ahead[Frame] | None = None
        total = None if self._frames_in_file is None else -(-self._frames_in_file // every)
        super().__init__(kind, name, total=total, fps=frame_rate(self._capture))
        self.every = every
        self.live = self.own_pace = self._frames_in_file is None
        self.silence_s = _SILENCE_S if self.live else None

    def __iter__(self) -> Iterator[Frame]:
        if not self.live:
            yield from (frame for frame in self.in_turn() if frame is not None)
            return
        self._newest = Ahead(
            self.in_turn(),
            name="patchcut-live",
            newest=True,
            silence_s=self.silence_s,
            on_silence=self.tell_silence,
        )
        try:
            for frame in self._newest:
                self.dropped = self._newest.dropped
                yield frame
        finally:
            self._newest.stop()
            self._newest.join()

    def close(self) -> None:
        if self._newest is None:
            self._capture.release()
        else:
            self._newest.stop()  # its thread releases the capture: nobody else may while it reads
            self._newest.join()

    def in_turn(self) -> Iterator[Frame | None]:
        """Every frame in its turn; releases the capture at the end."""
        index, pauses = 0, iter(_PAUSES_S)
        try:
            while True:
                first = index
                for frame in self._sent(first):
                    index += 1
                    yield frame
                if index > first:
                    pauses = iter(_PAUSES_S)
                pause_s = next(pauses, None)
                if not self.live or index == 0 or pause_s is None:
                    break
                self._capture.release()  # a camera can be opened once
                yield from waiting(pause_s)
                self._capture = self._open()
            self._tell_end(index)
        finally:
            self._capture.release()

    def _sent(self, first: int) -> Iterator[Frame | None]:
        """What the capture sends until it stops, from that index on; None in place of what is not wanted."""
        index = first
        while self._capture.grab():
            frame = None
            if index % self.every == 0:
                ok, image = self._capture.retrieve()
                if not ok:
                    return
                frame = Frame(image, "bgr", self.name, index, self._time_s())
            if index == first > 0:
                self._tell_stop(f"stopped sending after {index} frames, and was opened again")
            yield frame
            index += 1

    def _open(self) -> Any:
        """The capture of the address; it may have failed to open."""
        return _open_camera(self._address) if isinstance(self._address, int) else _open_stream(self._address)

    def _time_s(self) -> float:
        if self.live:
            return time.monotonic() - self._start_s
        return float(self._capture.get(property_id("POS_MSEC"))) / 1000

    def _tell_end(self, frames: int) -> None:
        if frames == 0:
            self.problems.append(no_frame(self.name))
        elif self._frames_in_file is None or frames < self._frames_in_file:
            self._tell_stop(f"stopped sending after {frames} frames")

    def _tell_stop(self, what: str) -> None:
        self.problems.append(str(SourceError(self.name, what, _LIVE_REMEDY[self.kind])))


def without_password(url: str) -> str:
    """`url` without the password of "scheme://user:password@host", and without those in its path and query.

    A password that should have been written with %40 and %2F for its @ and / is left out too.
    """
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    if "@" not in authority and ":" in authority and not _PORT.search(authority) and "@" in path:
        before, _, after = rest.rpartition("@")  # a slash within the password
        host, slash, path = after.partition("/")
        authority = f"{before}@{host}"
    login, at, host = authority.rpartition("@")
    shown = f"{scheme}{separator}{login.partition(':')[0]}{at}{host}{slash}{path}"
    return _SECRET.sub(r"\1...", shown)


def _check_address(address: int | str, name: str) -> None:
    """Refuses what OpenCV crashes on, or answers in its own words."""
    if isinstance(address, int) and not 0 <= address <= _MOST_CAMERAS:
        raise SourceError(
            name, f"cannot be opened: cameras are counted from 0 to {_MOST_CAMERAS}", "name 0 for the first"
        )
    if isinstance(address, str):
        try:
            address.encode()
        except UnicodeEncodeError as error:
            remedy = "write them as %XX, two hexadecimal digits a byte"
            raise SourceError(name, "holds bytes that are no UTF-8", remedy) from error


def _open_camera(index: int) -> Any:
    capture = open_capture(index)
    capture.set(property_id("BUFFERSIZE"), 1)  # the newest frame rather than the oldest waiting
    return capture


def _open_stream(url: str) -> Any:
    cv2 = load_cv2()
    limits = [property_id("OPEN_TIMEOUT_MSEC"), _TIMEOUT_MS, property_id("READ_TIMEOUT_MSEC"), _TIMEOUT_MS]
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits)
    return capture if capture.isOpened() else open_capture(url)
