"""Half an hour of a live stream that breaks every minute: what is lost, and what grows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import patchcut
from patchcut import Result
from patchcut.sources import Source

from bench.breaking_server import serve
from bench.cases import Options, Target
from bench.harness import Clock, Times
from bench.machine import resident_mb
from bench.rows import Outcome

TITLE = "endurance: a live stream at 224 that breaks every minute"
SIZE = 224
VIDEO = "vtest.avi"
CASES = ("stream that breaks every minute 224",)
REPEATS = 1
TARGETS = (
    Target(CASES[0], "grown_mb", "<=", 20, " MB", "memory that the stream grows by after a tenth of it"),
    Target(CASES[0], "out_of_order", "<=", 0, "", "results out of order, or after a gap that nobody counted"),
    Target(CASES[0], "breaks_untold", "<=", 0, "", "breaks that the source does not tell"),
)
MINUTES, BREAK_S = 30.0, 60.0


@dataclass(frozen=True)
class Endured:
    """What a stream of some time did.

    Attributes:
        times_ms: of each result, without waiting for its frame.
        dropped: frames that newer ones replaced.
        out_of_order: results whose number or time does not follow that of the result before and `dropped`.
        breaks_told: how often the source says that it stopped and was opened again.
        grown_mb, grown_threads, grown_files: the most that this process held after the first tenth, less the
            most within it: resident memory, threads, open files.
    """

    times_ms: tuple[float, ...]
    dropped: int
    out_of_order: int
    breaks_told: int
    grown_mb: float
    grown_threads: int
    grown_files: int


def run(options: Options) -> Iterator[Outcome]:
    """The folder `videos` in the data has the file that is streamed, over and over."""
    path = options.dataset("soak", "videos", VIDEO) / VIDEO
    seconds = 60 * (options.minutes or MINUTES)
    segmenter = patchcut.load(settings=replace(options.settings, size=SIZE))
    with serve(path, min(BREAK_S, seconds / 3)) as server, patchcut.open_source(server.url) as source:
        results = segmenter.stream(source)
        endured = endure(results, source, seconds)
        breaks = server.breaks
    yield Outcome(
        CASES[0],
        "patchcut",
        f"`stream` of a network camera for {seconds / 60:g} min, a result",
        Times(endured.times_ms),
        {},
        segmenter.describe().precision,
        metrics={
            "minutes": seconds / 60,
            "breaks": breaks,
            "breaks_told": endured.breaks_told,
            "breaks_untold": max(breaks - endured.breaks_told, 0),
            "out_of_order": endured.out_of_order,
            "dropped": endured.dropped,
            "grown_mb": endured.grown_mb,
            "grown_threads": endured.grown_threads,
            "grown_files": endured.grown_files,
        },
        bundle=options.bundle,
    )


def endure(
    results: Iterator[Result], source: Source, seconds: float, *, clock: Clock = time.monotonic
) -> Endured:
    """Takes the results of a live source for some seconds, and looks after each one.

    Args:
        results: of `source`, in mode "live"; closed at the end.
        clock: seconds; replaced in tests.
    """
    times_ms: list[float] = []
    out_of_order = dropped = 0
    last_index, last_s = -1, -1.0
    held = {name: _Most(measure) for name, measure in _HELD.items()}
    begun_s = clock()
    with closing(results):  # type: ignore[type-var]
        for result in results:
            time_s = result.time_s or 0.0
            out_of_order += result.index != last_index + 1 + result.dropped or time_s <= last_s
            last_index, last_s = result.index, time_s
            dropped += result.dropped
            times_ms.append(sum(ms for stage, ms in result.timings_ms.items() if stage != "read"))
            passed_s = clock() - begun_s
            for most in held.values():
                most.look(late=passed_s > seconds / 10)
            if passed_s >= seconds:
                break
    told = sum("was opened again" in problem for problem in source.problems)
    grown = {name: most.grown for name, most in held.items()}
    return Endured(
        tuple(times_ms), dropped, out_of_order, told, grown["mb"], int(grown["threads"]), int(grown["files"])
    )


class _Most:
    """The most of something in the first part of a run, and in the rest of it."""

    def __init__(self, measure: Callable[[], float]) -> None:
        self._measure = measure
        self._early = self._late = 0.0

    def look(self, *, late: bool) -> None:
        if late:
            self._late = max(self._late, self._measure())
        else:
            self._early = max(self._early, self._measure())

    @property
    def grown(self) -> float:
        return max(self._late - self._early, 0.0)


def _open_files() -> int:
    """Files and sockets that this process holds open; 0 where nothing tells."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


_HELD: dict[str, Callable[[], float]] = {
    "mb": resident_mb,
    "threads": threading.active_count,
    "files": _open_files,
}
