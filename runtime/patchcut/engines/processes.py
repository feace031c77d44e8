"""What an engine's threads ask of the process: that it starts them, and that a fork does not take them away."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import weakref

from patchcut.errors import EngineError

_logger = logging.getLogger("patchcut")

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


def startable_threads(wanted: int) -> int:
    """How many of `wanted` threads this process can have at once, the calling one included.

    They are started, and end at once: a limit of processes (`ulimit -u`, a container's pids) is known only so.
    Where it is less than wanted, the logger "patchcut" is told.
    Examples:
        >>> patchcut.engines.processes.startable_threads(2)
        2
    """
    end = threading.Event()
    started: list[threading.Thread] = []
    try:
        while len(started) < wanted - 1:
            thread = threading.Thread(target=end.wait, daemon=True)
            thread.start()
            started.append(thread)
    except (RuntimeError, MemoryError):  # "can't start new thread"
        what = "this process starts %d of %d threads: a limit of processes (ulimit -u, pids of a container)"
        _logger.warning("[threads] " + what, len(started) + 1, wanted)
    finally:
        end.set()
        for thread in started:
            thread.join()
    return len(started) + 1
