"""The threads of streams: which ones live, and what is waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def stream_threads() -> list[str]:
    """Those of streams: an engine of another test, which still lives, may have threads of its own."""
    names = (one.name for one in threading.enumerate())
    return sorted(name for name in names if name.startswith(("patchcut-read", "patchcut-segment")))


def until(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether something became true in time."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.005)
    return true()
