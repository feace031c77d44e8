"""What a run found, as JSON and as lines for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from patchcut.benchmark.scenarios import INSIDE, METRICS, SCENARIOS, Plan, Queries
from patchcut.errors import OptionError
from patchcut.output.whole_files import write_whole

_PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}
# Pieces of a run, each with figures of its own, by which two runs are compared.
_PIECES = 20
# A percentile of fewer queries is the word of a handful of them.
_ENOUGH = {"p50": 10, "p90": 100, "p99": 1000}


class Latency(BaseModel):
    """Milliseconds of a query."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    p50: float
    p90: float
    p99: float
    max: float
    mean: float


class Piece(BaseModel):
    """A part of a run: its latencies, and its frames a second."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    p50: float
    p90: float
    p99: float
    frames_per_s: float


class Report(BaseModel):
    """A run.

    Attributes:
        schema_version: of this document.
        scenario: a key of `SCENARIOS`.
        clock: what its clock holds, in words.
        plan: what was asked for.
        frames: what was segmented: where from, how many, of which sizes.
        runs: what ran, as `patchcut info` tells it.
        machine: what it ran on.
        warmup: queries before, with the first and the last one's milliseconds.
        queries: how many were measured.
        latency_ms: of all of them.
        frames_per_s: frames done a second.
        stages_ms: stage → p50 and p99 of a frame's milliseconds.
        pieces: the run in up to twenty parts of as many queries.
        sensors: reading → lowest, mean, highest.
        warnings: what makes the figures uncertain.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    scenario: str
    clock: str
    plan: dict[str, Any]
    frames: dict[str, Any]
    runs: dict[str, Any]
    machine: dict[str, Any]
    warmup: dict[str, float]
    queries: int
    latency_ms: Latency
    frames_per_s: float
    stages_ms: dict[str, dict[str, float]]
    pieces: tuple[Piece, ...]
    sensors: dict[str, dict[str, float]]
    warnings: tuple[str, ...]

    def write(self, path: Path) -> None:
        """Writes it as JSON, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        Examples:
            >>> report.write(folder / "bench.json")
            >>> patchcut.benchmark.read_report(folder / "bench.json") == report
            True
        """
        write_whole(path, (self.model_dump_json(indent=1) + "\n").encode())

    @property
    def metric(self) -> tuple[str, float]:
        """The figure by which its scenario is judged: "p90", "p99" or "frames a second", and its value."""
        name = METRICS[self.scenario]
        return name, self.frames_per_s if name not in _PERCENTILES else getattr(self.latency_ms, name)

    def keeps_bound(self) -> bool | None:
        """Whether the scenario's percentile is within the bound that the plan names; None without a bound.

        Examples:
            >>> report.keeps_bound() is None
            True
        """
        bound_ms = self.plan.get("bound_ms")
        if bound_ms is None:
            return None
        name = METRICS[self.scenario]
        return bool(getattr(self.latency_ms, name if name in _PERCENTILES else "p99") <= bound_ms)


def read_report(path: Path) -> Report:
    """A report that was written.

    Raises:
        OptionError: the file is not there, or is none.
    Examples:
        >>> patchcut.benchmark.read_report(folder / "none.json")
        Traceback (most recent call last):
        patchcut.errors.OptionError: [compare] cannot read ...none.json: No such file or directory; check ...
    """
    try:
        return Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise OptionError("compare", f"cannot read {path}: {error.strerror}", "check the name") from error
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{path} is no report of `patchcut bench`: {first['msg']}"
        raise OptionError("compare", what, "write one with `patchcut bench --json FILE`") from error


@dataclass(frozen=True)
class Around:
    """What a report says beside the figures; fields as in `Report`."""

    frames: dict[str, Any]
    runs: dict[str, Any]
    machine: dict[str, Any]
    sensors: dict[str, dict[str, float]]
    warnings: Sequence[str]


def make_report(plan: Plan, rate: float | None, warmup: Queries, queries: Queries, around: Around) -> Report:
    """The report of what was measured."""
    latency = np.asarray(queries.latency_ms)
    asked = {name: value for name, value in vars(plan).items() if value is not None}
    if rate is not None:
        asked["rate"] = round(rate, 3)
    return Report(
        scenario=plan.scenario,
        clock=f"{SCENARIOS[plan.scenario]}; {INSIDE}",
        plan=asked,
        frames=around.frames,
        runs=_plain(around.runs),
        machine=_plain(around.machine),
        warmup={
            "queries": len(warmup.latency_ms),
            "first_ms": round(warmup.latency_ms[0], 3),
            "last_ms": round(warmup.latency_ms[-1], 3),
        },
        queries=len(latency),
        latency_ms=Latency(
            **{name: _rounded(np.percentile(latency, at)) for name, at in _PERCENTILES.items()},
            max=_rounded(latency.max()),
            mean=_rounded(latency.mean()),
        ),
        frames_per_s=_rounded(queries.frames_per_s),
        stages_ms={
            stage: {name: _rounded(np.percentile(ms, at)) for name, at in (("p50", 50), ("p99", 99))}
            for stage, ms in queries.stages_ms.items()
        },
        pieces=tuple(_pieces(queries)),
        sensors=around.sensors,
        warnings=(*around.warnings, *_warnings(plan, queries)),
    )


def _pieces(queries: Queries) -> list[Piece]:
    ended, latency = np.asarray(queries.ended_s), np.asarray(queries.latency_ms)
    frames = np.asarray(queries.frames)
    pieces, begin_s = [], 0.0
    for part in np.array_split(np.arange(len(latency)), min(_PIECES, len(latency))):
        end_s = float(ended[part[-1]])
        pieces.append(
            Piece(
                **{name: _rounded(np.percentile(latency[part], at)) for name, at in _PERCENTILES.items()},
                frames_per_s=_rounded(frames[part].sum() / max(end_s - begin_s, 1e-9)),
            )
        )
        begin_s = end_s
    return pieces


def _warnings(plan: Plan, queries: Queries) -> list[str]:
    lines = []
    name, count = METRICS[plan.scenario], len(queries.latency_ms)
    if (enough := _ENOUGH.get(name, 0)) > count:
        lines.append(
            f"{count} queries are few for a {name}, {enough} are enough; ask for a longer --duration"
        )
    if queries.overloaded:
        lines.append(
            "the frames came faster than they were done, and the run was ended early; ask for a lower --rate"
        )
    return lines


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives them back: lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _rounded(value: float) -> float:
    return round(float(value), 4)


def to_json(report: Report) -> str:
    """One JSON document."""
    return json.dumps(report.model_dump(), indent=1)
