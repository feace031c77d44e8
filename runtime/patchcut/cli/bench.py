"""`patchcut bench`: latency and throughput here, and two runs compared."""

from __future__ import annotations

import re
import sys
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from patchcut.benchmark import Plan, Report, benchmark, compare, read_report
from patchcut.benchmark.compare import differences
from patchcut.benchmark.report import to_json
from patchcut.cli.demo import SAMPLES
from patchcut.cli.options import EXIT_FAILED, EXIT_GOOD
from patchcut.cli.printing import make_console
from patchcut.cli.signals import stoppable
from patchcut.cli.tables import precision_text, size_text
from patchcut.errors import OptionError
from patchcut.frames import Frame
from patchcut.output.whole_files import check_writable, remove_empty
from patchcut.segmenter import Segmenter
from patchcut.settings import Settings
from patchcut.sources import open_source
from patchcut.texts import one_line

# Frames that are held in memory: as many as a second of video has.
MAX_FRAMES = 32


def bench(
    source: str | None, plan: Plan, settings: Settings, *, out: Path | None, as_json: bool, quiet: bool
) -> int:
    """Exit status, after a segmenter was measured: 1 where it does not keep the plan's bound.

    Raises:
        PatchcutError: it could not start.
    """
    if out is not None and out.is_dir():
        raise OptionError("out", f"{out} is a folder", "name a file, such as bench.json")
    with ExitStack() as stack, stoppable():
        if out is not None:
            stack.callback(remove_empty, check_writable(out.parent))
        frames, name = _read(source, settings)
        segmenter = Segmenter.open(settings)
        with _Bar(shown=not quiet) as bar:
            report = benchmark(segmenter, frames, plan, source=name, step=bar.step)
        if out is not None:
            report.write(out)
    if as_json:
        print(to_json(report))
    else:
        _print(report)
        if out is not None:
            make_console().print(f"wrote {out}")
    return EXIT_FAILED if report.keeps_bound() is False else EXIT_GOOD


def compare_files(*paths: Path) -> int:
    """Exit status 0, after the second of two reports was compared with the first.

    Raises:
        OptionError: a file is not there or is no report, or they are of different scenarios.
    """
    first, second = (read_report(path) for path in paths)
    table = Table("figure", "first", "second", "ratio", "99 %", "the second is", box=SIMPLE_HEAD)
    for column in table.columns[1:5]:
        column.justify = "right"
    for row in compare(first, second):
        interval = f"{row.interval[0]:.3f}-{row.interval[1]:.3f}"
        table.add_row(
            row.figure, f"{row.first:.2f}", f"{row.second:.2f}", f"{row.ratio:.3f}", interval, row.verdict
        )
    console = make_console()
    console.print(f"{first.scenario}: {paths[0]} and {paths[1]}")
    console.print(table)
    if lines := differences(first, second):
        console.print("they differ in:", style="bold yellow")
        for line in lines:
            console.print(f"  {one_line(line)}")
    console.print(
        f"99 %: by the spread of the {len(first.pieces)} and {len(second.pieces)} pieces of the runs; from "
        "one start to the next there is more, so repeat both"
    )
    return EXIT_GOOD


def seconds(option: str, text: str) -> float:
    """Seconds of a text such as "30s", "2m", "1h" or "30".

    Raises:
        OptionError: it is none.
    Examples:
        >>> from patchcut.cli.bench import seconds
        >>> seconds("duration", "2m")
        120.0
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)(s|m|h|)", text.strip())
    if found is None:
        raise OptionError(option, f'must be seconds or a text such as "30s" or "2m", got {text!r}')
    return float(found[1]) * {"s": 1, "": 1, "m": 60, "h": 3600}[found[2]]


def _read(source: str | None, settings: Settings) -> tuple[list[Frame], str]:
    """Up to 32 frames in memory, and what they are called."""
    with open_source(str(SAMPLES) if source is None else source, rule=settings.pixel_rule) as opened:
        frames = list(islice(opened, MAX_FRAMES))
    if not frames:
        what = opened.problems[0] if opened.problems else f"{source} has no frames"
        raise OptionError("source", what, "name a photo, a folder or a video")
    return frames, "the sample photos" if source is None else one_line(opened.name)


class _Bar:
    """How far the warm-up and the run are, on stderr where that is a terminal."""

    def __init__(self, *, shown: bool) -> None:
        console = Console(file=sys.stderr)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:.0f} of {task.total:.0f} s"),
            console=console,
            transient=True,
            disable=not (shown and console.is_terminal),
        )
        self._task = self._bar.add_task("warm-up", total=1.0)

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bar.stop()

    def step(self, title: str, done_s: float, all_s: float) -> None:
        """Shows where it is."""
        self._bar.update(self._task, description=title, completed=done_s, total=max(all_s, 1e-9))


def _print(report: Report) -> None:
    console, runs = make_console(), report.runs
    latency = report.latency_ms
    table = Table("ms", "p50", "p90", "p99", "max", box=SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row(
        "query", *(f"{value:.2f}" for value in (latency.p50, latency.p90, latency.p99, latency.max))
    )
    for stage, times in report.stages_ms.items():
        table.add_row(stage, f"{times['p50']:.2f}", "", f"{times['p99']:.2f}", "")
    precision = precision_text(runs["precision"], runs["weights"])
    console.print(
        f"{report.scenario}: {runs['bundle']} with {runs['engine']} ({runs['provider']}) {precision} "
        f"{size_text(runs['size_hw'])}, {runs['threads']} threads"
    )
    console.print(f"frames: {report.frames['count']} of {report.frames['source']}, {_sizes(report)}")
    console.print(table)
    name, value = report.metric
    unit = "" if name == "frames a second" else " ms"
    console.print(f"{name} {value:.2f}{unit}, {report.frames_per_s:.1f} frames a second, {_counts(report)}")
    kept = report.keeps_bound()
    if kept is not None:
        console.print(f"{'within' if kept else 'ABOVE'} the bound of {report.plan['bound_ms']:g} ms")
    console.print(report.clock)
    for reading, one in report.sensors.items():
        console.print(f"{reading}: {one['low']:g} to {one['high']:g}, mean {one['mean']:g}")
    for line in report.warnings:
        console.print(f"uncertain: {line}", style="yellow")


def _sizes(report: Report) -> str:
    sizes: list[Any] = report.frames["sizes"]
    return ", ".join(sizes[:4]) + (f" and {len(sizes) - 4} more sizes" if len(sizes) > 4 else "")


def _counts(report: Report) -> str:
    warm = report.warmup
    first = f"the first took {warm['first_ms']:.1f} ms, the last {warm['last_ms']:.1f}"
    rate = f", {report.plan['rate']:.1f} frames a second came" if "rate" in report.plan else ""
    return f"{report.queries} queries{rate}; warm-up {warm['queries']:.0f} queries, {first}"
