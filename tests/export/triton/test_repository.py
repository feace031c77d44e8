"""`patchcut export triton`: what it writes, and what it refuses."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

onnx = pytest.importorskip("onnx", reason="needs patchcut[export]")
pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

from patchcut.errors import OptionError
from patchcut_export.fused import heads
from patchcut_export.triton import tensorrt_plan
from patchcut_export.triton.plan import FusedPlan, TritonPlan
from tests.runtime import toy_bundle as toy

Patchcut = Callable[..., int]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return toy.write(tmp_path / "toy.patchcut")


def test_the_command_writes_the_repository(
    run_cli: Patchcut, bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "models"
    assert run_cli("export", "triton", "--bundle", bundle, "--out", out, "--frame", "60x80") == 0
    said = capfd.readouterr().err
    assert "image [batch, 60, 80, 3] uint8 bgr to assignment [batch, 64, 3] float32" in said
    assert "100.00% of the patches alike" in said and "toy_assignment" in said
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*"))
    files = ["config.pbtxt", "1"]
    models = {"toy": [], "toy_assignment": ["1/model.onnx"], "toy_regions": ["1/model.py"]}
    wanted = [f"{name}/{file}" for name, more in models.items() for file in (*files, *more)]
    assert written == sorted([*models, *wanted])
    plain = tmp_path / "plain"
    plain.mkdir()
    assert stat.S_IMODE(out.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode), "Triton is another user"
    plain.rmdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "toy.patchcut"]


def test_an_empty_folder_is_filled_and_a_full_one_refused(
    run_cli: Patchcut, bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "models"
    out.mkdir()
    asked = ["export", "triton", "--bundle", bundle, "--out", out, "--name", "seg-1"]
    assert run_cli(*asked) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert len(before) == 5
    capfd.readouterr()
    assert run_cli(*asked) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith(
        f"[output] {out} is a folder that holds something; choose another, or remove it first"
    )
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--out", "toy.patchcut"], 1, "toy.patchcut is no folder; choose a path where nothing is"),
        (["--out", "none/models"], 1, "none is not a folder; make it first"),
        (
            ["--out", "x", "--name", "a/b"],
            2,
            "[name] must be of letters, digits, dots, dashes and _, got 'a/b'",
        ),
        (["--out", "x", "--backend", "torch"], 2, '[backend] must be one of "onnxruntime", "tensorrt", got'),
        (["--out", "x", "--refine", "auto"], 2, '[refine] must be one of "none", "guided"'),
        (["--out", "x", "--max-batch", 0], 2, "[max-batch] must be a whole number from 1 to 256, got 0"),
        (["--out", "x", "--batch-wait", -1], 2, "[batch-wait] must be a number from 0 to 10000, got -1"),
        (["--out", "x", "--instances", 99], 2, "[instances] must be a whole number from 1 to 64, got 99"),
        (["--out", "x", "--backend", "tensorrt", "--precision", "int8"], 2, "[precision] int8 has operators"),
    ],
)
def test_what_is_wrong_is_one_line(
    run_cli: Patchcut,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    options: list[object],
    status: int,
    said: str,
) -> None:
    monkeypatch.chdir(bundle.parent)
    assert run_cli("export", "triton", "--bundle", bundle, *options) == status
    (line,) = capfd.readouterr().err.splitlines()
    assert said in line
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_a_head_for_parts_is_refused(
    run_cli: Patchcut, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = toy.members()
    spec = toy.manifest(files)
    spec["heads"][0]["role"] = "parts"
    path = toy.write(tmp_path / "toy.patchcut", files, spec)
    assert run_cli("export", "triton", "--bundle", path, "--out", tmp_path / "models") == 2
    assert '[head] "gnn" is for parts; choose one for objects or names' in capfd.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["toy.patchcut"]


def test_nothing_is_left_of_a_model_that_differs(
    run_cli: Patchcut, bundle: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def hotter(nodes: Any, features: Any, bundle: Any, head: Any, grid_hw: Any, output: str) -> None:
        changed = head.model_copy(update={"temperature": 2 * head.temperature})
        heads.add_gnn(nodes, features, bundle, changed, grid_hw, output)

    monkeypatch.setitem(heads.FUSED, "gnn", hotter)
    assert run_cli("export", "triton", "--bundle", bundle, "--out", bundle.parent / "models") == 1
    assert "differs from patchcut's" in capfd.readouterr().err
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_a_plan_without_tensorrt_says_what_to_install(
    run_cli: Patchcut, bundle: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    asked = ["--bundle", bundle, "--out", bundle.parent / "models", "--backend", "tensorrt"]
    assert run_cli("export", "triton", *asked) == 1
    said = capfd.readouterr().err
    assert "tensorrt cannot be imported" in said and "[tensorrt]" in said
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_a_plan_is_built(
    bundle: Path, write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By TensorRT for RTX, which builds without a GPU; its plans are none to Triton."""
    trt = pytest.importorskip("tensorrt_rtx", reason="needs patchcut[tensorrt-rtx]")
    from patchcut.engines.tensorrt.gpus import Gpu
    from patchcut.engines.tensorrt.package import import_package

    class Memory:
        def gpu(self) -> Gpu:
            return Gpu("", "8.9", "")

    monkeypatch.setattr(tensorrt_plan, "import_package", lambda flavour: import_package("tensorrt-rtx"))
    monkeypatch.setattr(tensorrt_plan, "open_memory", lambda kind: Memory())
    made = write(tmp_path / "models", bundle, backend="tensorrt", max_batch=3)
    config = (made / "seg_assignment/config.pbtxt").read_text()
    assert 'backend: "tensorrt"\ndefault_model_filename: "model.plan"\n' in config
    plan = (made / "seg_assignment/1/model.plan").read_bytes()
    assert len(plan) > 1000 and not (made / "seg_assignment/1/model.onnx").exists()
    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(plan)
    if engine is not None:  # it takes a driver
        assert engine.get_tensor_profile_shape("image", 0)[2][0] == 3


def test_the_plan_says_what_its_models_are_called() -> None:
    assert TritonPlan(fused=FusedPlan(), name="a.b").models == ("a.b", "a.b_assignment", "a.b_regions")
    with pytest.raises(OptionError, match="give one with --name"):
        TritonPlan(fused=FusedPlan(), name=json.dumps("x"))
