"""How a node is: what `/diagnostics` tells of it."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, Literal

from patchcut import Result
from patchcut.ahead import Clock

from patchcut_ros.messages import Messages

Level = Literal["OK", "WARN", "ERROR"]
State = Literal["unconfigured", "inactive", "active"]

# Answers whose rate and times are told, and how long one of them counts.
_RECENT, _RECENT_S = 64, 10.0


class Health:
    """Counts what came and what was answered; from any thread.

    Args:
        warn_after_s: an active node that got no image for so long warns; also how long a problem is told of.
        clock: seconds; replaced in tests.
    Attributes:
        state: of the lifecycle.
        received: images that came.
        answered: images whose result was published.
        refused: images that could not be read.
    Examples:
        >>> health = Health()
        >>> health.begin("active")
        >>> health.tell("[image] has 0x0 pixels; check who publishes it")
        >>> health.summary()
        ('WARN', '[image] has 0x0 pixels; check who publishes it')
    """

    def __init__(self, warn_after_s: float = 5.0, clock: Clock = time.monotonic) -> None:
        self.warn_after_s = warn_after_s
        self.state: State = "unconfigured"
        self.received = self.answered = self.refused = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._since_s = self._last_s = clock()
        self._problem, self._problem_s = "", 0.0
        self._failure = ""
        self._times: deque[tuple[float, float, float]] = deque(maxlen=_RECENT)

    def begin(self, state: State) -> None:
        """The lifecycle's state is another one; what was wrong before is forgotten."""
        with self._lock:
            self.state = state
            self._since_s = self._last_s = self._clock()
            self._problem = self._failure = ""

    def come(self) -> None:
        """An image has come."""
        with self._lock:
            self.received += 1
            self._last_s = self._clock()

    def answer(self, result: Result, age_ms: float) -> None:
        """A result was published.

        Args:
            result: whose times are told.
            age_ms: of its image by then, by its stamp.
        """
        work_ms = sum(ms for stage, ms in result.timings_ms.items() if stage != "read")
        with self._lock:
            self.answered += 1
            self._times.append((self._clock(), work_ms, age_ms))

    def tell(self, words: str) -> None:
        """An image could not be read; the next one may be."""
        with self._lock:
            self.refused += 1
            self._problem, self._problem_s = words, self._clock()

    def fail(self, words: str) -> None:
        """No image can be answered any more until the state is another one."""
        with self._lock:
            self._failure = words

    def summary(self) -> tuple[Level, str]:
        """How it is, in one line."""
        with self._lock:
            now_s = self._clock()
            if self._failure:
                return "ERROR", self._failure
            if self.state != "active":
                return "OK", self.state
            if self._problem and now_s - self._problem_s <= self.warn_after_s:
                return "WARN", self._problem
            if now_s - self._last_s > self.warn_after_s:
                return "WARN", f"no image for {now_s - self._last_s:.0f} s; check the topic and its publisher"
            return "OK", f"{self._rate(now_s):.1f} images a second"

    def values(self) -> dict[str, str]:
        """What was counted and measured, as texts by their names.

        Examples:
            >>> Health().values()["images received"]
            '0'
        """
        level = self.summary()
        with self._lock:
            now_s = self._clock()
            recent = [one for one in self._times if now_s - one[0] <= _RECENT_S]
            told = {
                "state": self.state,
                "images received": str(self.received),
                "images answered": str(self.answered),
                "images refused": str(self.refused),
                "images dropped": str(max(self.received - self.answered - self.refused, 0)),
                "images a second": f"{self._rate(now_s):.2f}",
            }
            if recent:
                told["work ms"] = f"{_median([one[1] for one in recent]):.1f}"
                told["age when published ms"] = f"{_median([one[2] for one in recent]):.1f}"
        return told if level[0] == "OK" else {**told, "problem": level[1]}

    def _rate(self, now_s: float) -> float:
        recent = [one[0] for one in self._times if now_s - one[0] <= _RECENT_S]
        over_s = min(now_s - self._since_s, _RECENT_S)
        if len(recent) == _RECENT:
            over_s = now_s - recent[0]
        return len(recent) / over_s if over_s > 0 else 0.0


def diagnostics_of(
    health: Health, name: str, hardware: str, stamp: Any, messages: Messages, **about: str
) -> Any:
    """A `diagnostic_msgs/DiagnosticArray` with one status.

    Args:
        name: of the node.
        hardware: what it runs on.
        stamp: when that is, a `builtin_interfaces/Time`.
        about: more values, such as the bundle.
    Examples:
        >>> told = diagnostics_of(Health(), "patchcut", "CPU", header.stamp, messages, bundle="default")
        >>> told.status[0].message, told.status[0].values[0].value
        ('unconfigured', 'default')
    """
    level, words = health.summary()
    status_kind, value_kind = (
        messages.kind(f"diagnostic_msgs/{name}") for name in ("DiagnosticStatus", "KeyValue")
    )
    values = {**about, **health.values()}
    status = status_kind(
        level=getattr(status_kind, level),
        name=f"{name}: segmentation",
        message=words,
        hardware_id=hardware,
        values=[value_kind(key=key.replace("_", " "), value=value) for key, value in values.items()],
    )
    header = messages.kind("std_msgs/Header")(stamp=stamp, frame_id="")
    return messages.kind("diagnostic_msgs/DiagnosticArray")(header=header, status=[status])


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
