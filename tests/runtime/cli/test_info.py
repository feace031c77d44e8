"""What `patchcut info` prints: one screen, whatever a bundle holds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

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
