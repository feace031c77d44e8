"""What one way costs alone: its memory and how long it takes to load, in a process of its own.

`python -m patchcut_export.measuring.parity.one_process SETTINGS` prints them as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from patchcut.settings import Settings

_STATUS = Path("/proc/self/status")
_FRAMES = 3
_LIMIT_S = 1800


@dataclass(frozen=True)
class Cost:
    """Of a process that loads a bundle and looks at a few frames.

    Attributes:
        load_s: seconds from the call of `load` to a segmenter.
        peak_mb: the most memory that the process had, in 10^6 bytes, Python and its packages included.
    """

    load_s: float
    peak_mb: float


def measure_alone(settings: Settings) -> Cost | None:
    """What the settings cost; None where a process of its own could not run them."""
    chosen = {one.name: getattr(settings, one.name) for one in fields(settings)}
    words = json.dumps({**chosen, "bundle": str(settings.bundle)})
    command = [sys.executable, "-m", __name__, words]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=_LIMIT_S)
        return Cost(**json.loads(done.stdout.splitlines()[-1]))
    except (subprocess.SubprocessError, OSError, ValueError, LookupError, TypeError):
        return None


def _cost(chosen: dict[str, Any]) -> Cost:
    import numpy as np
    import patchcut

    settings = Settings(**chosen)
    begin = time.perf_counter()
    segmenter = patchcut.Segmenter.open(settings)
    load_s = time.perf_counter() - begin
    frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    for _ in range(_FRAMES):
        segmenter(frame)
    return Cost(round(load_s, 3), round(_peak_bytes() / 1e6, 1))


def _peak_bytes() -> int:
    """The largest resident size of this process so far; not getrusage's, which begins with the parent's."""
    lines = _STATUS.read_text("ascii", "replace").splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
    return 1024 * int(kilobytes)


if __name__ == "__main__":
    print(json.dumps(asdict(_cost(json.loads(sys.argv[1])))))
