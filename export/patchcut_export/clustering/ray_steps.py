"""Passes of k-means on the machines of a Ray cluster."""

from __future__ import annotations

import itertools
import os
import socket
from types import TracebackType
from typing import Any

import patchcut_kernels as kernels
from patchcut.checks import check_choice, check_whole
from patchcut.errors import install_hint

from patchcut_export.clustering.points import Points, unpack
from patchcut_export.clustering.steps import Advance, Float32, LocalSteps, Pass, PassSums
from patchcut_export.errors import ExportError

# How often a shard is done again whose worker was lost.
RETRIES = 5


class RaySteps:
    """Each pass as tasks of a Ray cluster, one for each shard of the points; merged in the shards' order.

    A task whose worker or machine is lost is done again elsewhere. A memory map is opened by its path on
    every machine; an array in memory is sent to each once.

    Args:
        address: the cluster's, as `ray.init` takes it; None for the one that this process is connected to,
            else for RAY_ADDRESS, else for one on this machine.
        shards: tasks of a pass; None for as many as the cluster has CPUs, or on "cuda" GPUs.
        device: "cpu", where a task takes one CPU and one thread, or "cuda", where it takes a GPU.
    Raises:
        OptionError: another device, or shards out of range.
        ExportError: Ray is not installed, or there is no cluster.
    """

    def __init__(self, *, address: str | None = None, shards: int | None = None, device: str = "cpu") -> None:
        check_choice("device", device, ("cpu", "cuda"))
        if shards is not None:
            check_whole("shards", shards, 1, 1_000_000)
        self._ray = _import_ray()
        self._connected = _connect(self._ray, address)
        resource = "GPU" if device == "cuda" else "CPU"
        self._shards = shards or int(self._ray.cluster_resources().get(resource, 0))
        if self._shards == 0:
            self.close()
            raise ExportError("engine", f"the Ray cluster has no {resource}", "add a machine that has one")
        self._device = device
        needs = {"num_cpus": 1, "num_gpus": 1 if device == "cuda" else 0}
        self._task = self._ray.remote(max_retries=RETRIES, **needs)(_run_shard)
        self._sent: tuple[Points, Any] | None = None

    def __enter__(self) -> RaySteps:
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

    def run(self, points: Points, centroids: Float32, asked: Pass, advance: Advance) -> PassSums:
        """As in `Steps`."""
        ray, sent, shared = self._ray, self._send(points), self._ray.put((centroids, asked))
        borders = [points.count * i // self._shards for i in range(self._shards + 1)]
        shards = [(begin, end) for begin, end in itertools.pairwise(borders) if begin < end]
        tasks = [self._task.remote(sent, begin, end, shared, self._device) for begin, end in shards]
        lengths = {task: end - begin for task, (begin, end) in zip(tasks, shards, strict=True)}
        waiting, done = tasks, 0
        try:
            while waiting:
                ready, waiting = ray.wait(waiting)
                done += sum(lengths[task] for task in ready)
                advance(done, points.count)
            made = ray.get(tasks)
        except ray.exceptions.RayTaskError as error:
            raise _told(error) from error
        except ray.exceptions.RayError as error:
            raise _lost(error) from error
        finally:
            for task in waiting:
                ray.cancel(task)
        found = PassSums.nothing(centroids, asked)
        for part in made:
            found = found.plus(part, asked.leading)
        return found

    def _send(self, points: Points) -> Any:
        if self._sent is None or self._sent[0] is not points:
            self._sent = points, self._ray.put(points.packed())
        return self._sent[1]


def _run_shard(
    packed: tuple[Any, ...], begin: int, end: int, shared: tuple[Float32, Pass], device: str
) -> PassSums:
    """What a worker does: the pass over its part of the points."""
    kernels.set_threads(1)
    centroids, asked = shared
    return LocalSteps(device).run_part(
        unpack(*packed), begin, end, centroids, asked, lambda done, total: None
    )


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
