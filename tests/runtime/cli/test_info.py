"""What `patchcut info` prints: one screen, whatever a bundle holds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from patchcut.engines import cpu_kind
from patchcut.output.whole_files import write_image

from tests.runtime import toy_bundle as toy

Patchcut = Callable[..., int]


def longest(lines: list[str], path: Path) -> int:
    """Letters of the longest line but that of the bundle's path, which is not broken."""
    return max(len(line) for line in lines if str(path) not in line)


def test_one_screen_of_what_matters(
    run_cli: Patchcut, embedded_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("info", embedded_bundle) == 0
    lines = capfd.readouterr().out.splitlines()
    assert 15 < len(lines) <= 40 and longest(lines, embedded_bundle) <= 80
    said = "\n".join(lines)
    assert hashlib.sha256(embedded_bundle.read_bytes()).hexdigest() in said
    for word in ("licence", "trained on", "heads", "graphs", "onnxruntime", "threads", "CorLoc"):
        assert word in said
    assert lines[-1] == "all of it: patchcut info -v"


def test_all_of_it_has_each_accuracy_once(
    run_cli: Patchcut, embedded_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("info", embedded_bundle, "--verbose") == 0
    said = capfd.readouterr().out
    table = said[: said.index("model card")]
    assert longest(table.splitlines(), embedded_bundle) <= 80
    assert len(re.findall(r"CorLoc +0\.\d{3} ", table)) == said.count("CorLoc") >= 2
    assert "## Head gnn" in said and "## Accuracy" not in said


@pytest.mark.parametrize("verbose", [False, True])
def test_texts_of_a_bundle_never_steer_the_terminal(
    run_cli: Patchcut, tmp_path: Path, capfd: pytest.CaptureFixture[str], verbose: bool
) -> None:
    steer = "\x1b]0;mine\x07\x1b[2J\rZZ\nZZ \u202e"
    long = "[bold] \U0001f600" + "long words " * 400  # control characters are refused where it is opened
    files = toy.members()
    files["card.md"] = steer.encode()
    spec = toy.manifest(files)
    spec["description"] = long
    for one in spec["backbones"].values():
        one["licence"] = one["trained_on"] = long
    for head in spec["heads"]:
        head["trained_on"] = long
    path = toy.write(tmp_path / f"x{steer}.patchcut", files, spec)
    assert run_cli("info", path, *["-v"] * verbose) == 0
    said, errors = capfd.readouterr()
    assert errors == "" and not set("\x1b\x07\r\u202e") & set(said)
    assert "\\x1b[2J" in said
    if not verbose:
        assert len(said.splitlines()) <= 40 and "[bold]" in said
        assert not any(line.startswith("ZZ") for line in said.splitlines())


def measured_bundle(path: Path, *, cpu: str) -> Path:
    """The toy with an int8 that its report does not accept at 112, and times on one kind of CPU."""
    files = toy.members()
    spec = toy.manifest(files)
    agreement = [
        {
            "precision": precision,
            "size": size,
            "features": "key",
            "engine": "tests 1.0",
            "images": 7,
            "data": "tests",
            "cosine_mean": 0.9 if accepted else 0.4321,
            "cosine_worst": 0.8,
            "affinity_correlation": 0.7,
            "label_agreement": 0.987,
            "accepted": accepted,
        }
        for size in toy.SIZES
        for precision, accepted in (("fp32", True), ("int8", size != toy.SIZES[0]))
    ]
    timings = [
        {
            "engine": "onnxruntime",
            "precision": precision,
            "size": size,
            "device": "cpu",
            "cpu": cpu,
            "threads": 2,
            "ms": ms,
            "machine": "a machine",
        }
        for size in toy.SIZES
        for precision, ms in (("int8", 1.25), ("fp32", 3.5))
    ]
    spec["backbones"]["toy"] |= {"agreement": agreement, "timings": timings}
    return toy.write(path, files, spec)


def test_agreement_and_times_are_shown_and_what_is_inaccurate_is_marked(
    run_cli: Patchcut, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = measured_bundle(tmp_path / "toy.patchcut", cpu=cpu_kind())
    assert run_cli("info", path) == 0
    lines = capfd.readouterr().out.splitlines()
    said = " ".join(" ".join(lines).split())
    assert len(lines) <= 40 and longest(lines, path) <= 80
    assert "with fp32: int8 INACCURATE, cosine 0.4321, worst 0.800, labels 98.7%; fp32 cosine 0.9" in said
    assert "112x112 int8 (inaccurate), 112x112 fp32, 168x168 int8, 168x168 fp32" in said
    assert f"on {cpu_kind()} at 112: onnxruntime int8 1.2 ms, onnxruntime fp32 3.5 ms" in said
    assert "runs gnn fp32" in said, "what is inaccurate is not chosen by itself"
    assert run_cli("info", path, "-v") == 0
    said = capfd.readouterr().out
    agreement = said[said.index("agreement with fp32") : said.index("times of the backbone")]
    assert agreement.count("INACCURATE") == 1 and longest(said.splitlines(), path) <= 80
    times = said[said.index("times of the backbone") : said.index("model card")]
    assert len(re.findall(r"onnxruntime +(int8|fp32) +(112|168) +cpu", times)) == 4


def test_times_of_other_cpus_are_said_to_be_of_others(
    run_cli: Patchcut, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("info", measured_bundle(tmp_path / "toy.patchcut", cpu="abacus")) == 0
    assert f"none on {cpu_kind()} at 112, only on abacus" in " ".join(capfd.readouterr().out.split())


def test_a_run_in_an_inaccurate_precision_says_so(
    run_cli: Patchcut, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, photo = measured_bundle(tmp_path / "toy.patchcut", cpu="abacus"), tmp_path / "x.png"
    write_image(photo, np.zeros((30, 40, 3), np.uint8))
    warning = "inaccurate: the bundle's report does not accept int8 at 112: it is too far from fp32"
    for precision, expected in (("int8", True), ("fp32", False)):
        assert run_cli("run", photo, "--bundle", path, "--precision", precision) == 0
        assert (warning in capfd.readouterr().out) is expected
