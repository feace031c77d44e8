"""Signals are heard while an op computes, whatever the number of threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import patchcut_kernels as pk
import pytest

RNG = np.random.default_rng(0)
POINTS = RNG.standard_normal((4000, 64)).astype(np.float32)
SIGNED = RNG.standard_normal((1200, 1200)).astype(np.float32)
FRAME = RNG.integers(0, 256, (1500, 1500, 3)).astype(np.uint8)
WIDE = np.tile(POINTS[:3600], (1, 8))
NOISE = RNG.random((1500, 1500)).astype(np.float32)
# Each takes many seconds.
LONG: dict[str, Callable[[], object]] = {
    "kmeans": lambda: pk.kmeans(POINTS, 500, iterations=1000, restarts=1000),
    "kmeans_sums": lambda: pk.kmeans_sums(np.tile(POINTS, (10, 8)), np.tile(POINTS, (5, 8))),
    "cosegment": lambda: pk.cosegment(np.tile(POINTS, (50, 1)).reshape(50, -1, POINTS.shape[1])),
    "one large assignment": lambda: pk.kmeans(np.tile(POINTS, (10, 8)), 4000),
    "correlation_cluster": lambda: pk.correlation_cluster(SIGNED, max_clusters=1200),
    "ncut": lambda: pk.ncut(POINTS[:2500], 150, iterations=40),
    "gnn_fit": lambda: pk.gnn_fit(POINTS[:1200], np.abs(SIGNED), 8, steps=60000),
    "bilateral_solver": lambda: pk.bilateral_solver(
        FRAME, NOISE, NOISE, iterations=5000, bistochastic_iterations=5000
    ),
    "guided_refine": lambda: pk.guided_refine(FRAME, np.tile(NOISE, (20, 1, 1)), 300, 1e-3),
    "propagate": lambda: pk.propagate(
        WIDE, np.tile(WIDE, (8, 1, 1)), np.ones((8, 3600, 2), np.float32), (1, 3600), radius=3600
    ),
    "guided_refine of labels": lambda: pk.guided_refine(FRAME, (NOISE * 1000).astype(np.int32), 300, 1e-3),
}


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Ctrl-C raises here, also where a script started the tests in the background and it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = pk.get_threads()
    pk.set_threads(request.param)
    yield
    pk.set_threads(before)


def raise_later(signal_number: int, seconds: float = 0.2) -> list[float]:
    """Sends this process a signal; when it did is what is written there."""
    sent: list[float] = []

    def send() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal_number)

    threading.Timer(seconds, send).start()
    return sent


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("name", LONG)
def test_ctrl_c_ends_an_op(name: str) -> None:
    sent = raise_later(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        for _ in range(1000):  # on a fast machine one may be done before the signal
            LONG[name]()
    assert time.monotonic() - sent[0] < 3  # 0.1 s on a machine that does nothing else
    np.testing.assert_array_equal(pk.kmeans(np.float32([[0], [1], [9]]), 2, seed=1).labels[:2], [0, 0])


@pytest.mark.usefixtures("threads")
def test_a_handler_of_ones_own_runs_and_its_exception_goes_on() -> None:
    class Stop(Exception):
        pass

    seen: list[object] = []

    def stop(number: int, frame: object) -> None:
        seen.append(pk.affinity(POINTS[:8]).shape)  # ops work in it
        raise Stop

    before = signal.signal(signal.SIGTERM, stop)
    try:
        raise_later(signal.SIGTERM)
        with pytest.raises(Stop):
            LONG["kmeans"]()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [(8, 8)]


@pytest.mark.usefixtures("threads")
def test_a_handler_that_returns_lets_the_op_go_on() -> None:
    heard: list[float] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(time.monotonic()))
    call = lambda: pk.kmeans(POINTS, 500, restarts=2, seed=3)  # noqa: E731
    wanted = call()
    try:
        raise_later(signal.SIGUSR1, 0.05)
        while not heard:
            got = call()
        ended = time.monotonic()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard and heard[0] < ended
    np.testing.assert_array_equal(got.labels, wanted.labels)


def test_ops_of_other_threads_are_left_alone() -> None:
    """Handlers run on the main thread, which waits here, and not in the op of another."""
    done: list[object] = []
    thread = threading.Thread(target=lambda: done.append(pk.kmeans(POINTS, 500, restarts=4)))
    thread.start()
    raise_later(signal.SIGINT, 0.05)
    with pytest.raises(KeyboardInterrupt):
        time.sleep(30)
    thread.join()
    assert len(done) == 1


FORKED = """
import os, signal, sys, threading, time
import numpy as np
import patchcut_kernels as pk
pk.set_threads(2)
points = np.random.default_rng(0).standard_normal((4000, 64)).astype(np.float32)
pk.kmeans(points, 8)

def child():
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        pk.kmeans(points, 500, iterations=1000, restarts=1000)
    except KeyboardInterrupt:
        os._exit(7)
    os._exit(1)

def fork():
    if (pid := os.fork()) == 0:
        child()
    sys.stdout.write(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))

fork()
thread = threading.Thread(target=fork)
thread.start()
thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_children_hear_signals_whichever_thread_forked() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, check=False, timeout=60
    )
    assert shown.stdout == "77", shown.stderr
