"""Scenarios, as MLPerf Inference names them: when a query is asked, and what is measured of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter, sleep
from typing import Any

import numpy as np

from patchcut.checks import check_choice, check_whole
from patchcut.errors import OptionError
from patchcut.result import Result
from patchcut.segmenter import Segmenter

# name → what a query is, and what its clock holds.
SCENARIOS: dict[str, str] = {
    "single-stream": "one frame a query, the next when the one before has its result",
    "multi-stream": "one frame of each stream a query, the next when the one before has its results",
    "offline": "all frames are there, as many a query as the engine takes, at most 64",
    "server": "frames come one by one, at random moments (Poisson), and wait for those before them",
}
# name → the figure by which MLPerf judges it.
METRICS: dict[str, str] = {
    "single-stream": "p90",
    "multi-stream": "p99",
    "offline": "frames a second",
    "server": "p99",
}
INSIDE = (
    "inside the clock: a decoded frame in memory to its Result in memory, all stages; outside: reading, "
    "decoding, drawing, saving"
)
MAX_STREAMS = 64
_MAX_OFFLINE = 64
# Without --rate: this share of what the warm-up reached, so that frames do wait now and then.
_SHARE = 0.7
# A server that is this many times behind its time is overloaded: the queue only grows.
_BEHIND = 1.5

Clock = Callable[[], float]
Sleep = Callable[[float], None]
Tick = Callable[[float], None]


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        scenario: a key of `SCENARIOS`.
        duration_s: seconds that queries are asked for, at least 0.1.
        warmup_s: seconds of the same before.
        streams: frames of a query of "multi-stream".
        rate: frames a second of "server"; None is 70 % of what the warm-up reached.
        bound_ms: latency that the scenario's percentile has to keep, None where there is none.
        seed: of the moments at which frames come.
    Raises:
        OptionError: a value is not allowed.
    Examples:
        >>> patchcut.benchmark.Plan("multi-stream", duration_s=1, streams=4).frames_a_query
        4
    """

    scenario: str = "single-stream"
    duration_s: float = 30.0
    warmup_s: float = 3.0
    streams: int = 8
    rate: float | None = None
    bound_ms: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("scenario", self.scenario, tuple(SCENARIOS))
        check_whole("streams", self.streams, 1, MAX_STREAMS)
        check_whole("seed", self.seed, 0, 2**32 - 1)
        _check_seconds("duration", self.duration_s, 0.1)
        _check_seconds("warmup", self.warmup_s, 0.0)
        for name, value in (("rate", self.rate), ("bound", self.bound_ms)):
            if value is not None and not 0 < value < 1e6:
                raise OptionError(name, f"must be above 0 and below 1,000,000, got {value}")
        if self.rate is not None and self.scenario != "server":
            raise OptionError("rate", f'is of the scenario "server", got it with "{self.scenario}"')

    @property
    def frames_a_query(self) -> int:
        """How many frames are asked for at once; of "offline" the most."""
        return {"multi-stream": self.streams, "offline": _MAX_OFFLINE}.get(self.scenario, 1)


def _check_seconds(name: str, value: float, least: float) -> None:
    if not least <= value <= 86_400:
        raise OptionError(name, f"must be {least:g} to 86400 seconds, got {value}")


@dataclass
class Queries:
    """What was measured: a number a query, in the order in which they ended.

    Attributes:
        ended_s: seconds from the begin to the query's end.
        latency_ms: from the moment it was asked to its results.
        frames: how many it had.
        stages_ms: stage → milliseconds of each frame.
        overloaded: "server" could not follow and was stopped early.
    """

    ended_s: list[float] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    stages_ms: dict[str, list[float]] = field(default_factory=dict)
    overloaded: bool = False

    def add(self, ended_s: float, latency_ms: float, results: Sequence[Result]) -> None:
        """Takes one query's."""
        self.ended_s.append(ended_s)
        self.latency_ms.append(latency_ms)
        self.frames.append(len(results))
        for result in results:
            for stage, ms in result.timings_ms.items():
                self.stages_ms.setdefault(stage, []).append(ms)

    @property
    def frames_per_s(self) -> float:
        """Frames that were done over the seconds that all took."""
        return sum(self.frames) / self.ended_s[-1]


def ask(
    segmenter: Segmenter,
    frames: Sequence[Any],
    plan: Plan,
    seconds: float,
    *,
    rate: float | None = None,
    clock: Clock = perf_counter,
    wait: Sleep = sleep,
    tick: Tick = lambda done_s: None,
) -> Queries:
    """Asks queries of a scenario for so many seconds, at least one.

    Args:
        frames: what `Segmenter` takes, in memory, at least one; they come again from the first on.
        rate: frames a second of "server".
        clock, wait: seconds, and what waits for some.
        tick: called after each query with the seconds so far.
    Examples:
        >>> plan = patchcut.benchmark.Plan("single-stream")
        >>> from patchcut.benchmark.scenarios import ask
        >>> len(ask(seg, [frame], plan, 0.0).latency_ms)
        1
    """
    queries, begin = Queries(), clock()
    if plan.scenario == "server":
        assert rate is not None
        moments: Iterator[float] = _poisson(rate, plan.seed)
    size = min(plan.frames_a_query, _largest(segmenter) if plan.scenario == "offline" else MAX_STREAMS)
    first = 0
    while True:
        taken = [frames[(first + i) % len(frames)] for i in range(size)]
        first += size
        asked_s = clock() - begin
        if plan.scenario == "server":
            asked_s = next(moments)
            if asked_s >= seconds and queries.frames:
                return queries
            if (early_s := asked_s - (clock() - begin)) > 0:
                wait(early_s)
        results = segmenter.batch(taken) if size > 1 else [segmenter(taken[0])]
        ended_s = clock() - begin
        queries.add(ended_s, 1e3 * (ended_s - asked_s), results)
        tick(min(ended_s, seconds))
        if plan.scenario != "server" and ended_s >= seconds:
            return queries
        if ended_s > seconds * _BEHIND:
            queries.overloaded = True
            return queries


def rate_of(plan: Plan, warmup: Queries) -> float | None:
    """Frames a second at which "server" is asked: the plan's, or a share of what the warm-up reached."""
    if plan.scenario != "server":
        return None
    return plan.rate if plan.rate is not None else _SHARE * warmup.frames_per_s


def _poisson(rate: float, seed: int) -> Iterator[float]:
    """Seconds at which queries come whose gaps are exponential with a mean of 1 / rate."""
    rng, now_s = np.random.default_rng(seed), 0.0
    while True:
        now_s += float(rng.exponential(1 / rate))
        yield now_s


def _largest(segmenter: Segmenter) -> int:
    return segmenter.extractor.engine.facts.max_batch
