"""A robot's loop: every 50 ms the newest mask, or a stop where the newest is too old.

python robot_loop.py 0                        # a camera
python robot_loop.py rtsp://robot.local/eye
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Generator

import patchcut
from patchcut import Result

PERIOD_S = 0.05
DEADLINE_S = 0.3


class Newest:
    """Takes results on a thread of its own, and keeps the last one and when its frame came."""

    def __init__(self, results: Generator[Result, None, None]) -> None:
        self._lock = threading.Lock()
        self._last: tuple[Result, float] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._take, args=(results,), daemon=True)
        self._thread.start()

    def _take(self, results: Generator[Result, None, None]) -> None:
        for result in results:
            stages_ms = sum(ms for stage, ms in result.timings_ms.items() if stage != "read")
            with self._lock:
                self._last = result, time.monotonic() - stages_ms / 1000
            if self._stop.is_set():
                break
        results.close()  # on the thread that iterates it

    @property
    def ended(self) -> bool:
        """Whether the source gives nothing more."""
        return not self._thread.is_alive()

    def get(self) -> tuple[Result | None, float]:
        """The newest result and the age of its frame in seconds."""
        with self._lock:
            last = self._last
        return (None, float("inf")) if last is None else (last[0], time.monotonic() - last[1])

    def stop(self) -> None:
        """Has the thread end with its next result."""
        self._stop.set()
        self._thread.join(1.0)


def run(source: object, act: Callable[[Result | None], None], bundle: str = "default") -> None:
    """Calls `act` every 50 ms, with None where no frame is young enough to act on."""
    newest = Newest(patchcut.load(bundle=bundle).stream(source, mode="live"))
    tick_s = time.monotonic()
    try:
        while not newest.ended:
            result, age_s = newest.get()
            act(result if age_s <= DEADLINE_S else None)
            tick_s = max(tick_s + PERIOD_S, time.monotonic())  # a tick that was missed is not made up for
            time.sleep(max(tick_s - time.monotonic(), 0.0))
    finally:
        newest.stop()


def steer(result: Result | None) -> None:
    """Where to go: towards the middle of the best object."""
    box = None if result is None else result.best_box
    if result is None or box is None:
        print("stop")
        return
    turn = (box[0] + box[2]) / result.label_map.shape[1] - 1
    print(f"turn {turn:+.2f}, {result.foreground.mean():.0%} of the view is object")


if __name__ == "__main__":
    run(sys.argv[1] if len(sys.argv) > 1 else "0", steer)
