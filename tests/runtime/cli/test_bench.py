"""`patchcut bench` as its users run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest
from patchcut.benchmark import Plan, benchmark, read_report

Patchcut = Callable[..., int]
QUICK = ("--duration", "0.3s", "--warmup", "0.1s", "--threads", 1, "--engine", "onnxruntime")


@pytest.fixture
def photo_file(tmp_path: Path, photo: np.ndarray) -> Path:
    path = tmp_path / "x.png"
    cv2.imwrite(str(path), photo[::4, ::4])
    return path


@pytest.mark.parametrize("scenario", ["single-stream", "multi-stream", "offline", "server"])
def test_each_scenario_is_measured_printed_and_written(
    scenario: str, run_cli: Patchcut, toy_bundle: Path, photo_file: Path, tmp_path: Path, capfd: Any
) -> None:
    out = tmp_path / "deep" / "a.json"
    words = ("bench", photo_file, "--bundle", toy_bundle, *QUICK, "--scenario", scenario, "--out", out)
    assert run_cli(*words) == 0
    said = capfd.readouterr().out
    report = read_report(out)
    assert report.scenario == scenario and report.queries >= 1 and report.latency_ms.max > 0
    assert report.frames == {"source": "x.png", "count": 1, "sizes": ["160x107"]}
    assert report.runs["engine"] == "onnxruntime" and report.runs["threads"] == 1
    assert report.stages_ms.keys() == {"preprocess", "backbone", "head", "masks"}
    for words_of in (scenario, "inside the clock: a decoded frame", "wrote", "frames a second"):
        assert words_of in said
    assert json.loads(out.read_text())["schema_version"] == 1
    assert run_cli("bench", "--compare", out, out) == 0
    assert capfd.readouterr().out.count("no difference") == 4


def test_json_and_nothing_else(run_cli: Patchcut, toy_bundle: Path, capfd: Any) -> None:
    assert run_cli("bench", "--bundle", toy_bundle, *QUICK, "--json") == 0
    report = json.loads(capfd.readouterr().out)
    assert report["frames"]["source"] == "the sample photos" and report["frames"]["count"] == 4


def test_a_bound_that_is_not_kept_is_exit_status_1(
    run_cli: Patchcut, toy_bundle: Path, photo_file: Path, capfd: Any
) -> None:
    words = ("bench", photo_file, "--bundle", toy_bundle, *QUICK, "--bound")
    assert run_cli(*words, 0.001) == 1
    assert "ABOVE the bound of 0.001 ms" in capfd.readouterr().out
    assert run_cli(*words, 100_000) == 0
    assert "within the bound of 100000 ms" in capfd.readouterr().out


def test_mistakes_are_one_line(run_cli: Patchcut, tmp_path: Path, toy_bundle: Path, capfd: Any) -> None:
    (tmp_path / "other.json").write_text('{"a": 1}')
    (tmp_path / "empty").mkdir()
    for words, said in (
        (("--scenario", "live"), '[scenario] must be one of "single-stream"'),
        (("--duration", "long"), '[duration] must be seconds or a text such as "30s" or "2m", got '),
        (("--duration", "0"), "[duration] must be 0.1 to 86400 seconds, got 0"),
        (("--rate", "5"), '[rate] is of the scenario "server"'),
        (("--out", tmp_path), "is a folder; name a file, such as bench.json"),
        (("--compare", tmp_path / "none.json", tmp_path / "none.json"), "none.json: No such file"),
        (("--compare", tmp_path / "other.json", tmp_path / "other.json"), "is no report of `patchcut bench`"),
    ):
        assert run_cli("bench", "--bundle", toy_bundle, *words) == 2, words
        errors = capfd.readouterr().err
        assert said in errors and errors.count("\n") == 1, words
    for source in (tmp_path / "none.jpg", tmp_path / "empty"):
        assert run_cli("bench", source, "--bundle", toy_bundle) == 1
        errors = capfd.readouterr().err
        assert source.name in errors and errors.count("\n") == 1
    words = ("--bundle", toy_bundle, "--size", 30, "--out", tmp_path / "new/deep/bench.json")
    assert run_cli("bench", *words) == 2
    assert not (tmp_path / "new").exists()


def test_in_python(toy_segmenter: patchcut.Segmenter, photo: np.ndarray) -> None:
    steps: list[str] = []
    report = benchmark(
        toy_segmenter,
        [photo],
        Plan(duration_s=0.2, warmup_s=0.05),
        step=lambda title, done_s, all_s: steps.append(title),
    )
    assert set(steps) == {"warm-up", "single-stream"}
    assert report.frames["source"] == "arrays" and report.warmup["queries"] >= 1
    with pytest.raises(patchcut.OptionError, match=r"\[source\] has no frames"):
        benchmark(toy_segmenter, [])
