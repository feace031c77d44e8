"""When each frame of a recording is shown, and when its last one ends."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from fractions import Fraction
from statistics import median

# Where time runs back by more, another recording was appended; by less, a frame's time is out of order.
_NEW_RECORDING_S = 1.0
_NEW_RECORDING_FRAMES = 8
_DEFAULT_FPS = 25.0
_INTERVALS = 9
_SHORTEST_S = 1 / 250
# Frames that a decoder holds back: for their order, and one for each of its threads.
_MOST_WAITING = 16 + 16


class FrameClock:
    """Presentation times in seconds, as the container says them, made to increase where it fails to.

    Args:
        time_base: seconds of one tick.
        fps: the recording's rate, for frames without a time; 25 where None, as FFmpeg has it.
    """

    def __init__(self, time_base: Fraction, fps: float | None) -> None:
        self._time_base = time_base
        self._interval_s = 1 / (fps or _DEFAULT_FPS)
        self._last_s: float | None = None
        self._last_duration_s = 0.0
        self._offset_s = 0.0
        self._untimed_after_s = 0.0
        self._untimed = 0
        self._intervals_s: deque[float] = deque(maxlen=_INTERVALS)

    def time_s(self, pts: int | None, duration: int = 0) -> float:
        """The time of the next frame in the order of display: pts * time base, unless time runs back.

        Args:
            pts: ticks; None where the container has no time for the frame.
            duration: ticks; 0 where unknown.
        """
        time_s = self._untimed_s() if pts is None else self._timed_s(pts)
        if self._last_s is not None:
            self._intervals_s.append(time_s - self._last_s)
        self._last_s = time_s
        self._last_duration_s = self._seconds(duration)
        return time_s

    def end_s(self, promised_s: Iterable[float | None] = ()) -> float | None:
        """When the last frame ends, None where there was none.

        Args:
            promised_s: where the container says that this video ends; the first that can be is taken.
        """
        if self._last_s is None:
            return None
        for end_s in promised_s:
            if end_s is not None and end_s > self._last_s:
                return end_s
        return self._last_s + self._duration_s()

    def _untimed_s(self) -> float:
        """Frames without a time follow one another at the recording's rate."""
        if self._last_s is None:
            self._untimed_after_s = -self._interval_s
        elif self._untimed == 0:
            self._untimed_after_s = self._last_s
        self._untimed += 1
        return self._untimed_after_s + self._untimed * self._interval_s

    def _timed_s(self, pts: int) -> float:
        self._untimed = 0
        time_s = self._seconds(pts) + self._offset_s
        if self._last_s is None or time_s > self._last_s:
            return time_s
        if self._last_s - time_s > min(_NEW_RECORDING_S, _NEW_RECORDING_FRAMES * self._usual_s()):
            end_s = self._last_s + self._duration_s()
            self._offset_s += end_s - time_s
            return end_s
        return self._last_s + self._duration_s() / 2  # the next frame's own time is left free

    def _seconds(self, ticks: int) -> float:
        return ticks * self._time_base.numerator / self._time_base.denominator

    def _usual_s(self) -> float:
        return median(self._intervals_s) if self._intervals_s else self._interval_s

    def _duration_s(self) -> float:
        """How long the last frame is shown.

        A container without durations gets them from a guessed rate, "1000 fps" for a browser's recording:
        one that no camera has, and far shorter than the frames before it, is not believed.
        """
        usual_s = self._usual_s()
        believed = self._last_duration_s > min(usual_s / 4, _SHORTEST_S)
        return self._last_duration_s if believed else usual_s


class ChunkTimes:
    """Times of an AVI's frames, in the order of display.

    An AVI has a time for each chunk and none for a frame: with B-frames FFmpeg gives frames each other's
    times. The chunks' times are handed out in increasing order instead, from the first frame's own on: those
    before it are as many as the decoder holds back.

    Examples:
        >>> times = patchcut.sources.frame_clock.ChunkTimes()
        >>> for chunk in range(4):
        ...     times.add(chunk)
        >>> [times.take(frame) for frame in (1, 4, 2, 3)]
        [1, 2, 3, 4]
    """

    def __init__(self) -> None:
        self._waiting: list[int] = []
        self._begun = False
        self._last: int | None = None
        self._step = 1

    def add(self, dts: int | None) -> None:
        """A chunk goes into the decoder."""
        if dts is not None:
            heapq.heappush(self._waiting, dts)
        if len(self._waiting) > _MOST_WAITING:  # one of them gave no frame
            heapq.heappop(self._waiting)

    def take(self, pts: int | None) -> int | None:
        """The time of the frame that comes out, or is lost.

        Args:
            pts: what FFmpeg takes for it.
        """
        if not self._begun and pts is not None:
            self._begun = True
            while len(self._waiting) > 1 and self._waiting[0] < pts:
                heapq.heappop(self._waiting)
        time: int | None
        if self._waiting:
            time = heapq.heappop(self._waiting)
        else:  # no chunk follows the last frames, whose time FFmpeg guesses
            time = pts if self._last is None else self._last + self._step
        if time is not None and self._last is not None:
            self._step = max(1, time - self._last)
        self._last = time
        return time
