"""Cameras and network streams."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterator
from typing import Any

from patchcut.errors import SourceError
from patchcut.frames import Frame
from patchcut.opencv import load_cv2
from patchcut.sources.base import Source, SourceKind
from patchcut.sources.captures import frame_count, frame_rate, no_frame, open_capture, property_id
from patchcut.sources.newest import NewestFrames

_TIMEOUT_MS = 10_000
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
    camera misses frames (`index` jumps, `dropped` counts them) and never lags. A recording at a URL, which
    says how many frames it has, is read to its last frame like a file; it comes here where PyAV is missing.

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
        self._capture = _open_camera(address) if isinstance(address, int) else _open_stream(address)
        if not self._capture.isOpened():
            raise SourceError(name, "cannot be opened", _LIVE_REMEDY[kind])
        self._frames_in_file = frame_count(self._capture) if kind == "stream" else None
        self._start_s = time.monotonic()
        self._newest: NewestFrames | None = None
        total = None if self._frames_in_file is None else -(-self._frames_in_file // every)
        super().__init__(kind, name, total=total, fps=frame_rate(self._capture))
        self.every = every
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
                if index % self.every == 0:
                    ok, image = self._capture.retrieve()
                    if not ok:
                        break
                    yield Frame(image, "bgr", self.name, index, self._time_s())
                index += 1
            self._tell_end(index)
        finally:
            self._capture.release()

    def _time_s(self) -> float:
        if self.live:
            return time.monotonic() - self._start_s
        return float(self._capture.get(property_id("POS_MSEC"))) / 1000

    def _tell_end(self, frames: int) -> None:
        if frames == 0:
            self.problems.append(no_frame(self.name))
        elif self._frames_in_file is None or frames < self._frames_in_file:
            what = f"stopped sending after {frames} frames"
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
