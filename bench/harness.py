"""Times several contenders in turns, in one process, so that what disturbs one disturbs all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Clock = Callable[[], float]
Sleep = Callable[[float], None]

WARMUP = 3
# One pause, and more while idle threads of the contender before still spin: those of OpenBLAS do for 0.1 s.
SETTLE_S = 0.02
MAX_PAUSES = 20
BUSY_SHARE = 0.1
# Shorter calls are timed several at once: the clock and the call itself cost about a microsecond.
SHORTEST_SAMPLE_MS = 2.0


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes:
        name: who does it.
        call: does it once.
        observe: called after each timed call, outside the clock, with what it returned and its milliseconds.
        lead: untimed calls right before each timed one, so that caches and threads are the contender's own.
    """

    name: str
    call: Callable[[], object]
    observe: Callable[[object, float], None] | None = None
    lead: int = 1


@dataclass(frozen=True)
class Times:
    """Milliseconds of each repeat."""

    samples_ms: tuple[float, ...]

    @property
    def repeats(self) -> int:
        """How many there are."""
        return len(self.samples_ms)

    @property
    def median_ms(self) -> float:
        """Half of the repeats were faster."""
        return float(np.median(self.samples_ms))

    @property
    def p95_ms(self) -> float:
        """19 of 20 repeats were faster, interpolated."""
        return float(np.percentile(self.samples_ms, 95))

    @property
    def std_ms(self) -> float:
        """Standard deviation of the sample; 0 for a single repeat."""
        return float(np.std(self.samples_ms, ddof=1)) if self.repeats > 1 else 0.0


def interleave(
    contenders: Sequence[Contender],
    repeats: int,
    *,
    warmup: int = WARMUP,
    settle_s: float = SETTLE_S,
    clock: Clock = time.perf_counter,
    work: Clock = time.process_time,
    sleep: Sleep = time.sleep,
) -> dict[str, Times]:
    """Times of each contender, by name; one sample of each in every round.

    Args:
        contenders: every other round goes through them backwards, so that none is always first.
        repeats: rounds, at least 1.
        warmup: untimed calls of each before the first round.
        settle_s: pause before each turn, repeated while other threads of this process work.
        clock, work, sleep: seconds, of all threads together in `work`; replaced in tests.
    Raises:
        ValueError: "[bench] repeats must be at least 1, got 0".
    A turn is: pause, `lead` untimed calls, one sample. Calls under 2 ms are timed several to a sample.
    """
    if repeats < 1:
        raise ValueError(f"[bench] repeats must be at least 1, got {repeats}")
    calls = {c.name: _calls_per_sample(c, warmup, clock) for c in contenders}
    samples: dict[str, list[float]] = {c.name: [] for c in contenders}
    for turn in range(repeats):
        for contender in contenders if turn % 2 == 0 else reversed(contenders):
            _settle(settle_s, work, sleep)
            samples[contender.name].append(_sample_ms(contender, calls[contender.name], clock))
    return {name: Times(tuple(values)) for name, values in samples.items()}


def _settle(settle_s: float, work: Clock, sleep: Sleep) -> None:
    for _ in range(MAX_PAUSES):
        before = work()
        sleep(settle_s)
        if work() - before < BUSY_SHARE * settle_s:
            return


def _sample_ms(contender: Contender, calls: int, clock: Clock) -> float:
    for _ in range(contender.lead):
        contender.call()
    begin = clock()
    for _ in range(calls):
        value = contender.call()
    ms = 1e3 * (clock() - begin) / calls
    if contender.observe is not None:
        contender.observe(value, ms)
    return ms


def _calls_per_sample(contender: Contender, warmup: int, clock: Clock) -> int:
    """How many calls last at least `SHORTEST_SAMPLE_MS`, by the fastest of the warm-up calls."""
    fastest_ms = SHORTEST_SAMPLE_MS
    for _ in range(warmup):
        begin = clock()
        contender.call()
        fastest_ms = min(fastest_ms, 1e3 * (clock() - begin))
    return max(1, round(SHORTEST_SAMPLE_MS / max(fastest_ms, 1e-4)))
