from __future__ import annotations

import pytest

from bench.harness import Contender, Times, interleave


class Stage:
    """A clock that only the contenders' own work moves, and a diary of what happened."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.worked_s = 0.0
        self.spin_s = 0.0  # what is left of it for idle threads
        self.diary: list[str] = []

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        spun = min(seconds, self.spin_s)
        self.worked_s += spun
        self.spin_s -= spun
        self.diary.append("pause")

    def work(self) -> float:
        return self.worked_s

    def contender(self, name: str, *ms: float, **options: object) -> Contender:
        """Its calls take `ms` in turn, over and over."""
        calls = iter(range(10**9))

        def call() -> int:
            index = next(calls)
            self.now_s += ms[index % len(ms)] / 1e3
            self.diary.append(name)
            return index

        return Contender(name, call, **options)  # type: ignore[arg-type]

    def run(self, *contenders: Contender, repeats: int, warmup: int = 0) -> dict[str, Times]:
        return interleave(
            contenders, repeats, warmup=warmup, clock=self.clock, work=self.work, sleep=self.sleep
        )


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_each_gets_its_own_time(stage: Stage) -> None:
    times = stage.run(stage.contender("a", 10), stage.contender("b", 30), repeats=5)
    assert times["a"].samples_ms == pytest.approx((10,) * 5)
    assert times["b"].median_ms == pytest.approx(30)
    assert times["b"].std_ms == pytest.approx(0, abs=1e-9)


def test_turns_alternate_after_a_pause_and_an_untimed_call(stage: Stage) -> None:
    stage.run(stage.contender("a", 10), stage.contender("b", 10), repeats=2)
    turn_a, turn_b = ["pause", "a", "a"], ["pause", "b", "b"]
    assert stage.diary == [*turn_a, *turn_b, *turn_b, *turn_a]


def test_pauses_last_until_idle_threads_sleep(stage: Stage) -> None:
    stage.spin_s = 0.07
    stage.run(stage.contender("a", 10), repeats=2)
    assert stage.diary == [*["pause"] * 5, "a", "a", "pause", "a", "a"]


def test_pauses_end_even_where_a_thread_never_sleeps(stage: Stage) -> None:
    stage.spin_s = float("inf")
    stage.run(stage.contender("a", 10), repeats=1)
    assert stage.diary == [*["pause"] * 20, "a", "a"]


def test_pause_and_lead_are_outside_the_clock(stage: Stage) -> None:
    times = stage.run(stage.contender("slow, then quick", 100, 7), repeats=4)
    assert times["slow, then quick"].samples_ms == pytest.approx((7,) * 4)


def test_lead_may_be_left_out(stage: Stage) -> None:
    stage.run(stage.contender("a", 10, lead=0), repeats=1)
    assert stage.diary == ["pause", "a"]


def test_warm_up_is_not_counted(stage: Stage) -> None:
    times = stage.run(stage.contender("a", 500, 500, 500, 4, 4, 4, 4), repeats=2, warmup=3)
    assert times["a"].samples_ms == pytest.approx((4, 4))


def test_short_calls_are_timed_several_at_once(stage: Stage) -> None:
    times = stage.run(stage.contender("a", 0.1), repeats=2, warmup=1)
    assert stage.diary.count("a") == 1 + 2 * (1 + 20)
    assert times["a"].samples_ms == pytest.approx((0.1, 0.1))


def test_observers_see_each_timed_result(stage: Stage) -> None:
    seen: list[tuple[object, float]] = []
    observed = stage.contender("a", 10, observe=lambda value, ms: seen.append((value, ms)))
    stage.run(observed, repeats=2)
    assert [value for value, _ in seen] == [1, 3]
    assert [ms for _, ms in seen] == pytest.approx([10, 10])


def test_statistics() -> None:
    times = Times((1, 2, 3, 4, 100))
    assert times.repeats == 5
    assert times.median_ms == 3
    assert times.p95_ms == pytest.approx(80.8)  # four fifths of the way from 4 to 100
    assert times.std_ms == pytest.approx(43.6177, abs=1e-4)
    assert Times((5,)).std_ms == 0


def test_no_repeats_are_an_error(stage: Stage) -> None:
    with pytest.raises(ValueError, match=r"\[bench\] repeats must be at least 1, got 0"):
        stage.run(stage.contender("a", 1), repeats=0)
