"""A progress bar over the steps of long work, on stderr."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class StepBar:
    """What is done now, how far it is, how long it will take; a line a step where stderr is no terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, markup=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self._task: TaskID | None = None
        self._title = ""

    def __enter__(self) -> StepBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._bar.disable:  # before rich 14.3 it ends the line of a bar that was never drawn
            self._bar.stop()

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        self.console.print(line, soft_wrap=True)

    def step(self, title: str, done: int, total: int) -> None:
        """Shows that `done` of `total` of `title` is done."""
        if title != self._title:
            self._start(title, total)
        if self._task is not None:
            self._bar.update(self._task, completed=done)

    def _start(self, title: str, total: int) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._title = title
        self._task = self._bar.add_task(title, total=total)
        if not self.console.is_terminal:
            self.say(f"{title} ({total})")
