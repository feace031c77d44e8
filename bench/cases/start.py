"""A fresh process, from nothing to the first result."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench import subjects
from bench.cases import BenchError, Options, Target
from bench.harness import Times
from bench.rows import Outcome

TITLE = "fresh processes with a warm disk cache: import, load and first result, peak memory"
CASES = ("fresh process: import patchcut", "fresh process: first result 224")
REPEATS = 9
TARGETS = (
    Target(CASES[0], "median_ms", "<=", 500, " ms", "import patchcut"),
    Target(CASES[1], "median_ms", "<=", 2500, " ms", "import, load and first result"),
    Target(CASES[1], "peak_memory_mb", "<=", 400, " MB", "peak memory of that process"),
)
_SIZE = 224

_IMPORT = """
import time
begin = time.perf_counter()
import patchcut
ms = 1e3 * (time.perf_counter() - begin)
told = "none"
"""
_FIRST_RESULT = """
import time
begin = time.perf_counter()
import numpy, patchcut
frame = numpy.load({frame!r})
segmenter = patchcut.load(settings=patchcut.{settings!r})
segmenter(frame).masks
ms = 1e3 * (time.perf_counter() - begin)
told = segmenter.describe().precision
"""
# Not ru_maxrss: Linux lets that start from the size of the process that made this one.
_TELL = """
import json, re
status = open("/proc/self/status").read()
print(json.dumps([ms, int(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1]) / 2**10, told]))
"""


def run(options: Options) -> Iterator[Outcome]:
    """One process of each kind in turn; the first of each only warms the disk cache."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.npy"
        np.save(path, subjects.frame(subjects.VGA_HW))
        settings = replace(
            options.settings, bundle=str(options.bundle), size=_SIZE, device="cpu", threads=options.threads
        )
        first = _FIRST_RESULT.format(frame=str(path), settings=settings)
        measured: list[list[tuple[float, float, str]]] = [[], []]
        for _ in range((options.repeats or REPEATS) + 1):
            for rows, code in zip(measured, (_IMPORT, first), strict=True):
                rows.append(run_fresh(code))
    inside = ("import patchcut", "import patchcut, load the bundle, one 640x480 frame to Result with masks")
    for case, told, rows in zip(CASES, inside, measured, strict=True):
        ms, peaks, precisions = zip(*rows[1:], strict=True)
        yield Outcome(
            case,
            "patchcut",
            f"{told}, in a fresh process, disk cache warm",
            Times(ms),
            dtype=precisions[0],
            bundle=options.bundle if case != CASES[0] else None,
            peak_memory_mb=round(float(np.median(peaks)), 1),
        )


def run_fresh(code: str) -> tuple[float, float, str]:
    """Milliseconds, peak MB and a text of a process of its own, from the code's `ms` and `told`.

    Raises:
        BenchError: the code failed.
    """
    done = subprocess.run([sys.executable, "-c", code + _TELL], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise BenchError(f"a fresh process failed: {said[-1] if said else done.returncode}")
    ms, peak, told = json.loads(done.stdout)
    return float(ms), float(peak), str(told)
