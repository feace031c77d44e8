"""The cases of batches, small: a toy bundle, five kills, and a few frames."""

from __future__ import annotations

from pathlib import Path

import pytest
from patchcut import Settings

pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")
pytest.importorskip("onnx", reason="the toy bundle is made with onnx")

from bench.cases import Options, batch
from tests.runtime import toy_bundle as toy


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    small = {"PHOTO_HW": (96, 128), "SHARD_SIZE": 4}
    for name, value in small.items():
        monkeypatch.setattr(batch, name, value)
    return Settings(bundle=toy.write(tmp_path / "toy.patchcut"), size=112, device="cpu", threads=1)


def test_five_kills_lose_and_double_nothing(settings: Settings, tmp_path: Path) -> None:
    frames = batch.write_sources(tmp_path / "in", 30, 20)
    assert len(frames) >= 30
    tally = batch.kill_at_random(tmp_path, frames, settings, kills=5, seed=1)
    assert tally["kills"] == 5 and tally["folders"] >= 1
    wrong = ("lost", "doubled", "foreign", "changed_shards", "failed_runs")
    assert {name: tally[name] for name in wrong} == dict.fromkeys(wrong, 0.0)


def test_what_is_lost_is_counted(settings: Settings, tmp_path: Path) -> None:
    frames = batch.write_sources(tmp_path / "in", 30, 20)
    assert batch._start(tmp_path, "out", settings).wait(300) == 0
    alone = batch._shards(tmp_path / "out")
    missing = {**alone, "000099.tar": b"x"}
    tally = batch._check(tmp_path / "out", {*frames, ("y.jpg", 0)}, missing, 1)
    assert (tally["lost"], tally["changed_shards"], tally["failed_runs"]) == (1, 1, 1)


def test_two_workers_are_measured_against_one(settings: Settings, tmp_path: Path) -> None:
    batch.write_sources(tmp_path / "in", 30, 20)
    options = Options(settings, repeats=1, kills=0)
    rows = list(batch._two_against_one(options, settings, tmp_path, "local", batch.CASES[1]))
    assert [row.contender for row in rows] == ["patchcut", "one worker"]
    assert rows[0].metrics["rate_over_one"] > 0 and rows[0].metrics["row_bytes"] > 100
    assert {target.metric for target in batch.TARGETS[2:3]} <= rows[0].metrics.keys()
