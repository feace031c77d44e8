"""Joining a Ray cluster, and what is said where that fails."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

from patchcut.checks import check_choice
from patchcut.errors import EngineError, install_hint

# How long a cluster at an address may take to accept a connection, and then to answer.
CONNECT_S, ANSWER_S = 10, 60


def import_ray() -> Any:
    """The module `ray`.

    Raises:
        EngineError: "[engine] Ray is not installed: ...; pip install '...[scale]'".
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its maker
    try:
        import ray
    except ImportError as error:
        raise EngineError("engine", f"Ray is not installed: {error}", install_hint("scale")) from error
    return ray


def connect(ray: Any, address: str | None = None) -> bool:
    """Joins a cluster, unless this process has done so; whether it did now.

    Args:
        ray: the module.
        address: as `ray.init` takes it; None for RAY_ADDRESS, else for a cluster on this machine.
    Raises:
        EngineError: "[engine] no Ray cluster at 10.0.0.1:6379: ...", after `CONNECT_S` and
            `ANSWER_S` at most.
    """
    if ray.is_initialized():
        return False
    wanted = address or os.environ.get("RAY_ADDRESS") or "auto"
    try:
        _check_answers(wanted)
        ray.init(address=wanted, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        where = "on this machine" if wanted == "auto" else f"at {wanted}"
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        remedy = "start one with `ray start --head`, or name one in RAY_ADDRESS"
        raise EngineError("engine", f"no Ray cluster {where}: {first}", remedy) from error
    return True


def places(ray: Any, device: str) -> int:
    """How many tasks, each with a CPU or a GPU of its own, run at a time in the cluster.

    Raises:
        OptionError: the device is neither "cpu" nor "cuda".
        EngineError: the cluster has none of these devices.
    """
    check_choice("device", device, ("cpu", "cuda"))
    resource = "GPU" if device == "cuda" else "CPU"
    count = int(ray.cluster_resources().get(resource, 0))
    if count == 0:
        raise EngineError("engine", f"the Ray cluster has no {resource}", "add a machine that has one")
    return count


def _check_answers(address: str) -> None:
    """Checks that a cluster is at a host and port, where Ray itself would try for minutes.

    Raises:
        OSError: nothing listens there, or it does not answer as a cluster does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    if address.startswith("ray://"):  # its client gives up by itself
        return
    ask = "from ray.scripts.scripts import main; main()"
    words = [sys.executable, "-c", ask, "health-check", "--address", address]
    try:
        asked = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ConnectionError(f"it does not answer within {ANSWER_S} s") from error
    if asked.returncode:
        raise ConnectionError("what listens there does not answer as a cluster does")
