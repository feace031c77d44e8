"""What Ctrl-C, SIGTERM and SIGHUP do to a command, from its first line to its last.

    leave_at_once()    while nothing is written: the process ends there and then, without a word
    with stoppable():  while there is work to finish: KeyboardInterrupt, which the command makes a good end
    with unbroken():   inside that: what must not be torn, such as writing a frame; the stop comes after it
    ignore()           when all is done: too late to stop anything

A signal that is ignored where the command starts stays ignored, as nohup and a shell's & want it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

EXIT_INTERRUPTED = 130
_NUMBERS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
]
_PATIENCE = 3

Handler = Callable[[int, FrameType | None], None]


class _State:
    """Of this process, whose signals there are once."""

    came = 0
    unbroken = 0


def leave_at_once() -> None:
    """From now on a signal ends the process with status 130: imports may turn an exception into anything."""
    _hear(_leave)


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """The same in a block only, as where a command is called from Python."""
    with _handlers_kept():
        leave_at_once()
        yield


def ignore() -> None:
    """From now on signals come too late: the interpreter itself is ending, and would print a traceback."""
    _hear(signal.SIG_IGN)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """The first signal raises KeyboardInterrupt in this block, further ones leave it the time to finish.

    The third one ends the process as it is: what was being written stays under its hidden name.
    """
    hook = sys.unraisablehook
    _State.came = _State.unbroken = 0
    with _handlers_kept():
        try:
            sys.unraisablehook = lambda args: None if args.exc_type is KeyboardInterrupt else hook(args)
            _hear(_stop)
            yield
        finally:
            sys.unraisablehook = hook


@contextlib.contextmanager
def unbroken() -> Iterator[None]:
    """A signal that comes in this block raises KeyboardInterrupt at its end; one that was lost, too."""
    _State.unbroken += 1
    try:
        yield
    finally:
        _State.unbroken -= 1
    if _State.came and not _State.unbroken:
        raise KeyboardInterrupt


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(EXIT_INTERRUPTED)


def _stop(number: int, frame: FrameType | None) -> None:
    _State.came += 1
    if _State.came == _PATIENCE:
        _leave(number, frame)
    if _State.came == 1 and not _State.unbroken:
        raise KeyboardInterrupt


def _hear(handler: Handler | signal.Handlers) -> None:
    for number in _NUMBERS if _on_main_thread() else ():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    try:
        yield
    finally:
        for number, handler in before.items() if _on_main_thread() else ():
            signal.signal(number, handler)


def _on_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
