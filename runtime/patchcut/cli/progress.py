"""A progress bar over frames."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from patchcut.texts import one_line

if TYPE_CHECKING:
    from typing_extensions import Self

_REDRAW_S = 0.1


class FrameBar:
    """Frames done of a part, frames a second and time left; nothing where `file` is not a terminal.

    Args:
        file: where it is drawn.
        shown: False draws nothing.
    """

    def __init__(self, file: TextIO, *, shown: bool = True) -> None:
        console = Console(file=file)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[fps]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            auto_refresh=False,
            disable=not (shown and console.is_terminal),
        )
        self._task = self._bar.add_task("", total=None, fps="")
        self._drawn_s = 0.0

    @property
    def is_shown(self) -> bool:
        """Whether anything is drawn."""
        return not self._bar.disable

    def start(self, name: str, total: int | None, *, done: int = 0) -> None:
        """Begins a part.

        Args:
            name: the part's.
            total: frames of it, None where unknown.
            done: frames that an earlier run has done.
        """
        self._bar.reset(self._task, total=total, completed=done, description=one_line(name), fps="")

    def advance(self, fps: float, frames: int = 1) -> None:
        """Counts frames."""
        self._bar.update(self._task, advance=frames, fps=f"{fps:.1f} fps")
        now = time.monotonic()
        if now - self._drawn_s >= _REDRAW_S:
            self._drawn_s = now
            self._bar.refresh()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.is_shown:  # before rich 14.3 it ends the line of a bar that was never drawn
            self._bar.stop()
