"""Probes in processes of their own: whatever they import, the report goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

# Much more than a slow board takes to import an engine from a cold disk.
PATIENCE_S = 60.0
NO_ANSWER = "does not answer"
"""How the error of a probe begins that was given up."""

# The parent's path, before anything is imported: not even the working directory stands before it.
_RUN = "import sys; sys.path[:] = sys.argv[2:]; from patchcut.doctor.probes import main; main(sys.argv[1])"
_SHOWN_LETTERS = 300

Facts = dict[str, Any]


def run_apart(probes: Mapping[str, Sequence[str]], patience_s: float = PATIENCE_S) -> dict[str, Facts]:
    """What probes found, by their names; one that failed, died or did not answer has an "error".

    Args:
        probes: name of each process → names of the probes that it runs, one after the other.
        patience_s: seconds until those that still run are killed.
    Examples:
        >>> patchcut.doctor.apart.run_apart({"one": ["opencv"]}, 600)["opencv"]["version"]
        '...'
    """
    started = {name: _start(words) for name, words in probes.items()}
    end = time.monotonic() + patience_s
    found: dict[str, Facts] = {}
    try:
        for name, process in started.items():
            found |= _collect(process, probes[name], max(0.0, end - time.monotonic()), patience_s)
    finally:
        for process in started.values():
            if isinstance(process, subprocess.Popen):
                with suppress(OSError):
                    process.kill()
                process.communicate()
    return found


def _start(probes: Sequence[str]) -> subprocess.Popen[str] | OSError:
    try:
        return subprocess.Popen(
            [sys.executable, "-c", _RUN, ",".join(probes), *sys.path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        return error


def _collect(
    process: subprocess.Popen[str] | OSError, probes: Sequence[str], left_s: float, patience_s: float
) -> dict[str, Facts]:
    if isinstance(process, OSError):
        return {name: {"error": f"cannot be looked at: {process}"} for name in probes}
    try:
        out, said = process.communicate(timeout=left_s)
        end = _end_of(process.returncode)
    except subprocess.TimeoutExpired:
        process.kill()
        out, said = process.communicate()
        end = f"{NO_ANSWER} within {patience_s:g} s: it hangs, or is starved by other work"
    found: dict[str, Facts] = {}
    for line in out.splitlines():
        with suppress(ValueError, TypeError):
            found |= json.loads(line)
    last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")
    missing = f"{end}: {last[-_SHOWN_LETTERS:]}" if last else end
    return {name: found.get(name, {"error": missing}) for name in probes}


def _end_of(status: int) -> str:
    """How a process ended that did not say what it was asked."""
    if status >= 0:
        return f"ended with status {status}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-status).name}"
    return f"was killed by signal {-status}"
