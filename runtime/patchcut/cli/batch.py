"""`patchcut batch`: folders of photos and videos into shards, resumed where it was stopped."""

from __future__ import annotations

import time
from datetime import timedelta

from patchcut.batch import Outcome, Watch, make, write_coco
from patchcut.cli.batch_options import BatchOptions
from patchcut.cli.options import EXIT_FAILED, EXIT_GOOD
from patchcut.cli.printing import make_console
from patchcut.cli.progress import FrameBar
from patchcut.cli.signals import stoppable
from patchcut.cli.streams import say
from patchcut.cli.terminal import muted_native_stderr
from patchcut.errors import OptionError

# Where nobody looks at a bar, a line is written so often.
_LINE_S = 60.0


def batch(options: BatchOptions) -> int:
    """Exit status of a whole batch.

    Raises:
        PatchcutError: it could not start, or was stopped by what stops all shards.
    """
    if len(options.paths) < 2:
        raise OptionError("dst", "is missing: the last path is the folder of results", "name it")
    if options.save not in (None, "coco"):
        raise OptionError("save", f'must be "coco", got "{options.save}"')
    *sources, dst = options.paths
    with stoppable(), muted_native_stderr() as stderr:
        with FrameBar(stderr, shown=not options.quiet) as bar:
            outcome = make(
                sources,
                dst,
                engine=options.engine,
                format=options.format,
                shard_size=options.shard_size,
                workers=options.workers,
                every=options.every,
                limit=options.limit,
                retry=options.retry,
                settings=options.settings,
                watch=Progress(bar, lines=not options.quiet and not bar.is_shown),
            )
        coco = write_coco(dst) if options.save else None
    if not options.quiet:
        _print(outcome, dst)
        if coco is not None:
            make_console().print(f"all of it: {coco}")
    if not outcome.failures:
        return EXIT_GOOD
    frames = "frame or file" if outcome.failures == 1 else "frames and files"
    say(f"patchcut: [batch] {outcome.failures} {frames} failed; {dst}/failures.jsonl names them")
    return EXIT_FAILED


class Progress(Watch):
    """Frames done, frames a second and time left: in a bar, or a line each minute.

    Args:
        bar: drawn where stderr is a terminal.
        lines: whether lines are written.
    """

    def __init__(self, bar: FrameBar, *, lines: bool) -> None:
        self._bar, self._lines = bar, lines
        self._begun_s = self._told_s = time.monotonic()
        self._made = self._done = 0
        self._total: int | None = None
        bar.start("looking for files", None)

    def found(self, frames: int) -> None:
        self._made += frames
        self._bar.advance(self._rate(), frames)
        self._tell(f"{self._made} frames found")

    def begin(self, done: int, total: int) -> None:
        self._begun_s, self._made, self._done, self._total = time.monotonic(), 0, done, total
        self._bar.start("segmenting", total, done=done)

    def advance(self, frames: int) -> None:
        self._made += frames
        self._done += frames
        rate, total = self._rate(), self._total or 0
        self._bar.advance(rate, frames)
        left = f", {timedelta(seconds=round((total - self._done) / rate))} left" if rate > 0 else ""
        self._tell(f"{self._done} of {total} frames, {rate:.1f} fps{left}")

    def _rate(self) -> float:
        return self._made / max(time.monotonic() - self._begun_s, 1e-3)

    def _tell(self, text: str) -> None:
        if self._lines and time.monotonic() - self._told_s >= _LINE_S:
            self._told_s = time.monotonic()
            say(f"patchcut: {text}")


def _print(outcome: Outcome, dst: str) -> None:
    rate = outcome.made / max(outcome.seconds, 1e-3)
    console = make_console()
    console.print(f"{outcome.rows} frames in {outcome.shards} shards: {dst}")
    console.print(f"this run: {outcome.made} frames in {outcome.seconds:.1f} s, {rate:.1f} fps")
