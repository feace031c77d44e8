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

_TIME_HEADINGS = ("case", "who", "inside the clock", "arithmetic", "ms (p95)", "patchcut's time ×")
_QUALITY_HEADINGS = ("case", "who", "arithmetic", "result")
_TARGET_HEADINGS = ("target", "measured", "")


class ReportError(ValueError):
    """The report cannot be put where it was asked for."""


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
    places: dict[tuple[Machine, int], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.date):
        places.setdefault((row.machine, row.threads), []).append(row)
    newest_first = sorted(places.items(), key=lambda place: place[1][-1].date, reverse=True)
    return [_section(machine, threads, newest_runs(found)) for (machine, threads), found in newest_first]


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


def to_readme(rows: Sequence[Row]) -> str:
    """What the README shows of the rows: all but the kernels in sight, these folded away."""
    kernels = [row for row in rows if row.group == "kernels"]
    text = to_markdown(make_sections([row for row in rows if row.group != "kernels"]))
    if not kernels:
        return text
    folded = to_markdown(make_sections(kernels))
    return f"{text}\n<details><summary>Each kernel beside its neighbours</summary>\n\n{folded}\n</details>\n"


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


def write_into(readme: Path, text: str) -> None:
    """Puts `text` between the markers of a file, in the place of what is there.

    Raises:
        ReportError: "[bench] README.md must hold <!-- bench:start --> and <!-- bench:end -->, in this order".
    """
    old = readme.read_text("utf-8")
    begin, end = old.find(START), old.find(END)
    if not 0 <= begin < end:
        raise ReportError(f"[bench] {readme.name} must hold {START} and {END}, in this order")
    readme.write_text(f"{old[: begin + len(START)]}\n{text}{old[end:]}", "utf-8")


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


def _section(machine: Machine, threads: int, rows: list[Row]) -> Section:
    targets = tuple(
        (str(target), _number(value) + target.unit, "met" if target.is_met(value) else "**not met**")
        for target, value in target_rows(rows)
    )
    tables = (
        (_TARGET_HEADINGS, targets),
        (_TIME_HEADINGS, tuple(_time_rows(rows))),
        (_QUALITY_HEADINGS, tuple(_quality_rows(rows))),
    )
    title = f"{machine}; {threads} thread{'s' if threads != 1 else ''}"
    return Section(title, tuple(_notes(rows)), tuple(table for table in tables if table[1]))


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
