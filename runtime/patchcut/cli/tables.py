"""The tables and lines that commands print for people, on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from patchcut.bundle import BackboneSpec, Precision
from patchcut.cli.printing import make_console
from patchcut.engines.choice import is_refused
from patchcut.texts import name_text, one_line

if TYPE_CHECKING:
    from patchcut.cli.run_options import Run
    from patchcut.cli.run_stats import Found, Summary
    from patchcut.description import Description
    from patchcut.segmenter import Segmenter

_LISTED_LINES = 5


def print_run(running: Run, *, interrupted: bool = False) -> None:
    """Prints what a run found, how long it took, where it wrote, and what it had to skip."""
    console, stats, folder = make_console(), running.stats, running.folder
    summary = stats.summary()
    if stats.found:
        console.print(_found_table(stats.found))
        if stats.listed > len(stats.found):
            console.print(f"... and {stats.listed - len(stats.found)} more photos")
    if summary.frames:
        console.print(_stage_table(summary))
    if summary.frames or not running.skipped:
        console.print(
            f"{_count(summary.frames, 'frame')}, {_count(summary.regions, 'region')}, "
            f"{objects_text(summary.tracks)}"
            f"{summary.fps:.1f} frames a second, with {_engine_text(running.segmenter.describe())}"
        )
    if said := _refusal_here(running.segmenter):
        console.print(f"inaccurate: {said}", style="bold yellow")
    if running.skipped:
        console.print(f"{_count(running.skipped, 'photo or video', 'photos or videos')} done already")
    if summary.dropped:
        console.print(f"{_count(summary.dropped, 'frame')} dropped: the source is faster than this machine")
    if summary.reused:
        console.print(f"{_count(summary.reused, 'frame')} barely changed, and got the answer of one before")
    if folder is not None and (written := folder.written()):
        console.print(f"written: {', '.join(written)} in {one_line(name_text(folder.path))}")
    if interrupted:
        console.print(f"stopped after {_count(summary.frames, 'frame')}", style="bold yellow")
    _print_list(console, "note", running.source.notes)
    _print_list(console, "problem", running.problems)


def what_runs(running: Run) -> str:
    """What a run reads, where it writes and what runs, a line each."""
    source, options = running.source, running.options
    total = "" if source.total is None else f", {_count(source.total, 'frame')}"
    rate = "" if source.fps is None else f", {source.fps:g} frames a second"
    lines = [f"{'source':<15}{source.name} ({source.kind}{total}{rate})"]
    if running.folder is not None:
        lines.append(f"{'out':<15}{running.folder.path}: {', '.join(running.folder.save)}")
    if options.every > 1:
        lines.append(f"{'every':<15}{options.every}")
    return "\n".join(map(one_line, [*lines, *str(running.segmenter.describe()).splitlines()]))


def objects_text(tracks: int | None) -> str:
    """How many objects were tracked, for the line of counts.

    Examples:
        >>> from patchcut.cli.tables import objects_text
        >>> objects_text(2)
        '2 objects tracked, '
    """
    return "" if tracks is None else f"{_count(tracks, 'object')} tracked, "


def _engine_text(segmenter: Description) -> str:
    return (
        f"{segmenter.engine} ({segmenter.provider}) {precision_text(segmenter.precision, segmenter.weights)} "
        f"{size_text(segmenter.size_hw)}, {_count(segmenter.threads, 'thread')}"
    )


def _refusal_here(segmenter: Segmenter) -> str:
    facts = segmenter.extractor.engine.facts
    return refusal(segmenter.extractor.backbone, facts.precision, facts.graph.size_hw[0])


def refusal(backbone: BackboneSpec, precision: Precision, size: int) -> str:
    """What to say of a precision that the bundle's report does not accept; nothing of others.

    Examples:
        >>> from patchcut.cli.tables import refusal
        >>> refusal(bundle.spec.backbone, "fp32", 224)
        ''
    """
    if not is_refused(backbone, precision, size):
        return ""
    return f"the bundle's report does not accept {precision} at {size}: it is too far from fp32"


def precision_text(precision: str, weights: str) -> str:
    """A graph's precision for people, such as "int8", or "fp32 on int8 weights"."""
    return precision if weights == precision else f"{precision} on {weights} weights"


def size_text(size_hw: Sequence[int]) -> str:
    """A size as people write it, such as "224x224"."""
    return "x".join(map(str, size_hw))


def _print_list(console: Console, thing: str, lines: Sequence[str]) -> None:
    """Prints how many notes or problems there are, and the first of them."""
    if not lines:
        return
    console.print(f"{_count(len(lines), thing)}:", style="bold yellow")
    for line in lines[:_LISTED_LINES]:
        console.print(f"  {one_line(line)}")
    if len(lines) > _LISTED_LINES:
        console.print(f"  ... and {len(lines) - _LISTED_LINES} more")


def _found_table(found: Sequence[Found]) -> Table:
    table = Table("photo", "regions", "boxes (x0 y0 x1 y1)", "scores", "ms", box=SIMPLE_HEAD)
    for column in (1, 4):
        table.columns[column].justify = "right"
    for photo in found:
        boxes = "\n".join(" ".join(f"{edge:.0f}" for edge in box) for box in photo.boxes)
        scores = "\n".join(f"{score:.2f}" for score in photo.scores)
        table.add_row(
            Text(one_line(photo.name)), str(len(photo.boxes)), boxes, scores, f"{photo.total_ms:.1f}"
        )
    return table


def _stage_table(summary: Summary) -> Table:
    table = Table("stage", box=SIMPLE_HEAD)
    for heading in ("p50 ms", "p95 ms"):
        table.add_column(heading, justify="right")
    for stage, time in summary.stages.items():
        if stage == "frame":
            table.add_section()
        table.add_row(stage, f"{time.p50_ms:.2f}", f"{time.p95_ms:.2f}")
    return table


def _count(number: int, thing: str, things: str = "") -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {things or thing + 's'}"
