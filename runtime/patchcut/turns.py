"""Whose turn it is: one thread works at a time, and knows whether others wait for it."""

from __future__ import annotations

import threading
from collections import deque
from time import sleep

# How long others have to take what they wait for.
_WAY_S = 0.001


class Turns:
    """A lock that tells whether threads wait for it, and goes to them before the thread that had it last.

    Examples:
        >>> turns = patchcut.turns.Turns()
        >>> with turns:
        ...     turns.is_awaited
        False
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: deque[None] = deque()  # appends and pops are atomic

    def __enter__(self) -> None:
        self._inside.append(None)
        try:
            self._lock.acquire()
        except BaseException:
            self._inside.pop()
            raise

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()
        self._inside.pop()
        if self._inside:
            sleep(_WAY_S)  # or this thread would have it again before the one that waits wakes up

    @property
    def is_awaited(self) -> bool:
        """Whether others wait while one has it.

        Examples:
            >>> patchcut.turns.Turns().is_awaited
            False
        """
        return len(self._inside) > 1
