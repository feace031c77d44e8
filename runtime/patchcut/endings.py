"""The end of the interpreter, which waits for what daemon threads are in the middle of.

Python ends a thread where it comes back from a library; inside an engine or OpenCV that ends the process.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
from collections.abc import Iterator
from time import monotonic, sleep

_PATIENCE_S = 5.0

_ending = threading.Event()
_working: list[threading.Thread] = []


@contextlib.contextmanager
def finished_first() -> Iterator[None]:
    """A block, or a function, that the interpreter lets finish; while it ends, other threads begin none.

    Examples:
        >>> with patchcut.endings.finished_first():
        ...     pass
    """
    thread = threading.current_thread()
    if _ending.is_set() and thread is not threading.main_thread() and thread not in _working:
        threading.Event().wait()  # until the process is gone
    _working.append(thread)
    try:
        yield
    finally:
        _working.remove(thread)


@atexit.register
def _finish() -> None:
    _ending.set()
    deadline_s = monotonic() + _PATIENCE_S
    while any(map(_is_at_work, list(_working))) and monotonic() < deadline_s:
        sleep(0.002)


def _is_at_work(thread: threading.Thread) -> bool:
    return thread is not threading.current_thread() and thread.is_alive()  # not those that a fork left behind
