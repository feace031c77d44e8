"""What the packages that patchcut uses would tell others, switched off before they are imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def switch_off() -> None:
    """Sets ORT_DISABLE_TELEMETRY=1 for this process, unless it has a value.

    From 1.26 on onnxruntime writes an identifier of the machine below ~/.cache, later a database of events
    too, and 1.32 looks up its maker's host. It reads this variable when it is imported.

    Examples:
        >>> patchcut.telemetry.switch_off()
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


@contextmanager
def kept_out(package: str) -> Iterator[None]:
    """Makes imports of a package fail inside the block, unless it is imported already.

    `import openvino` by itself writes an identifier below ~/intel and looks up a host of a collector of
    statistics; without the package `openvino_telemetry` it has a stub that does nothing.

    Examples:
        >>> with patchcut.telemetry.kept_out("openvino_telemetry"):
        ...     "openvino_telemetry" in sys.modules
        True
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment] # this is how Python is told
    try:
        yield
    finally:
        sys.modules.pop(package, None)
