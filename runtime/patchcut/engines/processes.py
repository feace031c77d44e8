"""What an engine's threads ask of the process: that it starts them, and that no fork takes them away."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
import weakref
from pathlib import Path

from patchcut.errors import EngineError

_logger = logging.getLogger("patchcut")

_TASKS = Path("/proc/self/task")
_END_S = 1.0

_started_in: dict[str, int] = {}
_owners: weakref.WeakSet[object] = weakref.WeakSet()


def outlive_forks(owner: object) -> None:
    """Keeps an object that owns threads, such as a session, from being freed in a forked child.

    A child has none of its parent's threads; freeing their owner there waits for them, for ever.
    Args:
        owner: it must take weak references.
    Examples:
        >>> patchcut.engines.processes.outlive_forks(seg.extractor.engine) is None
        True
    """
    _owners.add(owner)


def _keep_owners() -> None:
    # A count that nothing takes back: a list would be emptied when the interpreter ends.
    for owner in list(_owners):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_owners)


def remember_threads(package: str) -> None:
    """Notes that a package has started threads in this process, which it keeps as long as it is loaded.

    Examples:
        >>> patchcut.engines.processes.remember_threads("some engine")
        >>> patchcut.engines.processes.process_with_threads("some engine") is None
        True
    """
    _started_in.setdefault(package, os.getpid())


def process_with_threads(package: str) -> int | None:
    """The process before the fork in which a package's threads stayed; None where it can be used here.

    OpenVINO believes in a forked child that the threads of its parent are there, and waits for them.
    Examples:
        >>> patchcut.engines.processes.process_with_threads("openvino") is None
        True
    """
    process = _started_in.get(package)
    return None if process == os.getpid() else process


def check_process(opened_by: int) -> None:
    """Checks that an engine is used by the process that opened it.

    Args:
        opened_by: that process's id.
    Raises:
        EngineError: it is used in a fork of it.
    Examples:
        >>> import os
        >>> patchcut.engines.processes.check_process(os.getpid()) is None
        True
    """
    if opened_by != os.getpid():
        what = f"was loaded before the fork (by process {opened_by}), and its threads stayed there"
        remedy = 'load after the fork, in the child, or start processes with the method "spawn"'
        raise EngineError("segmenter", what, remedy)


def threads_that_start(wanted: int) -> int:
    """`wanted` where this process may have that many threads and one more, else 1.

    They are started, and end at once: a limit of processes (`ulimit -u`, pids of a container) is known only
    so. An engine to which the system refuses a thread may wait for it for ever, so that near the limit the
    calling thread works alone; the logger "patchcut" is told.
    Examples:
        >>> patchcut.engines.processes.threads_that_start(2)
        2
    """
    if wanted == 1:
        return 1
    before, end, started = _threads_now(), threading.Event(), 0
    try:
        while started < wanted:
            threading.Thread(target=end.wait, daemon=True).start()
            started += 1
    except (RuntimeError, MemoryError):  # "can't start new thread"
        what = "[threads] the engine runs on 1 thread instead of %d: the system refuses to start more; %s"
        _logger.warning(what, wanted, "look at ulimit -u and at the pids limit of the container")
    finally:
        end.set()
        _await_end(before)
    return wanted if started == wanted else 1


def _threads_now() -> int:
    """Threads of this process as the system counts them; 0 where it does not tell."""
    try:
        return sum(1 for _ in _TASKS.iterdir())
    except OSError:
        return 0


def _await_end(before: int) -> None:
    """Waits until there are as few threads as before: one that was joined still counts for a moment."""
    deadline = time.monotonic() + _END_S
    while _threads_now() > before and time.monotonic() < deadline:
        time.sleep(1e-4)
