"""The newest frames of a live source; those that are overtaken while one is worked on are dropped."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator

from patchcut.frames import Frame

# A camera answers within a frame; a network stream that has died may take its whole timeout.
_STOP_S = 2.0


class NewestFrames:
    """Runs a generator of frames on a thread of its own and hands out the newest, each at most once.

    Args:
        frames: what the thread runs; closed there when it ends or is stopped.
    Attributes:
        dropped: frames that a newer one overtook before they were taken.
    """

    def __init__(self, frames: Generator[Frame, None, None]) -> None:
        self.dropped = 0
        self._frames = frames
        self._newest: Frame | None = None
        self._error: BaseException | None = None
        self._ended = self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="patchcut-live", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self._take()) is not None:
            yield frame

    def stop(self) -> None:
        """Ends the thread; one that is stuck in a read ends by itself after it."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(_STOP_S)

    def _take(self) -> Frame | None:
        """The newest frame not taken yet, waited for; None at the end. Raises what the thread raised."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._ended or self._stopped)
            frame, self._newest = self._newest, None
            if frame is None and self._error is not None:
                raise self._error
            return None if self._stopped else frame

    def _read(self) -> None:
        try:
            for frame in self._frames:
                if self._put(frame):
                    return
        except BaseException as error:  # raised again where frames are taken
            self._error = error
        finally:
            self._frames.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, frame: Frame) -> bool:
        """True if nobody wants more."""
        with self._changed:
            self.dropped += self._newest is not None and not self._stopped
            self._newest = frame
            self._changed.notify_all()
            return self._stopped
