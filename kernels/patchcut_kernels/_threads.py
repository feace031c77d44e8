"""Threads of the ops."""

from __future__ import annotations

from . import _C, _checks


def default_threads() -> int:
    """Threads that suit this process: the physical cores it may run on, limited by its CPU quota.

    Hyper-threads of one core count once. The quota is that of the process's control groups (cpu.max in
    version 2, cpu.cfs_quota_us in version 1, the least one on the way to the root), rounded down, at least 1:
    a container with 2.5 CPUs gets 2. The environment variable PATCHCUT_THREADS plays no part here.
    Examples:
        >>> pk.default_threads() >= 1
        True
    """
    return _C.default_threads("")


def get_threads() -> int:
    """Threads that one op uses, the calling one included.

    PATCHCUT_THREADS where that is set, else `default_threads()`, until `set_threads` is called; fewer where
    the system did not start as many.
    Raises:
        ValueError: "[threads] PATCHCUT_THREADS must be 1 to 256, got 0".
    Examples:
        >>> 1 <= pk.get_threads() <= 256
        True
    """
    return _C.get_threads()


def set_threads(count: int) -> None:
    """Lets ops use `count` threads, 1 to 256; results do not depend on it.

    Waits for an op that is running. Where the system does not start as many threads (a limit of processes or
    memory), ops use those it did start: `get_threads` tells how many.
    Raises:
        ValueError: "[set_threads] count must be 1 to 256, got 0".
    Examples:
        >>> pk.set_threads(1)
        >>> pk.get_threads()
        1
    """
    _C.set_threads(_checks.integer("set_threads", "count", count, 1, 256))
