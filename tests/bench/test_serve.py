"""The cases of the server, small: a toy bundle, and seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from patchcut import Settings

pytest.importorskip("fastapi", reason="needs patchcut[server]")
pytest.importorskip("onnx", reason="the toy bundle is made with onnx")

from bench.cases import Options, serve
from bench.cases.serve import Tally
from tests.runtime import toy_bundle as toy


def test_every_case_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"ROUND_S": 0.5, "ROUNDS": 1, "LOAD_S": 1.0, "ODD_BODIES": 48}
    for name, value in small.items():
        monkeypatch.setattr(serve, name, value)
    bundle = toy.write(tmp_path / "toy.patchcut")
    settings = Settings(bundle=bundle, size=112, device="cpu", threads=1)
    rows = list(serve.run(Options(settings, repeats=2, minutes=0.03)))
    assert [row.case for row in rows] == ["one request", *serve.CASES]
    metrics = {name: value for row in rows for name, value in row.metrics.items()}
    assert {target.metric for target in serve.TARGETS} <= metrics.keys()
    assert all(row.metrics.get("unanswered", 0) == 0 for row in rows) and metrics["unforeseen"] == 0
    assert metrics["rate_over_call"] > 0 and metrics["answered_per_s"] > 0
    assert metrics["status_400"] > 5


def test_what_was_not_answered_is_counted() -> None:
    tally = Tally()
    for status in (200, 429, 0, 503):
        tally.add(status, 5.0)
    assert tally.ms == [5.0] and serve._failed(tally) == {"unanswered": 2.0}
