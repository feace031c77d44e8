"""`patchcut export backbone --fused`: the one ONNX file beside the bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs patchcut[export]")
pytest.importorskip("onnxscript", reason="needs patchcut[export]")
ort = pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

from tests.export.conftest import add_head

Patchcut = Callable[..., int]

MODEL = ("test_vit", "--features", "key@1", "--size", "64", "--precision", "fp32")


def test_it_needs_a_head(run_cli: Patchcut, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    places = ["--out", tmp_path / "a.patchcut", "--fused", tmp_path / "a.onnx"]
    assert run_cli("export", "backbone", *MODEL, *places) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "[fused] needs a head: features alone are no assignment; add --head BUNDLE" in line
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_written_beside_the_bundle(
    run_cli: Patchcut, random_state: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    weights, first = tmp_path / "vit.pth", tmp_path / "first.patchcut"
    torch.save(random_state(), weights)
    assert run_cli("export", "backbone", *MODEL, "--weights", weights, "--out", first) == 0
    headed = add_head(first, tmp_path / "headed.patchcut", ("background", "foreground"))
    places = ["--head", headed, "--out", tmp_path / "b.patchcut", "--fused", tmp_path / "b.onnx"]
    assert run_cli("export", "backbone", *MODEL, "--weights", weights, *places) == 0
    session = ort.InferenceSession(tmp_path / "b.onnx", providers=["CPUExecutionProvider"])
    (assignment,) = session.run(None, {"image": np.zeros((3, 64, 64, 3), np.uint8)})
    assert assignment.shape == (3, 16, 2)
    np.testing.assert_allclose(assignment.sum(-1), 1, rtol=1e-5)
