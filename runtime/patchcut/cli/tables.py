"""The tables and lines that commands print for people, on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from patchcut.cli.run_stats import Found, Summary
    from patchcut.output.folder import OutputFolder
    from patchcut.segmenter import Description
    from patchcut.sources import Source

_LISTED_PROBLEMS = 5


def print_run(
    summary: Summary,
    found: Sequence[Found],
    segmenter: Description,
    source: Source,
    folder: OutputFolder | None,
    interrupted: bool = False,
) -> None:
    """Prints what a run found, how long it took, where it wrote, and what it had to skip."""
    console = make_console()
    if found and source.kind == "images":
        console.print(_found_table(found))
        if summary.frames > len(found):
            console.print(f"... and {summary.frames - len(found)} more photos")
    if summary.frames:
        console.print(_stage_table(summary))
    console.print(
        f"{_count(summary.frames, 'frame')}, {_count(summary.regions, 'region')}, "
        f"{summary.fps:.1f} frames a second, with "
        f"{segmenter.engine} ({segmenter.provider}) {precision_text(segmenter.precision, segmenter.weights)} "
        f"{size_text(segmenter.size_hw)}, "
        f"{_count(segmenter.threads, 'thread')}"
    )
    if summary.dropped:
        console.print(f"{_count(summary.dropped, 'frame')} dropped: the source is faster than this machine")
    if folder is not None and (written := folder.written()):
        console.print(f"written: {', '.join(written)} in {folder.path}")
    if interrupted:
        console.print(f"stopped after {_count(summary.frames, 'frame')}", style="bold yellow")
    for note in source.notes:
        console.print(f"note: {note}")
    print_problems(console, [*source.problems, *(folder.problems if folder is not None else ())])


def precision_text(precision: str, weights: str) -> str:
    """A graph's precision for people, such as "int8", or "fp32 on int8 weights"."""
    return precision if weights == precision else f"{precision} on {weights} weights"


def size_text(size_hw: Sequence[int]) -> str:
    """A size as people write it, such as "224x224"."""
    return "x".join(map(str, size_hw))


def print_problems(console: Console, problems: Sequence[str]) -> None:
    """Prints how many things were skipped, and the first of them."""
    if not problems:
        return
    console.print(f"{_count(len(problems), 'problem')}:", style="bold yellow")
    for problem in problems[:_LISTED_PROBLEMS]:
        console.print(f"  {problem}")
    if len(problems) > _LISTED_PROBLEMS:
        console.print(f"  ... and {len(problems) - _LISTED_PROBLEMS} more")


def make_console() -> Console:
    """A console on stdout that takes file names as they are: brackets in them are no markup."""
    return Console(markup=False, highlight=False, emoji=False, soft_wrap=True)


def _found_table(found: Sequence[Found]) -> Table:
    table = Table("photo", "regions", "boxes (x0 y0 x1 y1)", "scores", "ms", box=SIMPLE_HEAD)
    for column in (1, 4):
        table.columns[column].justify = "right"
    for photo in found:
        boxes = "\n".join(" ".join(f"{edge:.0f}" for edge in box) for box in photo.boxes)
        scores = "\n".join(f"{score:.2f}" for score in photo.scores)
        table.add_row(Text(photo.name), str(len(photo.boxes)), boxes, scores, f"{photo.total_ms:.1f}")
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


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
