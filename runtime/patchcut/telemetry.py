"""What the packages that patchcut uses would tell others, switched off before they are imported."""

from __future__ import annotations

import os


def switch_off() -> None:
    """Sets ORT_DISABLE_TELEMETRY=1 for this process, unless it has a value.

    From 1.26 on onnxruntime writes an identifier of the machine below ~/.cache, later a database of events
    too, and 1.32 looks up its maker's host. It reads this variable when it is imported.

    Examples:
        >>> patchcut.telemetry.switch_off()
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
