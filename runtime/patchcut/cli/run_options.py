"""The arguments of `patchcut run`, and what they are opened as."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

from patchcut.cli.run_stats import RunStats
from patchcut.cli.window import Window
from patchcut.output.folder import OutputFolder
from patchcut.result import Result
from patchcut.segmenter import Segmenter
from patchcut.settings import Settings
from patchcut.sources import Source
from patchcut.video import PointedObjects, Prompt, StreamOptions

DEFAULT_OUT = "patchcut-out"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The arguments of `patchcut run`.

    Attributes:
        sources: one source, or several photos, videos and folders.
        out: folder for results; None writes nothing.
        save: what to write there; None is the default.
        overwrite: allow results in `out` to be replaced.
        resume: leave out what is done in `out`.
        limit: frames to stop after; None is all.
        every: take every N-th frame.
        stream: how frames become results.
        show: open a live window.
        json: JSON lines on stdout instead of tables.
        quiet: neither tables nor progress: errors and problems only.
        verbose: say what is read and what runs, on stderr.
        settings: the segmenter's.
        prompts: what to follow in place of what the head finds; none is a run of the head.
        at: index of the frame that they are on.
    """

    sources: tuple[str, ...]
    out: str | Path | None = None
    save: tuple[str, ...] | None = None
    overwrite: bool = False
    resume: bool = False
    limit: int | None = None
    every: int = 1
    stream: StreamOptions = field(default_factory=StreamOptions)
    show: bool = False
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    settings: Settings = field(default_factory=Settings)
    prompts: tuple[Prompt, ...] = ()
    at: int = 0


@dataclass(frozen=True)
class Run:
    """All that the loop over frames works with."""

    options: RunOptions
    source: Source
    segmenter: Segmenter
    folder: OutputFolder | None
    window: Window | None
    stats: RunStats
    pointed: PointedObjects | None = None

    def results(self, part: Source) -> Generator[Result, None, None]:
        """Results of the frames of a part of the source."""
        if self.pointed is None:
            return self.segmenter.results(part, self.options.stream)
        return self.segmenter.followed(part, self.pointed, self.options.stream)

    @property
    def problems(self) -> list[str]:
        """What was skipped or not written so far."""
        return [*self.source.problems, *(self.folder.problems if self.folder else ())]

    @property
    def skipped(self) -> int:
        """Photos and videos that an earlier run was done with."""
        return self.folder.skipped if self.folder else 0
