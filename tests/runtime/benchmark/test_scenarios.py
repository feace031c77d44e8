"""Scenarios by a clock of the tests: when queries are asked, what counts as latency, when it ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from patchcut import OptionError
from patchcut.benchmark import Plan, compare
from patchcut.benchmark.compare import differences
from patchcut.benchmark.report import Around, Report, make_report
from patchcut.benchmark.scenarios import Queries, ask, rate_of

FRAMES = ["a", "b", "c"]


class Fake:
    """A segmenter that takes a stated time for a frame, and a clock that only it and waiting move."""

    def __init__(self, seconds: float, largest: int = 5) -> None:
        self.now_s, self.seconds = 100.0, seconds
        self.waited: list[float] = []
        self.seen: list[Any] = []
        self.extractor = SimpleNamespace(engine=SimpleNamespace(facts=SimpleNamespace(max_batch=largest)))

    def clock(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.now_s += seconds

    def __call__(self, frame: Any) -> Any:
        return self.batch([frame])[0]

    def batch(self, frames: list[Any]) -> list[Any]:
        self.seen.append(list(frames))
        self.now_s += self.seconds * len(frames)
        return [SimpleNamespace(timings_ms={"backbone": 1e3 * self.seconds}) for _ in frames]

    def ask(self, plan: Plan, seconds: float, rate: float | None = None) -> Queries:
        return ask(self, FRAMES, plan, seconds, rate=rate, clock=self.clock, wait=self.wait)  # type: ignore[arg-type]


def test_single_stream_asks_the_next_when_one_has_its_result() -> None:
    fake = Fake(0.25)
    queries = fake.ask(Plan("single-stream"), 2.0)
    assert queries.latency_ms == pytest.approx([250.0] * 8)
    assert fake.seen[:4] == [["a"], ["b"], ["c"], ["a"]]
    assert queries.frames_per_s == pytest.approx(4)
    assert queries.stages_ms == {"backbone": [250.0] * 8} and fake.waited == []


def test_multi_stream_asks_a_frame_of_each_stream() -> None:
    fake = Fake(0.1)
    queries = fake.ask(Plan("multi-stream", streams=4), 1.0)
    assert fake.seen[:2] == [["a", "b", "c", "a"], ["b", "c", "a", "b"]]
    assert queries.latency_ms == pytest.approx([400.0] * 3) and queries.frames == [4] * 3


def test_offline_asks_as_many_as_the_engine_takes() -> None:
    fake = Fake(0.1, largest=5)
    queries = fake.ask(Plan("offline"), 1.0)
    assert set(map(len, fake.seen)) == {5} and queries.frames_per_s == pytest.approx(10)


def test_frames_of_a_server_wait_for_those_before_them() -> None:
    fake = Fake(0.1)
    queries = fake.ask(Plan("server", seed=3), 50.0, rate=5.0)
    rng = np.random.default_rng(3)
    came = np.cumsum(rng.exponential(0.2, 1000))
    came = came[came < 50]
    assert len(queries.latency_ms) == len(came)
    free, expected = 0.0, []
    for moment in came:
        free = max(free, moment) + 0.1
        expected.append(1e3 * (free - moment))
    assert queries.latency_ms == pytest.approx(expected)
    assert max(expected) > 150 and min(expected) == pytest.approx(100)
    assert not queries.overloaded


def test_a_server_that_cannot_follow_is_ended_and_told() -> None:
    queries = Fake(0.5).ask(Plan("server"), 10.0, rate=100.0)
    assert queries.overloaded and 15 < queries.ended_s[-1] < 15.5
    report = reported(queries, Plan("server", rate=100))
    assert any("faster than they were done" in line for line in report.warnings)


def test_the_rate_of_a_server_is_a_share_of_what_the_warm_up_reached() -> None:
    warmup = Fake(0.25).ask(Plan("single-stream"), 2.0)
    assert rate_of(Plan("server"), warmup) == pytest.approx(0.7 * 4)
    assert rate_of(Plan("server", rate=9.0), warmup) == 9.0
    assert rate_of(Plan("single-stream"), warmup) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"scenario": "live"}, r'\[scenario\] must be one of "single-stream"'),
        ({"streams": 0}, r"\[streams\] must be a whole number from 1 to 64"),
        ({"duration_s": 0.0}, r"\[duration\] must be 0.1 to 86400 seconds"),
        ({"duration_s": float("nan")}, r"\[duration\] must be"),
        ({"warmup_s": -1.0}, r"\[warmup\] must be 0 to 86400 seconds"),
        ({"scenario": "server", "rate": 0.0}, r"\[rate\] must be above 0"),
        ({"rate": 5.0}, r'\[rate\] is of the scenario "server"'),
        ({"bound_ms": -3.0}, r"\[bound\] must be above 0"),
    ],
    ids=str,
)
def test_a_plan_that_cannot_be_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        Plan(**given)


def reported(queries: Queries, plan: Plan, **runs: Any) -> Report:
    around = Around({"source": "x", "count": 1, "sizes": ["8x8"]}, runs, {"cpu": "x"}, {}, [])
    return make_report(plan, plan.rate, queries, queries, around)


def noisy(mean_ms: float, seed: int, count: int = 600, spread: float = 0.05) -> Report:
    rng, queries = np.random.default_rng(seed), Queries()
    for ms in mean_ms * rng.lognormal(0, spread, count):
        last_s = queries.ended_s[-1] if queries.ended_s else 0.0
        queries.add(last_s + ms / 1e3, float(ms), [SimpleNamespace(timings_ms={})])  # type: ignore[list-item]
    return reported(queries, Plan())


def test_percentiles_are_numpys() -> None:
    queries = Queries()
    values = np.random.default_rng(0).uniform(5, 50, 300)
    for i, ms in enumerate(values):
        queries.add((i + 1) / 10, float(ms), [SimpleNamespace(timings_ms={"head": ms})])  # type: ignore[list-item]
    report = reported(queries, Plan(bound_ms=40.0))
    for name, at in (("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)):
        assert getattr(report.latency_ms, name) == pytest.approx(np.percentile(values, at), abs=1e-3)
    assert report.stages_ms["head"]["p99"] == report.latency_ms.p99
    assert report.frames_per_s == pytest.approx(10) and len(report.pieces) == 20
    assert report.metric == ("p90", report.latency_ms.p90)
    assert report.keeps_bound() is (report.latency_ms.p90 <= 40)
    assert report.warnings == ()


def test_few_queries_are_told() -> None:
    (line,) = noisy(10, 0, count=20).warnings
    assert line == "20 queries are few for a p90, 100 are enough; ask for a longer --duration"


def test_two_runs_of_the_same_do_not_differ_and_a_slower_one_does() -> None:
    same = [compare(noisy(20, seed), noisy(20, seed + 50)) for seed in range(20)]
    wrong = sum(row.verdict != "no difference" for rows in same for row in rows)
    assert wrong <= 2, "of 80, at 99 %"
    for seed in range(5):
        slower = compare(noisy(20, seed), noisy(22, seed + 50))
        assert [row.verdict for row in slower] == ["slower"] * 4
        assert slower[0].ratio == pytest.approx(1.1, abs=0.02)
        assert slower[0].interval[0] < 1.1 < slower[0].interval[1] + 0.02
        faster = compare(noisy(22, seed), noisy(20, seed + 50))
        assert [row.verdict for row in faster] == ["faster"] * 4


def test_what_differs_beside_the_figures_is_told() -> None:
    queries = Fake(0.25).ask(Plan("single-stream"), 2.0)
    one, other = (reported(queries, Plan(), engine=name, size=224) for name in ("onnxruntime", "openvino"))
    assert differences(one, other) == ["engine: onnxruntime and openvino"]
    with pytest.raises(OptionError, match=r'runs of "single-stream" and "offline" do not measure the same'):
        compare(one, reported(queries, Plan("offline")))
