"""The counts of a run so far: frames, regions, and how long each stage took."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from patchcut.result import Result

# A camera may run for days: percentiles are over the last frames, about five minutes at 30 fps.
_LAST_FRAMES = 10_000
_LISTED_FRAMES = 12


@dataclass(frozen=True)
class StageTime:
    """Milliseconds a frame, median and 95th percentile."""

    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class Summary:
    """A whole run.

    Attributes:
        frames: how many were segmented.
        regions: how many were found in all of them.
        tracks: how many objects were tracked in all videos; None where nothing is tracked.
        dropped: frames of a live source that a newer one overtook.
        reused: how many of the frames got the answer of the one before.
        seconds: from the first frame's reading to the last one's saving.
        fps: frames / seconds.
        stages: in the order of the work; "read" and "save" are outside the segmenter, "frame" is the sum.
    """

    frames: int
    regions: int
    tracks: int | None
    dropped: int
    reused: int
    seconds: float
    fps: float
    stages: dict[str, StageTime]


@dataclass(frozen=True)
class Found:
    """One frame's regions in short: boxes [m, 4] xyxy and scores, best first, and the segmenter's time."""

    name: str
    boxes: tuple[tuple[float, float, float, float], ...]
    scores: tuple[float, ...]
    total_ms: float


class RunStats:
    """Counts frames as they are done.

    Attributes:
        frames, regions, dropped, reused: so far.
        listed: how many of the frames are photos, which are listed by name.
        found: the first of those in short.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.regions = 0
        self.dropped = 0
        self.reused = 0
        self.listed = 0
        self._last_id: dict[str, int] = {}  # of each video: ids count from 1
        self.found: list[Found] = []
        self._stages_ms: dict[str, deque[float]] = {}
        self._start_s = self._last_s = perf_counter()

    @property
    def fps(self) -> float:
        """Frames a second since the start."""
        return self.frames / self.seconds if self.seconds else 0.0

    @property
    def seconds(self) -> float:
        """From the start to the last frame counted."""
        return self._last_s - self._start_s

    def add(self, result: Result, save_ms: float, *, listed: bool = True) -> None:
        """Counts one frame: its own stages, and the milliseconds that saving it took.

        Args:
            listed: whether it may be one of `found`.
        """
        stages = {**result.timings_ms, "save": save_ms}
        for stage, ms in {**stages, "frame": sum(stages.values())}.items():
            self._stages_ms.setdefault(stage, deque(maxlen=_LAST_FRAMES)).append(ms)
        self.frames += 1
        self.regions += len(result)
        self.dropped += result.dropped
        self.reused += result.reused
        if (ids := result.track_ids) is not None:
            self._last_id[result.name] = max(self._last_id.get(result.name, 0), int(ids.max(initial=0)))
        self._last_s = perf_counter()
        self.listed += listed
        if listed and len(self.found) < _LISTED_FRAMES:
            self.found.append(_found(result))

    def summary(self) -> Summary:
        """The run so far."""
        stages = {}
        for stage, times_ms in self._stages_ms.items():
            p50, p95 = np.percentile(times_ms, (50, 95))
            stages[stage] = StageTime(round(float(p50), 3), round(float(p95), 3))
        seconds, fps = round(self.seconds, 3), round(self.fps, 2)
        tracks = sum(self._last_id.values()) if self._last_id else None
        return Summary(self.frames, self.regions, tracks, self.dropped, self.reused, seconds, fps, stages)


def _found(result: Result) -> Found:
    boxes = tuple((float(x0), float(y0), float(x1), float(y1)) for x0, y0, x1, y1 in result.boxes)
    scores = tuple(float(score) for score in result.scores)
    return Found(
        result.name, boxes, scores, sum(ms for stage, ms in result.timings_ms.items() if stage != "read")
    )
