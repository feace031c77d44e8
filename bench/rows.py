"""Result rows: one JSON line each, in `bench/results/<group>.jsonl`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from bench import machine
from bench.harness import Times
from bench.machine import Machine

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Outcome:
    """What one contender did in one case.

    Attributes:
        case: what was done.
        contender: who did it; the first of a case is patchcut.
        inside: what the clock held.
        times: milliseconds of each repeat, None where only quality was measured.
        shapes: shapes of the arrays that went in and came out.
        dtype: number format of the arithmetic.
        quality: how good the result is; names say of what.
        metrics: what was computed from this interleaved run, such as ratios.
        bundle: path of the bundle that took part, or None.
        peak_memory_mb: the most that a fresh process took for this alone; None where it shared its process.
        device: where it ran: "cpu" or "cuda".
    """

    case: str
    contender: str
    inside: str
    times: Times | None = None
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dtype: str = "float32"
    quality: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    bundle: Path | None = None
    peak_memory_mb: float | None = None
    device: str = "cpu"


class Row(BaseModel):
    """One line of a results file; rows with the same `run` were measured in turns in one process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: datetime
    run: str
    commit: str
    machine: Machine
    device: str
    versions: dict[str, str]
    threads: int
    load_1min: FiniteFloat
    group: str
    case: str
    contender: str
    inside: str
    shapes: dict[str, tuple[int, ...]]
    dtype: str
    repeats: int
    median_ms: FiniteFloat | None
    p95_ms: FiniteFloat | None
    std_ms: FiniteFloat | None
    peak_memory_mb: FiniteFloat | None
    quality: dict[str, FiniteFloat]
    metrics: dict[str, FiniteFloat]
    bundle_sha256: str | None
    command: str

    def value(self, name: str) -> float | None:
        """The number called `name`, of metrics, quality or times; None where this row has none."""
        named = {"median_ms": self.median_ms, "p95_ms": self.p95_ms, "peak_memory_mb": self.peak_memory_mb}
        return {**named, **self.quality, **self.metrics}.get(name)


class ResultsError(ValueError):
    """A results file holds a line that is no row."""


def make_rows(
    group: str, outcomes: Sequence[Outcome], *, threads: int, load: float, command: str
) -> list[Row]:
    """The rows of one run of a group.

    Args:
        group: name of the cases' group.
        outcomes: one for each contender of each case.
        threads: how many each contender had.
        load: the machine's load before the run.
        command: what repeats the run.
    """
    now = datetime.now(timezone.utc).replace(microsecond=0)
    where, packages, head = machine.this_machine(), machine.versions(), machine.commit()
    run = hashlib.sha256(f"{now.isoformat()} {head} {where} {group}".encode()).hexdigest()[:12]
    shared = {
        "date": now,
        "run": run,
        "commit": head,
        "machine": where,
        "versions": packages,
        "threads": threads,
        "load_1min": load,
        "group": group,
        "command": command,
    }
    return [Row.model_validate({**shared, **_own_fields(outcome)}) for outcome in outcomes]


def append(rows: Sequence[Row], folder: Path = RESULTS) -> list[Path]:
    """The files that got the rows, one a group."""
    folder.mkdir(parents=True, exist_ok=True)
    groups = dict.fromkeys(row.group for row in rows)
    paths = [folder / f"{group}.jsonl" for group in groups]
    for group, path in zip(groups, paths, strict=True):
        lines = [row.model_dump_json() + "\n" for row in rows if row.group == group]
        with path.open("a", encoding="utf-8") as file:
            file.writelines(lines)
    return paths


def read(folder: Path = RESULTS) -> list[Row]:
    """Every row of every results file, oldest first.

    Raises:
        ResultsError: "[bench] frame.jsonl line 3 is no row: ...".
    """
    rows = []
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            try:
                rows.append(Row.model_validate_json(line))
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"]))
                raise ResultsError(
                    f"[bench] {path.name} line {number} is no row: {where} {first['msg']}"
                ) from None
    return sorted(rows, key=lambda row: row.date)


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _own_fields(outcome: Outcome) -> dict[str, object]:
    times = outcome.times
    return {
        "case": outcome.case,
        "contender": outcome.contender,
        "device": outcome.device,
        "inside": outcome.inside,
        "shapes": outcome.shapes,
        "dtype": outcome.dtype,
        "repeats": times.repeats if times else 1,
        "median_ms": round(times.median_ms, 5) if times else None,
        "p95_ms": round(times.p95_ms, 5) if times else None,
        "std_ms": round(times.std_ms, 5) if times else None,
        "peak_memory_mb": outcome.peak_memory_mb,
        "quality": {name: _short(value) for name, value in outcome.quality.items()},
        "metrics": {name: _short(value) for name, value in outcome.metrics.items()},
        "bundle_sha256": None if outcome.bundle is None else sha256_of(outcome.bundle),
    }


def _short(value: float) -> float:
    """`value` with six significant digits."""
    return float(f"{value:.6g}")
