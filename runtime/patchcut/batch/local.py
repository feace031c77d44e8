"""Workers as processes of this machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from patchcut.batch.crews import Died, Heard, is_last
from patchcut.batch.worker import Job, Task, Worker
from patchcut.errors import EngineError, PatchcutError

_PR_SET_PDEATHSIG = 1
_START = "from patchcut.batch.local import serve; serve({}, {})"


@dataclass
class _Process:
    process: subprocess.Popen[bytes]
    pipe: Connection
    task: Task | None = None


class LocalCrew:
    """Workers that are processes, started when they are needed; they end when this process does, however.

    They import nothing of the caller's own program, so that a script needs no guard around its main part.

    Args:
        job: of all shards.
        workers: processes at most.
    """

    def __init__(self, job: Job, workers: int) -> None:
        self._job, self._most = job, workers
        self._running: list[_Process] = []

    @property
    def free(self) -> int:
        return self._most - self.busy

    @property
    def busy(self) -> int:
        return sum(one.task is not None for one in self._running)

    @property
    def processes(self) -> list[int]:
        """Ids of the processes."""
        return [one.process.pid for one in self._running]

    def give(self, task: Task) -> None:
        """As in `Crew`."""
        idle = [one for one in self._running if one.task is None]
        worker = idle[0] if idle else self._start()
        worker.task = task
        with contextlib.suppress(OSError):  # it has died, which `wait` tells
            worker.pipe.send(task)

    def wait(self) -> list[tuple[Task, Heard]]:
        """As in `Crew`."""
        heard: list[tuple[Task, Heard]] = []
        ready = wait([one.pipe for one in self._running])
        for one in [one for one in self._running if one.pipe in ready]:
            task, told = one.task, self._hear(one)
            if task is not None:
                heard.append((task, told))
            if is_last(told):
                one.task = None
            if isinstance(told, Died):
                self._end(one)
        return heard

    def close(self) -> None:
        """As in `Crew`."""
        for one in self._running:
            one.process.kill()
        for one in list(self._running):
            self._end(one)

    def _hear(self, worker: _Process) -> Heard:
        try:
            heard: Heard = worker.pipe.recv()
        except (EOFError, OSError):
            return Died()
        return heard

    def _start(self) -> _Process:
        ours, theirs = socket.socketpair()
        code = _START.format(theirs.fileno(), os.getpid())
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd="/",  # which Python looks for modules in
            )
        except OSError as error:
            ours.close()
            what = f"cannot be started: {error.strerror or error}"
            raise EngineError("worker", what, "choose fewer with --workers") from error
        finally:
            theirs.close()
        worker = _Process(process, Connection(ours.detach()))
        self._running.append(worker)
        with contextlib.suppress(OSError):
            worker.pipe.send(self._job)
        return worker

    def _end(self, worker: _Process) -> None:
        worker.pipe.close()
        worker.process.kill()
        worker.process.wait()
        self._running.remove(worker)


def serve(descriptor: int, parent: int) -> None:
    """What a process does: a job comes first, then shards, until the other end is closed.

    Args:
        descriptor: of a socket that is connected to the parent.
        parent: its process id; this process ends with it.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what a Ctrl-C stops
    pipe = Connection(descriptor)
    worker: Worker | None = None
    with contextlib.suppress(EOFError, OSError):
        job = pipe.recv()
        while True:
            task = pipe.recv()
            try:
                worker = worker or Worker(job)
                for told in worker.work(task):
                    pipe.send(told)
            except PatchcutError as error:
                pipe.send(error)
            except Exception as error:
                pipe.send(EngineError("worker", f"failed: {type(error).__name__}: {error}", "report this"))
