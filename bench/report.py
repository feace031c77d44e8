"""Tables of what was measured: the newest run of each case, one machine at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.cases import GROUPS, Target, open_group
from bench.machine import Machine
from bench.rows import Row

START, END = "<!-- bench:start -->", "<!-- bench:end -->"

_FACT_HEADINGS = ("what", "measured", "target")
_TIME_HEADINGS = ("case", "who", "inside the clock", "arithmetic", "ms (p95)", "patchcut's time ×")
_QUALITY_HEADINGS = ("case", "who", "arithmetic", "result")
_TARGET_HEADINGS = ("target", "measured", "")


class ReportError(ValueError):
    """The report cannot be put where it was asked for."""


@dataclass(frozen=True)
class Fact:
    """One number that the README shows, of patchcut's row of a case.

    Attributes:
        title: the number in words.
        group: the case's group.
        case: name of the case.
        metric: name of the number, see `Row.value`.
        unit: printed after the number, such as " ms".
    """

    title: str
    group: str
    case: str
    metric: str
    unit: str = ""


_START = "fresh process: first result 224"
README_FACTS = (
    Fact("a frame to masks, at 224", "frame", "frame 224", "median_ms", " ms"),
    Fact("the same, borders refined", "frame", "frame 224 refined", "median_ms", " ms"),
    Fact("share of a frame's time besides the backbone", "frame", "frame 224", "share_besides_backbone"),
    Fact("the head, times as fast as DeepCut's own code", "head", "head 256", "times_as_fast", "×"),
    Fact("import, load and first result", "start", _START, "median_ms", " ms"),
    Fact("peak memory of that process", "start", _START, "peak_memory_mb", " MB"),
    Fact("ECSSD: IoU at 448, guided", "quality", "ecssd-dev 448 refine guided", "mean foreground IoU"),
    Fact("VOC 2007: CorLoc at 448, guided", "quality", "voc2007-dev 448 refine guided", "CorLoc"),
)


@dataclass(frozen=True)
class Section:
    """All that is told of one machine with one number of threads.

    Attributes:
        title: the machine and the threads.
        notes: dates, commits and versions of the rows.
        tables: (headings, rows) of targets, times and quality; those without rows are left out.
    """

    title: str
    notes: tuple[str, ...]
    tables: tuple[tuple[tuple[str, ...], tuple[tuple[str, ...], ...]], ...]


def make_sections(rows: Sequence[Row]) -> list[Section]:
    """A section a machine and number of threads, the newest first."""
    return [_section(title, found) for title, found in _by_machine(rows)]


def newest_runs(rows: Iterable[Row]) -> list[Row]:
    """For each case the rows of its newest run, in the order of `GROUPS`; runs are never mixed in a case."""
    order = list(GROUPS)
    newest: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.date):
        key = (row.group, row.case)
        if key not in newest or newest[key][0].run != row.run:
            newest[key] = []
        newest[key].append(row)
    cases = sorted(newest.items(), key=lambda item: order.index(item[0][0]) if item[0][0] in order else 99)
    return [row for _, found in cases for row in found]


def to_markdown(sections: Sequence[Section]) -> str:
    """The sections as Markdown tables."""
    blocks = []
    for section in sections:
        blocks.append(f"**{section.title}**")
        blocks += [_markdown_table(headings, rows) for headings, rows in section.tables]
        blocks.append("\n".join(f"{note}  " for note in section.notes))
    return "\n\n".join(blocks) + "\n"


def to_page(rows: Sequence[Row]) -> str:
    """What docs/measured.md shows of the rows: all of them, the kernels last."""
    kernels = [row for row in rows if row.group == "kernels"]
    others = [row for row in rows if row.group != "kernels"]
    parts = (("Frames, heads, quality and serving", others), ("Each kernel beside its neighbours", kernels))
    return "\n".join(f"## {title}\n\n{to_markdown(make_sections(part))}" for title, part in parts if part)


def to_readme(rows: Sequence[Row]) -> str:
    """What the README shows of the rows: `README_FACTS`, a table a machine and number of threads."""
    blocks = []
    for title, found in _by_machine(rows):
        ours = {(row.group, row.case): row for row in found if row.contender == "patchcut"}
        shown = [
            (fact, ours[fact.group, fact.case]) for fact in README_FACTS if (fact.group, fact.case) in ours
        ]
        shown = [(fact, row) for fact, row in shown if row.value(fact.metric) is not None]
        if shown:
            table = _markdown_table(_FACT_HEADINGS, tuple(_fact_cells(fact, row) for fact, row in shown))
            runs = ", ".join(dict.fromkeys(f"{row.date:%Y-%m-%d} at commit {row.commit}" for _, row in shown))
            blocks.append(f"**{title}**\n\n{table}\n\nMeasured {runs}.\n")
    return "\n".join(blocks)


def print_sections(sections: Sequence[Section], console: Console) -> None:
    """Prints the sections as tables for a terminal."""
    for section in sections:
        console.print(section.title, style="bold")
        for headings, rows in section.tables:
            table = Table(*headings, box=SIMPLE_HEAD)
            for row in rows:
                table.add_row(*row)
            console.print(table)
        for note in section.notes:
            console.print(note)


def write_into(page: Path, text: str) -> None:
    """Puts `text` between the markers of a file, instead of what is there.

    Raises:
        ReportError: "[bench] README.md must hold <!-- bench:start --> and <!-- bench:end -->, in this order".
    """
    old = page.read_text("utf-8")
    begin, end = old.find(START), old.find(END)
    if not 0 <= begin < end:
        raise ReportError(f"[bench] {page.name} must hold {START} and {END}, in this order")
    page.write_text(f"{old[: begin + len(START)]}\n{text}{old[end:]}", "utf-8")


def target_rows(rows: Sequence[Row]) -> list[tuple[Target, float]]:
    """Each target that patchcut's rows have a number for, and that number."""
    found = []
    ours = {(row.group, row.case): row for row in rows if row.contender == "patchcut"}
    for group in GROUPS:
        for target in open_group(group).TARGETS:
            row = ours.get((group, target.case))
            value = None if row is None else row.value(target.metric)
            if value is not None:
                found.append((target, value))
    return found


def _by_machine(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Title and newest runs of each machine and number of threads, the newest first."""
    machines: dict[tuple[Machine, int], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.date):
        machines.setdefault((row.machine, row.threads), []).append(row)
    newest_first = sorted(machines.items(), key=lambda item: item[1][-1].date, reverse=True)
    return [
        (f"{machine}; {threads} thread{'s' if threads != 1 else ''}", newest_runs(found))
        for (machine, threads), found in newest_first
    ]


def _section(title: str, rows: list[Row]) -> Section:
    targets = tuple(
        (str(target), _number(value) + target.unit, _verdict(target, value))
        for target, value in target_rows(rows)
    )
    tables = (
        (_TARGET_HEADINGS, targets),
        (_TIME_HEADINGS, tuple(_time_rows(rows))),
        (_QUALITY_HEADINGS, tuple(_quality_rows(rows))),
    )
    return Section(title, tuple(_notes(rows)), tuple(table for table in tables if table[1]))


def _fact_cells(fact: Fact, row: Row) -> tuple[str, ...]:
    value = row.value(fact.metric)
    assert value is not None
    measured = _number(value) + fact.unit
    if fact.metric == "median_ms" and row.p95_ms is not None:
        measured += f" (p95 {_number(row.p95_ms)})"
    for target in open_group(fact.group).TARGETS:
        if (target.case, target.metric) == (fact.case, fact.metric):
            limit = str(target).removeprefix(f"{target.title} ")
            return fact.title, measured, f"{limit}, {_verdict(target, value)}"
    return fact.title, measured, ""


def _verdict(target: Target, value: float) -> str:
    return "met" if target.is_met(value) else "**not met**"


def _time_rows(rows: list[Row]) -> Iterable[tuple[str, ...]]:
    for case in _cases(rows):
        timed = [row for row in case if row.median_ms is not None]
        if not timed:
            continue
        ours, *others = timed
        yield ours.case, ours.contender, ours.inside, ours.dtype, _time(ours), ""
        for other in others:
            yield "", other.contender, other.inside, other.dtype, _time(other), _times(other, ours)


def _quality_rows(rows: list[Row]) -> Iterable[tuple[str, ...]]:
    for row in rows:
        if row.quality:
            told = ", ".join(f"{name} {_number(value)}" for name, value in row.quality.items())
            yield row.case, row.contender, row.dtype, told


def _cases(rows: list[Row]) -> Iterable[list[Row]]:
    cases: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        cases.setdefault((row.group, row.case), []).append(row)
    return cases.values()


def _notes(rows: list[Row]) -> Iterable[str]:
    """One line a run: when, of which commit, how; then the versions."""
    runs: dict[str, Row] = {}
    for row in rows:
        runs.setdefault(row.run, row)
    for row in runs.values():
        yield f"{row.date:%Y-%m-%d}, commit {row.commit}, load before {row.load_1min:.1f}: `{row.command}`"
    versions = {f"{name} {version}" for row in rows for name, version in row.versions.items()}
    yield "Versions: " + ", ".join(sorted(versions)) + "."


def _time(row: Row) -> str:
    assert row.median_ms is not None and row.p95_ms is not None
    return f"{_number(row.median_ms)} ({_number(row.p95_ms)})"


def _times(other: Row, ours: Row) -> str:
    assert ours.median_ms is not None and other.median_ms is not None
    return f"{_number(other.median_ms / ours.median_ms)}×"


def _number(value: float) -> str:
    """Three significant digits."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _markdown_table(headings: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    lines = [headings, ("---",) * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
