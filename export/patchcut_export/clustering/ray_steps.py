"""Passes of k-means on the machines of a Ray cluster."""

from __future__ import annotations

import itertools
from typing import Any

import patchcut_kernels as kernels
from patchcut.checks import check_choice, check_whole
from patchcut.errors import EngineError

from patchcut_export.clustering.points import Points, unpack
from patchcut_export.clustering.steps import Advance, Float32, LocalSteps, Pass, PassSums
from patchcut_export.ray_cluster import OnRay


class RaySteps(OnRay):
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
        EngineError: Ray is not installed, or there is no cluster.
    """

    def __init__(self, *, address: str | None = None, shards: int | None = None, device: str = "cpu") -> None:
        check_choice("device", device, ("cpu", "cuda"))
        if shards is not None:
            check_whole("shards", shards, 1, 1_000_000)
        super().__init__(address=address)
        try:
            self._shards = shards or self._places(device)
        except EngineError:
            self.close()
            raise
        self._device = device
        self._shard_task = self._task(_run_shard, device)
        self._sent: tuple[Points, Any] | None = None

    def run(self, points: Points, centroids: Float32, asked: Pass, advance: Advance) -> PassSums:
        """As in `Steps`."""
        ray, sent, shared = self._ray, self._send(points), self._ray.put((centroids, asked))
        borders = [points.count * i // self._shards for i in range(self._shards + 1)]
        shards = [(begin, end) for begin, end in itertools.pairwise(borders) if begin < end]
        tasks = [self._shard_task.remote(sent, begin, end, shared, self._device) for begin, end in shards]
        lengths = {task: end - begin for task, (begin, end) in zip(tasks, shards, strict=True)}
        waiting, done = tasks, 0
        try:
            with self._errors_told():
                while waiting:
                    ready, waiting = ray.wait(waiting)
                    done += sum(lengths[task] for task in ready)
                    advance(done, points.count)
                made = ray.get(tasks)
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
