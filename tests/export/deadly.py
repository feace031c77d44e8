"""What kills the worker of a Ray cluster that reads it, once."""

from __future__ import annotations

import os
import signal
from pathlib import Path, PosixPath
from typing import Any

from patchcut_export.clustering.points import Points


def arm(count: int) -> Path:
    """The `count`-th of those that come from now on dies; the file that is given is there until then."""
    flag = Path(os.environ["DEADLY_FLAG"])
    flag.write_text(str(count))
    return flag


def _come() -> None:
    flag = Path(os.environ["DEADLY_FLAG"])
    if not flag.is_file():
        return
    left = int(flag.read_text()) - 1
    flag.write_text(str(left))
    if left == 0:
        flag.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


class DeadlyPoints(Points):
    """Points; who reads the last of them comes."""

    def read(self, begin: int, end: int) -> Any:
        if end == self.count and end - begin > 1:
            _come()
        return super().read(begin, end)


class DeadlyPath(PosixPath):
    """The path of a file; who looks whether it is there comes."""

    def is_file(self, *args: Any, **options: Any) -> bool:
        _come()
        return super().is_file(*args, **options)
