"""Threads that work ahead: how far, what they raise, and that they end."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from collections.abc import Iterator

import pytest
from patchcut import EngineError
from patchcut.ahead import Ahead, waiting


def numbers(made: list[int], count: int = 100) -> Iterator[int]:
    for number in range(count):
        made.append(number)
        yield number


def settled(made: list[int]) -> int:
    """How many there are when no more come."""
    seen = -1
    while seen != len(made):
        seen = len(made)
        time.sleep(0.05)
    return seen


@pytest.mark.parametrize("most", [1, 2, 7])
def test_a_thread_is_never_further_ahead_than_it_may(most: int) -> None:
    made: list[int] = []
    ahead = Ahead(numbers(made), name="test", most=most)
    assert made == [], "nothing is made before the first is asked for"
    taken = 0
    for taken in (1, 2, 3):
        assert next(ahead) == taken - 1
        assert settled(made) == taken + most + 1
    assert list(ahead) == list(range(taken, 100)) and made == list(range(100))
    assert ahead.join() and ahead.dropped == 0


def test_only_the_newest_waits() -> None:
    made: list[int] = []
    taken = threading.Event()

    def paused() -> Iterator[int]:
        yield -1
        taken.wait(10)
        yield from numbers(made)

    ahead = Ahead(paused(), name="test", newest=True)
    assert next(ahead) == -1
    taken.set()
    assert settled(made) == 100
    assert (next(ahead), ahead.dropped) == (99, 99)
    assert list(ahead) == []


def test_an_item_may_replace_some_of_those_that_wait_and_takes_their_turn() -> None:
    items = ["a1", "b1", "c1", "b2", "a2", "c2", "b3"]
    made: list[str] = []

    def named() -> Iterator[str]:
        for item in items:
            made.append(item)
            yield item

    ahead = Ahead(named(), name="test", most=10, newest=lambda item, waiting: item[0] == waiting[0] != "c")
    assert not ahead.is_ready() or made
    deadline = time.monotonic() + 10
    while len(made) < len(items) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert ahead.join(5.0)
    assert (list(ahead), ahead.dropped) == (["a2", "b3", "c1", "c2"], 3)


def test_nothing_is_begun_before_it_is_asked_for() -> None:
    made: list[int] = []
    ahead = Ahead(numbers(made, 4), name="test", most=0)
    for number in range(4):
        assert settled(made) == number
        assert next(ahead) == number
    assert list(ahead) == []


def test_several_can_be_looked_at_in_turn() -> None:
    news, gate = threading.Event(), threading.Event()

    def gated() -> Iterator[int]:
        gate.wait(10)
        yield 1

    late, early = (Ahead(one, name="test", news=news) for one in (gated(), iter([2])))
    assert not late.is_ready()
    early.is_ready()
    assert news.wait(10) and early.is_ready() and not late.is_ready()
    assert next(early) == 2
    news.clear()
    gate.set()
    assert news.wait(10)
    assert list(late) == [1] and list(early) == []


def test_a_wait_for_room_is_no_silence() -> None:
    def slow() -> Iterator[int]:
        yield from (1, 2, 3)
        time.sleep(0.15)
        yield 4

    ahead = Ahead(slow(), name="test", silence_s=0.3, on_silence=lambda: pytest.fail("given up"))
    assert next(ahead) == 1
    time.sleep(0.5)  # the third waits for room
    assert list(ahead) == [2, 3, 4]


def test_an_error_comes_after_what_was_made_before_it_and_once() -> None:
    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("broken")

    ahead = Ahead(failing(), name="test", most=5)
    assert (next(ahead), next(ahead)) == (1, 2)
    with pytest.raises(ValueError, match="broken") as raised:
        next(ahead)
    assert "failing" in [entry.name for entry in raised.traceback], "it says where it was raised"
    assert list(ahead) == []


def test_none_is_not_given_but_ends_a_wait() -> None:
    def slow() -> Iterator[int | None]:
        yield None
        yield 1
        yield from waiting(60.0)
        yield 2

    ahead = Ahead(slow(), name="test")
    assert next(ahead) == 1
    begun = time.monotonic()
    ahead.stop()
    assert ahead.join() and time.monotonic() - begun < 1
    assert list(ahead) == []


def test_a_generator_is_closed_on_its_thread() -> None:
    closed: list[str] = []

    def held() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append(threading.current_thread().name)

    ahead = Ahead(map(abs, held()), name="test")
    next(ahead)
    ahead.stop()
    assert ahead.join() and closed == ["test"]


def test_nothing_holds_an_item_that_was_taken() -> None:
    class Item:
        pass

    gate = threading.Event()

    def items() -> Iterator[Item]:
        yield Item()
        gate.wait(10)
        yield Item()

    ahead = Ahead(items(), name="test")
    kept = weakref.ref(next(ahead))
    gc.collect()
    assert kept() is None
    gate.set()
    assert len(list(ahead)) == 1


def test_a_silent_iterator_is_given_up() -> None:
    gate, told = threading.Event(), threading.Event()

    def hanging() -> Iterator[int]:
        yield 1
        gate.wait(30)

    ahead = Ahead(hanging(), name="test", silence_s=0.2, on_silence=told.set)
    assert next(ahead) == 1
    begun = time.monotonic()
    assert list(ahead) == [] and told.is_set()
    assert 0.1 < time.monotonic() - begun < 5
    assert not ahead.join(0.05)
    gate.set()
    assert ahead.join()


def test_a_sign_of_life_is_no_silence() -> None:
    def slow() -> Iterator[int | None]:
        yield from waiting(0.6)
        yield 1

    assert list(Ahead(slow(), name="test", silence_s=0.3, on_silence=lambda: pytest.fail("given up"))) == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_refuses_and_does_not_wait() -> None:
    ahead = Ahead(iter(range(1000)), name="test")
    next(ahead)
    child = os.fork()
    if child == 0:
        try:
            next(ahead)
        except EngineError as error:
            ahead.stop()
            os._exit(0 if "before the fork" in str(error) and not ahead.join() else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert list(ahead) == list(range(1, 1000)), "the parent goes on"


def test_without_threads_one_thing_is_done_after_the_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    made: list[int] = []
    ahead = Ahead(map(lambda one: one if one % 2 else None, numbers(made, 6)), name="test", most=4)  # noqa: C417
    assert next(ahead) == 1 and made == [0, 1]
    assert list(ahead) == [3, 5]
    assert ahead.join() and len(caplog.messages) == 1 and "no more threads" in caplog.messages[0]
    stopped = Ahead(numbers(made), name="test")
    next(stopped)
    stopped.stop()
    assert list(stopped) == []
