"""How far a build is: TensorRT tells it in phases, some within others."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

_logger = logging.getLogger("patchcut")

Say = Callable[[str], None]
Step = Callable[[str, int, int], None]  # title, steps that are done, all steps


def monitor(module: Any, step: Step) -> Any:
    """A progress monitor of TensorRT that tells `step` of its outermost phases; None where there is no such.

    What `step` raises, such as KeyboardInterrupt, ends the build and is kept in `stopped`.
    """
    if not hasattr(module, "IProgressMonitor"):
        return None

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.stopped: BaseException | None = None
            self._steps: dict[str, int] = {}
            self._lock = threading.Lock()  # phases may come from several threads

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self._steps[phase_name] = num_steps
                self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self._steps:
                self._tell(phase_name, step + 1)
            return self.stopped is None

        def phase_finish(self, phase_name: str) -> None:
            if phase_name in self._steps:
                self._tell(phase_name, self._steps.pop(phase_name))

        def _tell(self, phase: str, done: int) -> None:
            try:
                with self._lock:
                    step(phase, done, self._steps.get(phase, done))
            except BaseException as error:  # an exception must not reach TensorRT
                self.stopped = error

    return Monitor()


class LoadProgress:
    """Tells of a build that `load` has to do: a line in the log, and phases on a terminal or in the log."""

    def __init__(self) -> None:
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._phase = ""

    def say(self, line: str) -> None:
        """Warns: a build takes minutes, and whoever loads is waiting."""
        _logger.warning("[engine] %s", line)

    def step(self, title: str, done: int, total: int) -> None:
        """Draws over the line of the terminal, or logs each phase once."""
        if self._terminal:
            ended = done >= total
            print(
                f"\r\x1b[K{'' if ended else f'{title} {done}/{total}'}", end="", file=sys.stderr, flush=True
            )
        elif title != self._phase:
            _logger.info("[engine] %s (%d steps)", title, total)
        self._phase = title
