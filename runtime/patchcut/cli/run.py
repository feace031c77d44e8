"""`patchcut run`: frames of a source through a segmenter, to a folder, a window or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

from patchcut.cli.options import EXIT_FAILED, EXIT_GOOD, EXIT_INTERRUPTED
from patchcut.cli.progress import FrameBar
from patchcut.cli.run_stats import RunStats
from patchcut.cli.terminal import muted_native_stderr
from patchcut.cli.window import Window
from patchcut.errors import PatchcutError
from patchcut.output.folder import DEFAULT_SAVE, OutputFolder, check_save
from patchcut.result import Result
from patchcut.segmenter import Segmenter
from patchcut.settings import Settings
from patchcut.sources import Source, open_source

DEFAULT_OUT = "patchcut-out"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The arguments of `patchcut run`.

    Attributes:
        sources: one source, or several photos and folders.
        out: folder for results; None writes nothing.
        save: what to write there; None is the default.
        overwrite: allow results in `out` to be replaced.
        limit: frames to stop after; None is all.
        every: take every N-th frame.
        show: open a live window.
        json: JSON lines on stdout instead of tables.
        settings: the segmenter's.
    """

    sources: tuple[str, ...]
    out: Path | None = None
    save: tuple[str, ...] | None = None
    overwrite: bool = False
    limit: int | None = None
    every: int = 1
    show: bool = False
    json: bool = False
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True)
class _Run:
    """All that the loop over frames works with."""

    source: Source
    segmenter: Segmenter
    folder: OutputFolder | None
    window: Window | None
    stats: RunStats
    json: bool


def run(options: RunOptions) -> int:
    """Exit status of a whole run, after its summary was printed.

    Raises:
        PatchcutError: it could not start. What fails later is said below the summary.
    """
    failure: BaseException | None = None
    with ExitStack() as stack:
        running = _open(options, stack)
        try:
            with running.folder or ExitStack():
                _segment_all(running, options.limit)
        except (PatchcutError, KeyboardInterrupt) as error:
            failure = error
    _report(running, options, failure)
    if isinstance(failure, PatchcutError):
        raise failure
    if failure is not None:
        return EXIT_INTERRUPTED
    problems = [*running.source.problems, *(running.folder.problems if running.folder else ())]
    return EXIT_FAILED if problems or not running.stats.frames else EXIT_GOOD


def _open(options: RunOptions, stack: ExitStack) -> _Run:
    """Everything that can be refused is tried before the model is loaded, the cheapest first."""
    save = check_save(DEFAULT_SAVE if options.save is None else options.save)
    window = stack.enter_context(Window("patchcut")) if options.show else None
    rule = options.settings.pixel_rule
    with muted_native_stderr():
        named = options.sources[0] if len(options.sources) == 1 else list(options.sources)
        source = stack.enter_context(open_source(named, every=options.every, rule=rule))
    folder = None
    if options.out is not None:
        folder = OutputFolder(options.out, save, overwrite=options.overwrite)
    segmenter = Segmenter.open(options.settings)
    return _Run(source, segmenter, folder, window, RunStats(), options.json)


def _segment_all(running: _Run, limit: int | None) -> None:
    if running.json:
        _print_json("start", source=running.source.name, segmenter=running.segmenter.describe().to_dict())
    total = running.source.total
    total = total if limit is None else min(limit, total or limit)
    # All of it: a live source is read, and may complain, while a frame is segmented.
    with muted_native_stderr() as stderr, FrameBar(stderr, running.source.name, total) as bar:
        for result in islice(_results(running), limit):
            started = perf_counter()
            stopped = _hand_out(running, result)
            running.stats.add(result, save_ms=1e3 * (perf_counter() - started))
            bar.advance(running.stats.fps)
            if stopped:
                return


def _results(running: _Run) -> Iterator[Result]:
    for part in running.source.parts():
        if running.folder is not None and not running.folder.start(part):
            continue
        yield from running.segmenter.results(part)
        if running.folder is not None:
            running.folder.finish_part(part.end_s)


def _hand_out(running: _Run, result: Result) -> bool:
    """True if the person at the window wants to stop."""
    folder, window = running.folder, running.window
    overlay = None
    if window is not None or (folder is not None and folder.draws):
        overlay = result.overlay()  # drawn once for both
    if folder is not None:
        folder.write(result, overlay)
    if running.json:
        _print_json("frame", **result.to_dict())
    return window is not None and overlay is not None and not window.show(overlay)


def _report(running: _Run, options: RunOptions, failure: BaseException | None) -> None:
    summary = running.stats.summary(running.source.dropped)
    interrupted = isinstance(failure, KeyboardInterrupt)
    if options.json:
        error = str(failure) if isinstance(failure, PatchcutError) else None
        out = None if options.out is None else str(options.out)
        problems = [*running.source.problems, *(running.folder.problems if running.folder else ())]
        told = {"problems": problems, "notes": running.source.notes}
        _print_json("end", **asdict(summary), out=out, **told, interrupted=interrupted, error=error)
        return
    from patchcut.cli.tables import print_run

    print_run(
        summary,
        running.stats.found,
        running.segmenter.describe(),
        running.source,
        running.folder,
        interrupted,
    )


def _print_json(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)
