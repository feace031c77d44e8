"""Workers as actors of a Ray cluster.

Actors, and not Ray Data's pool of them: that does a block whose worker died again without an end, and cannot
say which frame it was at.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from patchcut.batch.crews import Died, Heard, is_last
from patchcut.batch.ray_cluster import connect, import_ray, places
from patchcut.batch.worker import Job, Task, Worker
from patchcut.errors import EngineError, PatchcutError

# Messages a second of all workers together, which one process can take in.
_MOST_TOLD = 500


@dataclass
class _Actor:
    actor: Any
    task: Task | None = None
    told: Any = None


class RayCrew:
    """Workers that are actors of a cluster, each with CPUs of its own, or on "cuda" a GPU.

    Args:
        job: of all shards.
        workers: actors at most; None for as many as the cluster has places for, which also bounds it.
        address: the cluster's, as `ray.init` takes it; None for the one that this process is connected to,
            else for RAY_ADDRESS, else for one on this machine.
    Raises:
        EngineError: Ray is not installed, or there is no cluster.
    """

    def __init__(self, job: Job, workers: int | None = None, *, address: str | None = None) -> None:
        self._ray = import_ray()
        _check_address(address or os.environ.get("RAY_ADDRESS") or "")
        self._connected = connect(self._ray, address)
        self._running: list[_Actor] = []
        try:
            on_gpu = job.settings.device == "cuda"
            cpus = 1 if on_gpu else job.settings.threads or 1
            most = max(1, places(self._ray, "cuda" if on_gpu else "cpu") // cpus)
        except PatchcutError:
            self.close()
            raise
        self._most = most if workers is None else min(most, workers)
        self._job = replace(job, tell_s=max(job.tell_s, self._most / _MOST_TOLD))
        needs = {"num_cpus": cpus, "num_gpus": int(on_gpu), "max_restarts": 0, "max_task_retries": 0}
        self._class = self._ray.remote(**needs)(_RayWorker)

    @property
    def free(self) -> int:
        return self._most - self.busy

    @property
    def busy(self) -> int:
        return sum(one.task is not None for one in self._running)

    def give(self, task: Task) -> None:
        """As in `Crew`."""
        idle = [one for one in self._running if one.task is None]
        worker = idle[0] if idle else _Actor(self._class.remote(self._job))
        if not idle:
            self._running.append(worker)
        worker.task = task
        worker.told = worker.actor.work.options(num_returns="streaming").remote(task)

    def wait(self) -> list[tuple[Task, Heard]]:
        """As in `Crew`."""
        working = [one for one in self._running if one.task is not None]
        waited = [one.told for one in working]
        self._ray.wait(waited, num_returns=1)
        ready, _ = self._ray.wait(waited, num_returns=len(waited), timeout=0)
        heard: list[tuple[Task, Heard]] = []
        for one in working:
            if one.task is None or not any(one.told is told for told in ready):
                continue
            told = self._hear(one)
            heard.append((one.task, told))
            if is_last(told):
                one.task = one.told = None
            if isinstance(told, Died):
                self._ray.kill(one.actor)  # it may only have been out of reach
                self._running.remove(one)
        return heard

    def close(self) -> None:
        """As in `Crew`; leaves the cluster, if it was this object that joined it."""
        for one in self._running:
            self._ray.kill(one.actor)
        self._running = []
        if self._connected:
            self._ray.shutdown()
            self._connected = False

    def _hear(self, worker: _Actor) -> Heard:
        errors = self._ray.exceptions
        try:
            heard: Heard = self._ray.get(next(worker.told))
        except StopIteration:
            return EngineError("worker", "ended without a report", "report this")
        except errors.RayTaskError as error:
            return _told(error)
        except errors.RayActorError:
            return Died()
        except errors.RayError as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            return EngineError("engine", f"the Ray cluster failed: {first}", "look at its log")
        return heard


class _RayWorker:
    """An actor. It opens its segmenter with the first shard, whose error is told then."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._worker: Worker | None = None

    def work(self, task: Task) -> Any:
        self._worker = self._worker or Worker(self._job)
        yield from self._worker.work(task)


def _check_address(address: str) -> None:
    """Checks that it is none of Ray's client, whose actors stream nothing.

    Raises:
        EngineError: it is.
    """
    if address.startswith("ray://"):
        remedy = "start it on a machine of the cluster, with the address HOST:6379"
        raise EngineError("engine", f"{address} is for Ray's client, which cannot run a batch", remedy)


def _told(error: Any) -> PatchcutError:
    """What a worker raised."""
    if isinstance(error.cause, PatchcutError):
        return error.cause
    return EngineError("worker", f"failed: {error}", "look at the log of its Ray machine")
