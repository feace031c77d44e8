"""More than a server can do: who waits, who is refused, and who runs with whom."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs patchcut[server]")

from patchcut import Result
from patchcut.errors import EngineError

from .conftest import Reply, Served, wait_for

pipeline = pytest.importorskip("patchcut_server.pipeline", reason="needs patchcut[server]")

if TYPE_CHECKING:
    from patchcut_server import Model
    from patchcut_server.pipeline import Job

POST = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
Segment = Callable[[Sequence["Job"]], list[Result]]


class Held:
    """A segmenter that goes on when it is let, and tells what it was given."""

    def __init__(self, segment: Segment) -> None:
        self.calls: list[list[Job]] = []
        self.go = threading.Event()
        self._segment = segment

    def __call__(self, jobs: Sequence[Job]) -> list[Result]:
        self.calls.append(list(jobs))
        assert self.go.wait(30)
        return self._segment(jobs)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    one = Held(pipeline._results)
    monkeypatch.setattr(pipeline, "_results", one)
    yield one
    one.go.set()


@contextmanager
def asking(served: Served, bodies: Sequence[bytes], query: str = "") -> Iterator[list[Reply]]:
    """Asks on a thread for each body; the replies are there when the block has ended."""
    replies: list[Reply] = []
    threads = [
        threading.Thread(target=lambda body=body: replies.append(served.segment(body, query)))
        for body in bodies
    ]
    for thread in threads:
        thread.start()
    yield replies
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def in_hand(served: Served) -> int:
    return served.service.backend.gate.taken


def test_what_is_too_much_is_told_to_come_again(
    serve: Callable[..., Served], held: Held, jpeg: bytes
) -> None:
    busy = serve(queue=3, deadline_s=60.0)
    with asking(busy, [jpeg] * 3) as replies:
        wait_for(lambda: in_hand(busy) == 3 and held.calls)
        assert busy.metric("patchcut_queue") == 3
        refused = busy.segment(jpeg)
        assert refused.status == 429 and refused.said["error"].startswith(
            "[queue] is full: 3 requests are in hand"
        )
        assert int(refused.headers["retry-after"]) >= 1
        assert busy.ask("GET", "/v2/health/ready").status == 200
        held.go.set()
    assert [one.status for one in replies] == [200] * 3
    assert in_hand(busy) == 0
    assert busy.metric('patchcut_refused_total{reason="queue full"}') == 1


def test_one_client_does_not_take_all_places(serve: Callable[..., Served], held: Held, jpeg: bytes) -> None:
    busy = serve(queue=8, per_client=2, deadline_s=60.0)
    with asking(busy, [jpeg] * 2) as replies:
        wait_for(lambda: in_hand(busy) == 2)
        refused = busy.segment(jpeg)
        assert refused.status == 429 and refused.said["error"].startswith("[client] has 2 requests in hand")
        held.go.set()
    assert [one.status for one in replies] == [200] * 2


def test_what_cannot_begin_in_time_is_refused(serve: Callable[..., Served], held: Held, jpeg: bytes) -> None:
    busy = serve(deadline_s=0.5)
    with asking(busy, [jpeg] * 5) as replies:
        wait_for(lambda: in_hand(busy) == 5 and held.calls)
        time.sleep(0.7)
        held.go.set()
    statuses = Counter(one.status for one in replies)
    assert statuses[429] >= 3 and set(statuses) <= {200, 429}
    late = next(one for one in replies if one.status == 429)
    assert late.said["error"].startswith("[queue] could not begin this within 0.5 s")
    assert "retry-after" in late.headers


def test_whoever_has_left_costs_nothing_more(serve: Callable[..., Served], held: Held, jpeg: bytes) -> None:
    busy = serve(deadline_s=60.0)
    with asking(busy, [jpeg]) as replies:
        wait_for(lambda: held.calls)
        wires = [busy.connect() for _ in range(4)]
        for wire in wires:
            wire.sendall(POST % len(jpeg) + jpeg)
        wait_for(lambda: in_hand(busy) == 5)
        for wire in wires:
            wire.close()
        wait_for(lambda: in_hand(busy) == 1)
        held.go.set()
    assert replies[0].status == 200
    assert len(held.calls) <= 3, "those that were decoded ahead, and no more"
    assert busy.metric('patchcut_refused_total{reason="left"}') >= 2


def test_what_fails_fails_alone(
    serve: Callable[..., Served],
    monkeypatch: pytest.MonkeyPatch,
    jpeg: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors = iter([EngineError("engine", "has failed", "try it again"), MemoryError(), RuntimeError("odd")])
    real = pipeline._results

    def segment(jobs: Sequence[Job]) -> list[Result]:
        error = next(errors, None)
        if error is not None:
            raise error
        return real(jobs)  # type: ignore[no-any-return]

    monkeypatch.setattr(pipeline, "_results", segment)
    one = serve()
    replies = [one.segment(jpeg) for _ in range(4)]
    assert [reply.status for reply in replies] == [503, 413, 500, 200]
    assert replies[0].said["error"] == "[engine] has failed; try it again"
    assert replies[2].said["error"] == "[server] failed; its log says why"
    assert "odd" not in replies[2].body.decode() and "RuntimeError: odd" in caplog.text


@pytest.fixture(scope="module")
def together(bundle_path: object) -> Model:
    """A model that runs frames beside each other."""
    from patchcut import Settings
    from patchcut_server import Model

    return Model(Settings(bundle=bundle_path, threads=2, throughput=True))  # type: ignore[arg-type]


def test_frames_that_wait_run_together(
    serve: Callable[..., Served], held: Held, together: Model, jpeg: bytes, image: np.ndarray
) -> None:
    busy = serve(model=together, deadline_s=60.0, batch_wait_ms=100.0)
    most = pipeline.together_of(together.now)
    assert most > 1
    with asking(busy, [jpeg]) as first:
        wait_for(lambda: held.calls)
        with asking(busy, [jpeg] * 4) as replies, asking(busy, [jpeg] * 3, "?single=1") as single:
            wait_for(lambda: in_hand(busy) == 8)
            held.go.set()
    want = together.now(image).to_dict(masks="rle")["regions"]
    assert all(reply.said["regions"] == want for reply in [*first, *replies])
    assert all(reply.said["regions"] == want[:1] for reply in single)
    sizes = [len(call) for call in held.calls]
    assert sum(sizes) == 8 and max(sizes) > 1
    assert all(len({job.changes for job in call}) == 1 for call in held.calls)
    assert busy.metric("patchcut_batch_frames_count") == len(sizes)


def test_one_at_a_time_where_that_is_as_quick(
    serve: Callable[..., Served], held: Held, model: Model, jpeg: bytes
) -> None:
    assert pipeline.together_of(model.now) == 1
    busy = serve(deadline_s=60.0)
    with asking(busy, [jpeg] * 4) as replies:
        wait_for(lambda: in_hand(busy) == 4)
        held.go.set()
    assert [len(call) for call in held.calls] == [1] * 4
    assert [reply.status for reply in replies] == [200] * 4


def test_a_stop_answers_what_was_taken(serve: Callable[..., Served], held: Held, jpeg: bytes) -> None:
    busy = serve(deadline_s=60.0)
    with asking(busy, [jpeg] * 3) as replies:
        wait_for(lambda: in_hand(busy) == 3 and held.calls)
        busy.call(busy.service.stop)
        server = busy.service._server
        assert server is not None
        wait_for(lambda: not server.servers[0].is_serving())
        with pytest.raises(OSError):
            busy.connect().close()
        held.go.set()
    busy.thread.join(20)
    assert not busy.thread.is_alive()
    assert [one.status for one in replies] == [200] * 3


def test_a_second_stop_waits_for_nobody(serve: Callable[..., Served], held: Held, jpeg: bytes) -> None:
    busy = serve(deadline_s=60.0, stop_s=60.0)
    wire = busy.connect()
    wire.sendall(
        b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(jpeg) + jpeg
    )
    wait_for(lambda: held.calls)
    busy.call(busy.service.stop)
    busy.call(busy.service.stop)
    busy.thread.join(10)
    assert not busy.thread.is_alive()
    wire.close()


def test_three_times_what_it_can_do(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch, jpeg: bytes
) -> None:
    """A short one; `python -m bench run serve` has minutes of it."""
    real, clients = pipeline._results, 12

    def slow(jobs: Sequence[Job]) -> list[Result]:
        time.sleep(0.02)
        return real(jobs)  # type: ignore[no-any-return]

    monkeypatch.setattr(pipeline, "_results", slow)
    busy = serve(queue=4, deadline_s=1.0)
    statuses: Counter[int] = Counter()
    ends = time.monotonic() + 1.5

    def client() -> None:
        while time.monotonic() < ends:
            statuses[busy.segment(jpeg).status] += 1

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(statuses) == {200, 429}
    assert in_hand(busy) == 0


def test_the_body_of_an_answer_does_not_wait_for_the_client() -> None:
    """Without this each answer on an open connection comes 40 ms later."""
    from patchcut_server import ServeOptions
    from patchcut_server.cli import listen

    with listen(ServeOptions(port=0)) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
