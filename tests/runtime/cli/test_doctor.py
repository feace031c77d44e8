"""`patchcut doctor` as its users run it."""

from __future__ import annotations

import getpass
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest
from patchcut.cli.doctor import doctor
from patchcut.doctor import Examination, Remedy, examine

Patchcut = Callable[..., int]


@pytest.fixture(scope="module")
def examination() -> Examination:
    return examine(patience_s=600)


def test_what_this_machine_has_and_what_runs(examination: Examination) -> None:
    told = json.loads(json.dumps(examination.to_dict()))
    assert told["schema_version"] == 1 and told["can_run"] is True
    described = patchcut.load().describe().to_dict()
    # in tests the CPU is of another kind, by which a precision is chosen
    for name in ("engine", "provider", "device", "head", "size_hw"):
        assert told["runs"][name] == json.loads(json.dumps(described[name]))
    assert told["opencv"]["version"] == cv2.__version__ and "jpeg" in told["opencv"]["reads"]
    assert told["software"]["packages"]["numpy"] == np.__version__
    assert "CPUExecutionProvider" in told["engines"]["onnxruntime"]["providers"]
    assert told["cpu"]["allowed"] == sorted(os.sched_getaffinity(0))
    assert told["kernels"]["isa"] in told["kernels"]["isas"]
    assert all(one["what"] and one["remedy"] for one in told["remedies"])


def test_it_names_no_user(examination: Examination) -> None:
    said = json.dumps(examination.to_dict())
    assert str(Path.home()) not in said and f"/{getpass.getuser()}/" not in said


@pytest.fixture
def examined(examination: Examination, monkeypatch: pytest.MonkeyPatch) -> Examination:
    """What `patchcut doctor` finds is `examination`."""
    monkeypatch.setattr("patchcut.cli.doctor.examine", lambda **options: examination)
    return examination


def test_one_screen(run_cli: Patchcut, examined: Examination, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli("doctor") == 0
    said, errors = capfd.readouterr()
    assert errors == "" and "\x1b" not in said and "unknown (" not in said
    assert len(said.splitlines()) <= 50
    for word in (
        "what would run",
        "this machine",
        "what could be better",
        "kernels",
        "onnxruntime",
        "OpenCV",
    ):
        assert word in said
    assert examined.found["runs"]["why"] in re.sub(r"\s+", " ", said)


def test_json_and_nothing_else(
    run_cli: Patchcut, examined: Examination, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("doctor", "--json") == 0
    assert json.loads(capfd.readouterr().out) == json.loads(json.dumps(examined.to_dict()))


def test_every_section_may_be_missing(
    examination: Examination, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    failed: dict[str, Any] = {name: {"error": "OSError: odd"} for name in examination.found}
    broken = Examination({**failed, "engines": {}, "folders": {}}, [Remedy("all is broken", "mend it")])
    monkeypatch.setattr("patchcut.cli.doctor.examine", lambda **options: broken)
    assert doctor() == 1
    said = capfd.readouterr().out
    assert "cannot run  OSError: odd" in said and "all is broken; mend it" in said
    assert doctor(as_json=True) == 1
    assert json.loads(capfd.readouterr().out)["can_run"] is False


def test_a_machine_with_more(
    examination: Examination, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cpu = {**examination.found["cpu"], "quota": 1.5, "governor": "powersave"}
    gpu = {"devices": [{"name": "NVIDIA L4", "driver": "550"}], "smi": "", "on_bus": ["Intel", "NVIDIA"],
           "npu": True, "jetson": ""}  # fmt: skip
    found = {
        **examination.found,
        "cpu": cpu,
        "gpu": gpu,
        "cuda": {"unavailable": "", "devices": [{"name": "NVIDIA L4", "capability": "8.9"}]},
        "driver": {"version": "550, CUDA 12.4"},
        "memory": {"total_bytes": 8 << 30, "available_bytes": 4 << 30, "limit_bytes": 1 << 30},
        "cameras": [{"number": 0, "device": "/dev/video0", "name": "a \x1b[2J", "readable": False}],
        "opened": {"/dev/video0": "640x480"},
    }
    monkeypatch.setattr("patchcut.cli.doctor.examine", lambda **options: Examination(found, []))
    assert doctor() == 0
    said = re.sub(r"\s+", " ", capfd.readouterr().out)
    for words in (
        "a quota of 1.5 CPUs, governor powersave",
        "NVIDIA L4 (driver 550); Intel's, by the bus; Intel's NPU",
        "driver 550, CUDA 12.4; the kernels run on NVIDIA L4 (8.9)",
        "8.0 GiB, 4.0 GiB free, a control group allows 1.0 GiB",
        "0: a \\x1b[2J (may not be opened) (640x480)",
        "nothing that is known of",
    ):
        assert words in said


def test_it_answers_where_numpy_and_the_choice_of_kernels_are_broken(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('libopenblas.so.0: not there')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PATCHCUT_THREADS": "many"}
    command = [sys.executable, "-c", "from patchcut.__main__ import main; main()", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 1 and done.stderr == ""
    told = json.loads(done.stdout)
    assert "libopenblas" in told["kernels"]["error"] and "libopenblas" in told["runs"]["error"]
    assert told["environment"]["PATCHCUT_THREADS"] == "many" and told["cpu"]["name"]
    assert "install patchcut again" in told["remedies"][0]["remedy"]
