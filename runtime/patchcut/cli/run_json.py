"""The JSON lines of `patchcut run --json`, one event each: "start", "part", "frame", "end"."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from patchcut.errors import PatchcutError
from patchcut.result import Result
from patchcut.texts import encodable, name_text

if TYPE_CHECKING:
    from patchcut.cli.run_options import Run
    from patchcut.segmenter import Segmenter
    from patchcut.sources import Source


def print_start(source: Source, segmenter: Segmenter) -> None:
    """What is read, and what runs."""
    runs = {
        key: encodable(it) if isinstance(it, str) else it
        for key, it in segmenter.describe().to_dict().items()
    }
    _print("start", source=source.name, segmenter=runs)


def print_part(part: Source) -> None:
    """Whose frames follow: one of the videos of a source that is made of several."""
    _print("part", name=part.name, kind=part.kind, fps=part.fps, total=part.total)


def print_frame(result: Result) -> None:
    """One frame's regions, as in a file of the sink "json"."""
    _print("frame", **result.to_dict())


def print_end(running: Run, failure: BaseException | None) -> None:
    """The counts of the run, and how it ended."""
    options = running.options
    _print(
        "end",
        **asdict(running.stats.summary()),
        skipped=running.skipped,
        out=None if options.out is None else name_text(options.out),
        problems=running.problems,
        notes=running.source.notes,
        interrupted=isinstance(failure, KeyboardInterrupt),
        error=str(failure) if isinstance(failure, PatchcutError) else None,
    )


def _print(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)
