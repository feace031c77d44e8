"""What `patchcut export parity` found: a table, JSON, and rows for the bundle."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from patchcut.bundle import TimingRow
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from patchcut_export.measuring.parity.answers import Agreement
from patchcut_export.measuring.parity.one_process import Cost
from patchcut_export.measuring.parity.times import Times
from patchcut_export.measuring.parity.ways import Absent, Way

_PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "tensorrt": ("tensorrt", "tensorrt-rtx"),
}


@dataclass(frozen=True)
class ParityRow:
    """One way to run the bundle, measured.

    Attributes:
        engine, device, precision, size: as settings name them.
        version: the engine's.
        reference: whether the others are measured against it.
        accepted: what the bundle's report says of the precision; None where it says nothing.
        agreement: with the reference.
        times: in turns with all others of its size.
        file_mb: what of the bundle it reads.
        cost: of a process of its own, None where that was not measured.
    """

    engine: str
    device: str
    precision: str
    size: int
    version: str
    reference: bool
    accepted: bool | None
    agreement: Agreement
    times: Times
    file_mb: float
    cost: Cost | None

    @property
    def name(self) -> str:
        """For people, without the size."""
        return f"{self.engine} {self.precision}" + (f" on {self.device}" if self.device != "cpu" else "")


@dataclass(frozen=True)
class ParityReport:
    """All rows, and how they came about.

    Attributes:
        bundle: its name.
        head, features: what made labels and masks, of which feature set.
        images: how many, of `data`.
        cpu: as `patchcut.engines.cpu_kind` names it; `machine` is for people.
        threads: of the CPU.
        rounds: timed ones.
        absent: what does not run here.
    """

    bundle: str
    head: str
    features: str
    images: int
    data: str
    cpu: str
    machine: str
    threads: int
    rounds: int
    rows: tuple[ParityRow, ...]
    absent: tuple[Absent, ...]

    def to_json(self) -> str:
        """One JSON document."""
        return json.dumps(asdict(self), indent=1)

    def tables(self) -> list[Table]:
        """A table for each size, the fastest way first."""
        sizes = dict.fromkeys(row.size for row in self.rows)
        return [_table(size, [row for row in self.rows if row.size == size]) for size in sizes]

    def notes(self) -> list[str]:
        """What has to be said beside the tables, a line each."""
        reference = next(row for row in self.rows if row.reference)
        lines = [
            f"{self.machine} ({self.cpu}), {self.threads} threads, {self.rounds} rounds in turns",
            f"beside {reference.name}: {self.features} of {self.images} images ({self.data}), "
            f"labels and masks by {self.head}",
            "run: the backbone's milliseconds for a frame; frame: frame to result; MB: in the bundle; RAM, "
            "in MB at most, and load, in seconds: of a process of its own",
        ]
        if any(row.accepted is False for row in self.rows):
            lines.append("INACCURATE: the bundle's report does not accept this precision")
        there = {row.engine for row in self.rows}
        missing = {one.engine: one.why for one in reversed(self.absent) if one.engine not in there}
        return [*lines, *(f"not here: {engine}: {why}" for engine, why in sorted(missing.items()))]

    def timing_rows(self) -> tuple[TimingRow, ...]:
        """What the bundle keeps, so that "auto" knows what is fast here."""
        rows = [
            {
                "engine": row.engine,
                "precision": row.precision,
                "size": row.size,
                "device": row.device,
                "cpu": self.cpu,
                "threads": self.threads,
                "ms": round(row.times.median_ms, 3),
                "machine": f"{self.machine}; {row.engine} {row.version}",
            }
            for row in self.rows
        ]
        return tuple(TimingRow.model_validate(row) for row in rows)


def make_row(
    way: Way, agreement: Agreement, times: Times, cost: Cost | None, *, reference: bool
) -> ParityRow:
    """The row of a way."""
    return ParityRow(
        engine=way.engine,
        device=way.device,
        precision=way.precision,
        size=way.size,
        version=_version(way.engine),
        reference=reference,
        accepted=way.accepted,
        agreement=agreement,
        times=times,
        file_mb=round(way.file_bytes / 1e6, 2),
        cost=cost,
    )


def machine_text() -> str:
    """The CPU's own name where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("ascii", "replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return next(filter(None, named), platform.processor() or platform.machine())


def _version(engine: str) -> str:
    for package in _PACKAGES.get(engine, (engine,)):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return ""


def _table(size: int, rows: Sequence[ParityRow]) -> Table:
    """At most 80 letters wide, unless a name is long."""
    table = Table(title=f"{size}x{size}", title_justify="left", box=SIMPLE_HEAD, padding=0)
    table.show_edge = False
    table.add_column("engine", min_width=20)
    for heading in ("run ms", "frame", "cosine", "worst", "labels", "IoU", "MB", "RAM", "load"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in sorted(rows, key=lambda one: one.times.median_ms):
        table.add_row(Text(_title(row)), *map(Text, _cells(row)))
    return table


def _title(row: ParityRow) -> str:
    marks = ["the reference"] * row.reference + ["INACCURATE"] * (row.accepted is False)
    return "\n  ".join([row.name, *marks])


def _cells(row: ParityRow) -> list[str]:
    times, found = row.times, row.agreement
    return [
        f"{times.median_ms:.1f}",
        f"{times.frame_ms:.1f}",
        f"{found.cosine_mean:.4f}",
        f"{found.cosine_worst:.4f}",
        f"{found.labels:.1%}",
        f"{found.iou_mean:.3f}",
        f"{row.file_mb:.1f}",
        "" if row.cost is None else f"{row.cost.peak_mb:.0f}",
        "" if row.cost is None else f"{row.cost.load_s:.2f}",
    ]
