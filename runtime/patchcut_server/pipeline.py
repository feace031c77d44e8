"""From the bodies of requests to answers: decoded, segmented and encoded on a thread each, in turn.

Frames wait encoded, so that a full queue holds no more than the bytes that came. Those that ask for the same
go through the backbone together where the engine gains by it: on a GPU, and on a CPU that runs frames beside
each other (`throughput`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from patchcut import Frame, Result, Segmenter
from patchcut.ahead import Ahead
from patchcut.errors import PatchcutError

from patchcut_server.metrics import Metrics
from patchcut_server.model import Changes, Model
from patchcut_server.refusals import Refusal, try_later
from patchcut_server.tracing import Stage, now_ns

# Frames that run together: as many as a device on the edge has cores.
_TOGETHER = 8
_NAP_S = 0.05
# How much the newest frame counts in the mean time of one.
_NEWEST = 0.1


@dataclass(eq=False)
class Job:
    """One request's frame on its way.

    Attributes:
        decode: makes the frame; what it raises is the request's answer.
        answer: makes what the request gets of the result.
        changes: the request's settings.
        prompts: points and boxes, as a segmenter takes them.
        future: has what `answer` returned.
        taken_s: when it was taken, on the monotonic clock.
        stages: what its time went into.
        segmenter, frame, result: set on the way.
    """

    decode: Callable[[], Frame]
    answer: Callable[[Result], Any]
    changes: Changes = ()
    prompts: dict[str, list[list[float]]] = field(default_factory=dict)
    future: Future[Any] = field(default_factory=Future)
    taken_s: float = field(default_factory=time.monotonic)
    taken_ns: int = field(default_factory=now_ns)
    stages: list[Stage] = field(default_factory=list)
    segmenter: Segmenter = field(init=False)
    frame: Frame = field(init=False)
    result: Result = field(init=False)

    def runs_with(self, other: Job) -> bool:
        """Whether one call of one segmenter does for both."""
        same = self.changes == other.changes and not (self.prompts or other.prompts)
        return same and self.segmenter.extractor is other.segmenter.extractor

    def forget(self) -> None:
        """Lets go of the frame and the result, which may be large; who waits for the answer needs neither."""
        for name in ("frame", "result"):
            vars(self).pop(name, None)

    @property
    def timings_ms(self) -> dict[str, float]:
        """What its time went into, in milliseconds."""
        return {name: took_ns / 1e6 for name, _, took_ns in self.stages}


class Pipeline:
    """Three threads that answer jobs in the order in which they came.

    Args:
        model: what answers.
        deadline_s: a job that cannot be begun within so many seconds is refused.
        batch_wait_s: how long a frame waits for others to run with.
        metrics: counts and times.
    """

    def __init__(self, model: Model, *, deadline_s: float, batch_wait_s: float, metrics: Metrics) -> None:
        self._model, self._metrics = model, metrics
        self._deadline_s, self._batch_wait_s = deadline_s, batch_wait_s
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._frame_s = 0.05
        self._news = threading.Event()
        self._decoded = Ahead(self._decode_all(), name="patchcut-decode", most=1, news=self._news)
        self._segmented = Ahead(self._segment_all(), name="patchcut-segment", most=1)
        self._thread = threading.Thread(target=self._answer_all, name="patchcut-answer", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Future[Any]:
        """Takes a job; its future ends with what the request gets, or with what it is refused with."""
        with self._changed:
            if not self.is_alive:
                error = PatchcutError("server", "is stopping", "ask another one")
                raise Refusal(503, error, "stopping")
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    @property
    def is_alive(self) -> bool:
        """Whether it takes jobs: it was not closed, and its threads run."""
        return not self._closed and self._thread.is_alive()

    def wait_s(self, ahead: int) -> int:
        """Whole seconds after which so many frames will have been answered, at least 1."""
        return max(1, round(ahead * self._frame_s + 0.5))

    def close(self) -> None:
        """Ends the threads; jobs that wait are refused."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        for ahead in (self._segmented, self._decoded):
            ahead.stop()
        for ahead in (self._segmented, self._decoded):
            ahead.join()
        self._thread.join(1.0)
        error = PatchcutError("server", "has stopped", "ask again")
        while self._jobs:
            _fail(self._jobs.popleft(), Refusal(503, error, "stopping"))

    def _decode_all(self) -> Iterator[Job | None]:
        while True:
            with self._changed:
                if not self._jobs and not self._closed:
                    self._changed.wait(_NAP_S)
                job = self._jobs.popleft() if self._jobs else None
            if job is None:
                yield None
            elif self._decode(job):
                held = [job]
                del job
                yield held.pop()

    def _decode(self, job: Job) -> bool:
        """Whether a job has its frame; one whose client has left or whose time is over has not."""
        if not job.future.set_running_or_notify_cancel():
            self._metrics.refused.labels("left").inc()
            return False
        job.stages.append(("queue", job.taken_ns, now_ns() - job.taken_ns))
        try:
            self._check_time(job)
            begun_ns = now_ns()
            job.segmenter = self._model.segmenter(job.changes)
            job.frame = job.decode()
            job.stages.append(("decode", begun_ns, now_ns() - begun_ns))
        except BaseException as error:
            _fail(job, error)
            return False
        return True

    def _check_time(self, job: Job) -> None:
        waited_s = time.monotonic() - job.taken_s
        if waited_s > self._deadline_s:
            what = f"could not begin this within {self._deadline_s:g} s"
            raise try_later("queue", what, "deadline", self.wait_s(len(self._jobs)))

    def _segment_all(self) -> Iterator[Job | None]:
        left: Job | None = None
        while True:
            first = left if left is not None else next(self._decoded, None)
            if first is None:
                return
            batch, left = self._batch(first)
            del first
            self._metrics.batches.observe(len(batch))
            yield from self._segment(batch)
            del batch

    def _batch(self, first: Job) -> tuple[list[Job], Job | None]:
        """A job and those that run with it, and one that came after them and does not."""
        batch, together = [first], together_of(first.segmenter)
        self._decoded.most = together
        ends_s = time.monotonic() + self._batch_wait_s
        while len(batch) < together and not first.prompts:
            self._news.clear()
            if not self._decoded.is_ready():
                left_s = ends_s - time.monotonic()
                if left_s <= 0 or not self._news.wait(left_s):
                    break
                continue
            job = next(self._decoded, None)
            if job is None or not job.runs_with(first):
                return batch, job
            batch.append(job)
        return batch, None

    def _segment(self, batch: Sequence[Job]) -> Iterator[Job]:
        """The jobs that have a result; what is wrong with one fails no other."""
        begun_ns, begun_s = now_ns(), time.monotonic()
        ready = []
        for job in batch:
            try:
                self._check_time(job)
                ready.append(job)
            except Refusal as refusal:
                _fail(job, refusal)
        if not ready:
            return
        try:
            results = _results(ready)
        except BaseException as error:
            if len(ready) == 1:
                _fail(ready[0], error)
                return
            for job in ready:
                yield from self._segment([job])
            return
        mean_s = (time.monotonic() - begun_s) / len(ready)
        self._frame_s += _NEWEST * (mean_s - self._frame_s)
        for job, result in zip(ready, results, strict=True):
            job.result = result
            for name, ms in result.timings_ms.items():
                took_ns = int(1e6 * ms)
                job.stages.append((name, begun_ns, took_ns))
                begun_ns += took_ns
            yield job

    def _answer_all(self) -> None:
        for job in self._segmented:
            begun_ns = now_ns()
            vars(job.result)["timings_ms"] = job.timings_ms  # nobody has seen it yet
            try:
                answered = job.answer(job.result)
            except BaseException as error:
                _fail(job, error)
            else:
                job.stages.append(("answer", begun_ns, now_ns() - begun_ns))
                self._metrics.tell(job.timings_ms)
                job.future.set_result(answered)
                del answered
            job.forget()
            del job


def together_of(segmenter: Segmenter) -> int:
    """How many frames go through the backbone together: 1 where that gains nothing.

    Examples:
        >>> together_of(seg), together_of(patchcut.load(throughput=True)) > 1
        (1, True)
    """
    facts = segmenter.extractor.engine.facts
    if facts.device == "cpu" and not facts.beside:
        return 1
    return min(_TOGETHER, facts.max_batch)


def _results(jobs: Sequence[Job]) -> list[Result]:
    first = jobs[0]
    if first.prompts:
        prompts: dict[str, Any] = first.prompts
        return [first.segmenter(first.frame, **prompts)]
    return first.segmenter.batch([job.frame for job in jobs])


def _fail(job: Job, error: BaseException) -> None:
    job.forget()
    if not job.future.done():
        job.future.set_exception(error)
