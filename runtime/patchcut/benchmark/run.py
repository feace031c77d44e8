"""A whole run: warm-up, queries, and what the machine was like meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from patchcut.benchmark.machine import this_machine
from patchcut.benchmark.report import Around, Report, make_report
from patchcut.benchmark.scenarios import Plan, Queries, ask, rate_of
from patchcut.benchmark.sensors import Sensors, warnings
from patchcut.errors import OptionError
from patchcut.frames import as_frame
from patchcut.machine import stolen_s
from patchcut.segmenter import Segmenter

_STOLEN = 0.01

# Called with what goes on, the seconds done, and all of them.
Step = Callable[[str, float, float], None]


def benchmark(
    segmenter: Segmenter,
    frames: Sequence[Any],
    plan: Plan | None = None,
    *,
    source: str = "arrays",
    step: Step = lambda title, done_s, all_s: None,
) -> Report:
    """Measures a segmenter by a scenario of MLPerf Inference.

    Args:
        segmenter: with its settings; "offline" gains from `throughput=True`.
        frames: what `Segmenter` takes, in memory, at least one.
        plan: the scenario, and for how long.
        source: where the frames are from, for people.
        step: called while it goes on.
    Raises:
        OptionError: there are no frames.
        FrameError, EngineError: as when the segmenter is called.
    Examples:
        >>> plan = patchcut.benchmark.Plan(duration_s=0.1, warmup_s=0)
        >>> report = patchcut.benchmark.benchmark(seg, [frame], plan)
        >>> report.queries > 0 and report.latency_ms.p50 <= report.latency_ms.max
        True
    """
    plan = plan or Plan()
    if not frames:
        raise OptionError("source", "has no frames", "name a photo, a folder or a video")
    machine = this_machine()
    warmup = _warm_up(segmenter, frames, plan, step)
    rate = rate_of(plan, warmup)
    stolen = stolen_s()
    with Sensors() as sensors:
        queries = ask(
            segmenter,
            frames,
            plan,
            plan.duration_s,
            rate=rate,
            tick=lambda done_s: step(plan.scenario, done_s, plan.duration_s),
        )
    ranges = sensors.ranges()
    told = [*machine.warnings(), *warnings(ranges), *_stolen(stolen, queries)]
    around = Around(
        frames=_about(frames, source, segmenter),
        runs=segmenter.describe().to_dict(),
        machine=asdict(machine),
        sensors={name: {key: round(x, 2) for key, x in asdict(one).items()} for name, one in ranges.items()},
        warnings=told,
    )
    return make_report(plan, rate, warmup, queries, around)


def _warm_up(segmenter: Segmenter, frames: Sequence[Any], plan: Plan, step: Step) -> Queries:
    """The same queries as fast as they go: of "server" one after the other."""
    eager = Plan("single-stream") if plan.scenario == "server" else plan
    return ask(
        segmenter,
        frames,
        eager,
        plan.warmup_s,
        tick=lambda done_s: step("warm-up", done_s, plan.warmup_s),
    )


def _stolen(before_s: float | None, queries: Queries) -> list[str]:
    """A line where a hypervisor gave the CPU to others."""
    after_s = stolen_s()
    if before_s is None or after_s is None:
        return []
    share = (after_s - before_s) / queries.ended_s[-1]
    if share < _STOLEN:
        return []
    return [f"the hypervisor took {share:.0%} of a core for others; measure on a machine of your own"]


def _about(frames: Sequence[Any], source: str, segmenter: Segmenter) -> dict[str, Any]:
    color, rule = segmenter.settings.color, segmenter.settings.pixel_rule
    shapes = [as_frame(one, color, rule).image.shape for one in frames]
    sizes = sorted({f"{shape[1]}x{shape[0]}" for shape in shapes})
    return {"source": source, "count": len(frames), "sizes": sizes}
