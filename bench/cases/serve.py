"""`patchcut serve` on loopback: a request beside a call, eight clients, overload, and odd bodies."""

from __future__ import annotations

import asyncio
import http.client
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import patchcut
from patchcut import Settings
from patchcut.cli.demo import SAMPLES
from patchcut.sources.photos import read_photo

from bench.cases import BenchError, Options, Target
from bench.harness import Contender, Times, interleave
from bench.odd_bodies import requests
from bench.rows import Outcome

TITLE = "the server, in a process of its own, with clients on this machine"
PICTURE_HW = (480, 640)
CASES = ("one request", "eight clients", "70 % load", "overload", "odd bodies")
REPEATS = 40
MINUTES, ODD_BODIES = 5.0, 10_000
TARGETS = (
    Target(CASES[0], "overhead_ms", "<=", 8, " ms", "a request of 640x480 JPEG less `seg(frame)`, p50"),
    Target(CASES[1], "rate_over_call", ">=", 0.85, "", "rate of eight clients / of `seg(frame)` alone"),
    Target(CASES[2], "p99_over_p50", "<=", 3, "", "p99 / p50 of eight clients at 70 % of that rate"),
    Target(CASES[3], "unanswered", "<=", 0, "", "requests at three times that rate without 200 or 429"),
    Target(CASES[3], "grown_mb", "<=", 20, " MB", "memory that the server grows by after a tenth of it"),
    Target(CASES[3], "p99_over_deadline", "<=", 1.2, "", "p99 of what was accepted / deadline and a frame"),
    Target(CASES[4], "unforeseen", "<=", 0, "", "odd bodies that end a connection, or get a status of 5xx"),
)
CLIENTS, OVERLOAD, LOAD = 8, 3.0, 0.7
ROUND_S, ROUNDS, LOAD_S = 4.0, 5, 20.0
DEADLINE_S, QUEUE = 1.0, 16
_START_S = 600.0
_LOOK_S = 0.5
_SENDERS = 48

# Of `Server-Timing`: what is not a stage of a segmenter.
_NOT_STAGES = ("queue", "decode", "answer")

SERVED, CALLED = "patchcut", "seg(frame)"


@dataclass
class Tally:
    """What clients saw.

    Attributes:
        statuses: of answers; 0 where there was none.
        ms: of answers with 200.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    ms: list[float] = field(default_factory=list)

    def add(self, status: int, ms: float) -> None:
        """Counts one answer."""
        self.statuses[status] += 1
        if status == 200:
            self.ms.append(ms)


def run(options: Options) -> Iterator[Outcome]:
    """Needs the extra server, and no data."""
    try:
        import patchcut_server.service  # noqa: F401 - whether it is there
    except ImportError as error:
        raise BenchError(f"serve needs the extra server ({error})") from error
    settings = options.settings
    segmenter = patchcut.load(settings=settings)
    image = cv2.resize(read_photo(SAMPLES / "coffee.jpg"), PICTURE_HW[::-1])
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    made = _Made(segmenter, np.asarray(image), jpeg, options)
    with serving(settings, queue=64, per_client=64, deadline_s=60.0) as served:
        yield from made.one_request(served)
        rate, outcome = made.eight_clients(served.port)
        yield outcome
        yield made.at_load(served.port, rate)
    with serving(settings, queue=QUEUE, per_client=QUEUE, deadline_s=DEADLINE_S) as served:
        yield made.overload(served.port, rate)
    with serving(settings, queue=64, per_client=64, deadline_s=60.0) as served:
        yield made.odd_bodies(served.port)


@dataclass(frozen=True)
class _Made:
    """The cases, of one segmenter and one picture."""

    segmenter: patchcut.Segmenter
    image: npt.NDArray[np.uint8]
    jpeg: bytes
    options: Options

    def one_request(self, served: Served) -> Iterator[Outcome]:
        """A request and a call in turns; the server stands still while the call has the cores."""
        client = Client(served.port)
        besides: list[float] = []

        def call() -> object:
            with served.paused():
                return self.segmenter(self.image)

        contenders = [
            Contender(
                SERVED,
                lambda: client.stages_ms(self.jpeg),
                lambda told, ms: besides.append(ms - cast("float", told)),
            ),
            Contender(CALLED, call),
        ]
        times = interleave(contenders, self.options.repeats or REPEATS)
        client.close()
        metrics = {
            "overhead_ms": times[SERVED].median_ms - times[CALLED].median_ms,
            "besides_stages_ms": float(np.median(besides)),
        }
        inside = "`POST /v1/segment` of a JPEG of 640x480 on an open connection, JSON with RLE back"
        yield self._outcome(CASES[0], SERVED, inside, times[SERVED], metrics)
        yield self._outcome(CASES[0], CALLED, "`seg(frame)` of the decoded picture", times[CALLED], {})

    def eight_clients(self, port: int) -> tuple[float, Outcome]:
        """The rate of clients that ask again at once, and its row; they and the call take turns."""
        ratios, rates, tally = [], [], Tally()
        for _ in range(ROUNDS):
            alone = self._rate_alone(ROUND_S / 2)
            rate = _closed_loop(port, self.jpeg, CLIENTS, ROUND_S, tally)
            alone = (alone + self._rate_alone(ROUND_S / 2)) / 2
            rates.append(rate)
            ratios.append(rate / alone)
        rate = float(np.median(rates))
        metrics = {"rate_over_call": float(np.median(ratios)), "frames_per_s": rate, **_failed(tally)}
        inside = "a request while eight clients each ask again as soon as they are answered"
        return rate, self._outcome(CASES[1], SERVED, inside, Times(tuple(tally.ms)), metrics)

    def at_load(self, port: int, rate: float) -> Outcome:
        tally = Tally()
        _paced(port, self.jpeg, LOAD * rate, LOAD_S, CLIENTS, tally)
        p50, p99 = np.percentile(tally.ms, [50, 99])
        metrics = {
            "p99_over_p50": float(p99 / p50),
            "p99_ms": float(p99),
            "asked_per_s": LOAD * rate,
            **_failed(tally),
        }
        inside = "a request of eight clients, each at a steady pace, at 70 % of the rate above"
        return self._outcome(CASES[2], SERVED, inside, Times(tuple(tally.ms)), metrics)

    def overload(self, port: int, rate: float) -> Outcome:
        tally, seconds = Tally(), 60 * (self.options.minutes or MINUTES)
        memory: list[tuple[float, float]] = []
        begun_s = time.monotonic()

        def look() -> None:
            client = Client(port)
            while time.monotonic() - begun_s < seconds:
                memory.append((time.monotonic() - begun_s, client.resident_mb()))
                time.sleep(_LOOK_S)
            client.close()

        watcher = threading.Thread(target=look)
        watcher.start()
        _paced(port, self.jpeg, OVERLOAD * rate, seconds, _SENDERS, tally)
        watcher.join()
        p99 = float(np.percentile(tally.ms, 99))
        early = max(mb for at_s, mb in memory if at_s <= max(seconds / 10, memory[0][0]))
        late = max((mb for at_s, mb in memory if at_s > seconds / 10), default=early)
        metrics = {
            **_failed(tally),
            "minutes": seconds / 60,
            "asked_per_s": tally.statuses.total() / seconds,
            "answered_per_s": tally.statuses[200] / seconds,
            "refused": tally.statuses[429],
            "p99_ms": p99,
            "p99_over_deadline": p99 / (1e3 * DEADLINE_S + 3e3 / rate),
            "grown_mb": max(late - early, 0.0),
        }
        inside = f"a request at three times the rate above, queue of {QUEUE}, deadline of {DEADLINE_S:g} s"
        return self._outcome(CASES[3], SERVED, inside, Times(tuple(tally.ms)), metrics)

    def odd_bodies(self, port: int) -> Outcome:
        tally = Tally()
        client = Client(port)
        for path, body, headers in requests(self.image, ODD_BODIES, self.options.bundle.stem):
            tally.add(*client.post(path, body, headers))
        client.close()
        unforeseen = sum(count for status, count in tally.statuses.items() if status == 0 or status >= 500)
        named = {f"status_{status}": float(count) for status, count in sorted(tally.statuses.items())}
        inside = (
            f"{ODD_BODIES} bodies that are cut, flipped, packed or wrong; the time of those with a result"
        )
        times = Times(tuple(tally.ms))
        return self._outcome(CASES[4], SERVED, inside, times, {"unforeseen": unforeseen, **named})

    def _rate_alone(self, seconds: float) -> float:
        begun_s, calls = time.monotonic(), 0
        while time.monotonic() - begun_s < seconds:
            self.segmenter(self.image)
            calls += 1
        return calls / (time.monotonic() - begun_s)

    def _outcome(
        self, case: str, contender: str, inside: str, times: Times, metrics: dict[str, float]
    ) -> Outcome:
        precision = self.segmenter.describe().precision
        shapes: dict[str, tuple[int, ...]] = {"frame": (*PICTURE_HW, 3)}
        return Outcome(
            case, contender, inside, times, shapes, precision, metrics=metrics, bundle=self.options.bundle
        )


class Client:
    """One connection to a server on this machine, opened again where it ended."""

    def __init__(self, port: int) -> None:
        self._wire = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def segment(self, jpeg: bytes) -> tuple[int, float]:
        """The status of a picture, and how many milliseconds its answer took."""
        return self.post("/v1/segment", jpeg, {})

    def stages_ms(self, jpeg: bytes) -> float:
        """What the segmenter's own stages took of a request, as the server tells."""
        self._wire.request("POST", "/v1/segment", jpeg)
        reply = self._wire.getresponse()
        reply.read()
        told = dict(word.strip().split(";dur=") for word in reply.headers["Server-Timing"].split(","))
        return sum(float(ms) for name, ms in told.items() if name not in _NOT_STAGES)

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, float]:
        """Status and milliseconds of a request; 0 where it was not answered."""
        begun_s = time.perf_counter()
        try:
            self._wire.request("POST", path, body, headers)
            reply = self._wire.getresponse()
            reply.read()
            status = reply.status
        except (http.client.HTTPException, OSError):
            self._wire.close()
            status = 0
        return status, 1e3 * (time.perf_counter() - begun_s)

    def resident_mb(self) -> float:
        """Memory that the server holds, as it tells."""
        self._wire.close()  # the server has closed one that was idle for long
        self._wire.request("GET", "/metrics")
        lines = self._wire.getresponse().read().decode().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("process_resident"))) / 2**20

    def close(self) -> None:
        """Ends the connection."""
        self._wire.close()


def _closed_loop(port: int, jpeg: bytes, clients: int, seconds: float, tally: Tally) -> float:
    """Answers a second of clients that ask again at once."""
    before, begun_s = tally.statuses[200], time.monotonic()

    def work(number: int) -> None:
        client = Client(port)
        while time.monotonic() - begun_s < seconds:
            tally.add(*client.segment(jpeg))
        client.close()

    _threads(work, clients)
    return (tally.statuses[200] - before) / (time.monotonic() - begun_s)


def _paced(port: int, jpeg: bytes, rate: float, seconds: float, clients: int, tally: Tally) -> None:
    """Asks `rate` times a second; client i sends every `clients`-th, or at once where it is late."""
    begun_s = time.monotonic()

    def work(number: int) -> None:
        client, turn = Client(port), number
        while (due_s := turn / rate) < seconds:
            time.sleep(max(begun_s + due_s - time.monotonic(), 0.0))
            tally.add(*client.segment(jpeg))
            turn += clients
            if time.monotonic() - begun_s > seconds:
                break
        client.close()

    _threads(work, clients)


def _threads(work: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _failed(tally: Tally) -> dict[str, float]:
    answered = tally.statuses[200] + tally.statuses[429]
    return {"unanswered": float(tally.statuses.total() - answered)}


@dataclass(frozen=True)
class Served:
    """A server in a process of its own."""

    port: int
    pid: int

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It stands still: no thread of it spins."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


@contextmanager
def serving(settings: Settings, **chosen: Any) -> Iterator[Served]:
    """A server for as long as it is needed.

    Raises:
        BenchError: it did not start.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, its = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_serve, args=(settings, chosen, its), daemon=True)
    process.start()
    try:
        if not ours.poll(_START_S) or process.pid is None:
            raise BenchError(f"the server did not start within {_START_S:g} s")
        yield Served(ours.recv(), process.pid)
    finally:
        process.terminate()
        process.join()


def _serve(settings: Settings, chosen: dict[str, Any], ready: Connection) -> None:
    from patchcut_server import Model, ServeOptions, Service
    from patchcut_server.cli import MAX_PIXELS, listen

    options = ServeOptions(port=0, **chosen)
    with listen(options) as listener:
        service = Service(Model(replace(settings, max_pixels=MAX_PIXELS)), options)
        ready.send(listener.getsockname()[1])
        asyncio.run(service.run(listener, signals=True))
