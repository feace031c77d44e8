"""Videos that are made as they are read, and count what they have given."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from patchcut import Frame
from patchcut.sources import Source


def walk(photo: np.ndarray, count: int, first: int = 0) -> list[np.ndarray]:
    """Frames of which each is another part of a photo."""
    return [
        np.ascontiguousarray(photo[5 * i : 5 * i + 160, 7 * i : 7 * i + 200])
        for i in range(first, first + count)
    ]


class Clip(Source):
    """A video, each frame after a pause, with what it has given; it may raise at its end, or not end."""

    def __init__(
        self,
        frames: Sequence[np.ndarray],
        *,
        name: str = "clip",
        pauses_s: Callable[[], float] = lambda: 0.0,
        error: Exception | None = None,
        gate: threading.Event | None = None,
    ) -> None:
        super().__init__("video", name)
        self._frames, self._pauses_s, self._error, self._gate = frames, pauses_s, error, gate
        self.given = self.closed = 0

    def __iter__(self) -> Iterator[Frame]:
        for index, frame in enumerate(self._frames):
            time.sleep(self._pauses_s())
            self.given += 1
            yield Frame(frame, "bgr", self.name, index, index / 10)
        if self._gate is not None:
            self._gate.wait(30)
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self.closed += 1
