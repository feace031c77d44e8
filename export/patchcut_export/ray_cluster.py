"""A Ray cluster: joining it, giving it tasks, and what is said when it fails."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from patchcut.checks import check_choice
from patchcut.errors import install_hint

from patchcut_export.errors import ExportError

if TYPE_CHECKING:
    from typing_extensions import Self

# How often a task is done again whose worker was lost.
RETRIES = 5


class OnRay:
    """What gives its work to the tasks of a Ray cluster.

    Args:
        address: the cluster's, as `ray.init` takes it; None for the one that this process is connected to,
            else for RAY_ADDRESS, else for one on this machine.
    Raises:
        ExportError: Ray is not installed, or there is no cluster.
    """

    def __init__(self, *, address: str | None = None) -> None:
        self._ray = _import_ray()
        self._connected = _connect(self._ray, address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the cluster, if it was this object that joined it."""
        if self._connected:
            self._ray.shutdown()
            self._connected = False

    def _places(self, device: str) -> int:
        """How many tasks run at a time.

        Raises:
            OptionError: the device is neither "cpu" nor "cuda".
            ExportError: the cluster has none of these devices.
        """
        check_choice("device", device, ("cpu", "cuda"))
        resource = "GPU" if device == "cuda" else "CPU"
        places = int(self._ray.cluster_resources().get(resource, 0))
        if places == 0:
            raise ExportError("engine", f"the Ray cluster has no {resource}", "add a machine that has one")
        return places

    def _task(self, function: Callable[..., Any], device: str) -> Any:
        """`function` as a task that takes one CPU, and a GPU on "cuda"; done again where a worker is lost."""
        needs = {"num_cpus": 1, "num_gpus": 1 if device == "cuda" else 0}
        return self._ray.remote(max_retries=RETRIES, **needs)(function)

    @contextmanager
    def _errors_told(self) -> Iterator[None]:
        """Raises what a worker raised, and an ExportError where workers were lost."""
        errors = self._ray.exceptions
        try:
            yield
        except errors.RayTaskError as error:
            raise _told(error) from error
        except errors.RayError as error:
            raise _lost(error) from error


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its maker
    try:
        import ray
    except ImportError as error:
        raise ExportError("engine", f"Ray is not installed: {error}", install_hint("scale")) from error
    return ray


def _connect(ray: Any, address: str | None) -> bool:
    """Joins the cluster, unless this process has done so; whether it did now."""
    if ray.is_initialized():
        return False
    wanted = address or os.environ.get("RAY_ADDRESS") or "auto"
    try:
        _check_listening(wanted)
        ray.init(address=wanted, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        where = "on this machine" if wanted == "auto" else f"at {wanted}"
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        remedy = "start one with `ray start --head`, or name one in RAY_ADDRESS"
        raise ExportError("engine", f"no Ray cluster {where}: {first}", remedy) from error
    return True


def _check_listening(address: str) -> None:
    """Raises an OSError where nothing listens at a host and port: Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _told(error: Any) -> Exception:
    """What a worker raised."""
    cause = error.cause
    if isinstance(cause, Exception) and not isinstance(cause, type(error)):
        return cause
    return ExportError("engine", f"a worker failed: {error}", "look at the log of its Ray machine")


def _lost(error: Any) -> ExportError:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    remedy = "look at the log of its Ray machine; where memory ran out, choose smaller chunks"
    return ExportError("engine", f"a shard's worker was lost {RETRIES + 1} times: {first}", remedy)
