"""How an engine of TensorRT is built, and what is said where that cannot be."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from patchcut import EngineError, OptionError, OutputError
from patchcut.engines.tensorrt import TensorRtOptions, builder, memory, options
from patchcut.engines.tensorrt.memory import KernelMemory
from patchcut_kernels import cuda

from tests.runtime.engines.tensorrt.fakes import FakeTensorRt, no_driver, opened


def test_how_an_engine_is_built(trt: FakeTensorRt, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "_memory_mb", lambda: 64 << 10)
    opened(toy_bundle)
    monkeypatch.setattr(options, "_memory_mb", lambda: 7620)  # of an Orin Nano with 8 GB
    opened(toy_bundle)
    monkeypatch.setenv("PATCHCUT_TENSORRT", "max_batch=16, workspace_mb=100,low_memory=no")
    engine = opened(toy_bundle, size=168)
    assert engine.facts.max_batch == 16
    usual, small, asked = trt.configs
    assert not usual.flags and usual.limits == {"workspace": 1 << 30}
    assert not hasattr(usual, "builder_optimization_level")
    assert small.limits == {"workspace": 256 << 20, "tactic_dram": 512 << 20}
    assert small.builder_optimization_level == 2
    assert asked.limits == {"workspace": 100 << 20}
    shapes = [config.profiles[0].shapes for config in trt.configs]
    assert shapes[0] == ("image", (1, 3, 112, 112), (1, 3, 112, 112), (8, 3, 112, 112))
    assert shapes[2] == ("image", (1, 3, 168, 168), (1, 3, 168, 168), (16, 3, 168, 168))


def test_a_build_tells_how_far_it_is(
    trt: FakeTensorRt, toy_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    opened(toy_bundle)
    assert capsys.readouterr().err.split("\r\x1b[K")[1:] == [
        "Building 0/2",
        "Building 1/2",
        "",
        "",
    ]


def test_a_build_that_is_stopped_leaves_nothing(
    trt: FakeTensorRt, toy_bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("patchcut.engines.tensorrt.progress.LoadProgress.step", stop)
    with pytest.raises(KeyboardInterrupt):
        opened(toy_bundle)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_auto_takes_what_tensorrt_can_run(trt: FakeTensorRt, toy_bundle: Path) -> None:
    assert opened(toy_bundle, precision="auto").facts.precision == "fp32"


def test_options_repeat_themselves() -> None:
    chosen = TensorRtOptions(memory="pycuda", max_batch=3)
    assert chosen.words() == "memory=pycuda,max_batch=3"
    assert replace(chosen, max_batch=8, memory="kernels").words() == ""


# Bad input, each with one line


def stub(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    patch.setenv("PATCHCUT_TENSORRT", "flavour=tensorrt")


def missing(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "tensorrt", None)
    patch.setitem(sys.modules, "tensorrt_rtx", None)


def no_cuda(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(memory, "KernelMemory", KernelMemory)
    patch.setattr(cuda, "is_available", lambda: False)
    patch.setattr(cuda, "why_unavailable", lambda: "these kernels were built without CUDA")


def no_pycuda(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "pycuda", None)
    patch.setenv("PATCHCUT_TENSORRT", "memory=pycuda")


def little_space(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5_000_000))


def full_disk(patch: pytest.MonkeyPatch) -> None:
    def write(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    patch.setattr(Path, "write_bytes", write)


def words(text: str) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setenv("PATCHCUT_TENSORRT", text)


BAD = {
    "no driver": (no_driver, EngineError, r"\[device\] TensorRT runs on an NVIDIA GPU, .*no NVIDIA driver; "),
    "no TensorRT": (
        missing,
        EngineError,
        r"\[engine\] tensorrt cannot be imported.*tensorrt_rtx cannot .*\[tensorrt\].*\[tensorrt-rtx\]",
    ),
    "stub package": (
        stub,
        EngineError,
        r"\[engine\] tensorrt is a stub package.*; pip install .*\[tensorrt\]",
    ),
    "no CUDA": (
        no_cuda,
        EngineError,
        r"\[device\] .*without CUDA; .*PATCHCUT_CUDA=ON, or pip install .*pycuda",
    ),
    "no pycuda": (no_pycuda, EngineError, r"\[device\] pycuda cannot be used: .*; pip install .*\[pycuda\]"),
    "little space": (
        little_space,
        OutputError,
        r"\[output\] .* has 5 MB of space, an engine needs about 67; ",
    ),
    "full disk": (
        full_disk,
        OutputError,
        r"\[output\] cannot write .*\.engine: No space left on device; free",
    ),
    "unknown word": (
        words("batch=3"),
        OptionError,
        r"\[PATCHCUT_TENSORRT\] has no option 'batch', only flavour, memory",
    ),
    "no number": (
        words("max_batch=many"),
        OptionError,
        r"\[PATCHCUT_TENSORRT\] max_batch must be a whole number",
    ),
    "no flavour": (words("flavour=lean"), OptionError, r"\[PATCHCUT_TENSORRT\] flavour must be one of"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_missing_is_said_in_one_line(
    trt: FakeTensorRt, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, cache: Path, case: str
) -> None:
    harm, kind, said = BAD[case]
    harm(monkeypatch)
    with pytest.raises(kind, match=said) as caught:
        opened(toy_bundle)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert not list(cache.glob("*.engine")) and not list(cache.glob(".partial*"))


@pytest.mark.parametrize("device", ["cpu", "gpu", "npu"])
def test_other_devices_are_refused(toy_bundle: Path, device: str) -> None:
    with pytest.raises(
        EngineError, match=rf'\[device\] .*NVIDIA GPU, got device="{device}"; pass device="cuda"'
    ):
        opened(toy_bundle, device=device)


def test_a_graph_of_dynamic_int8_names_what_runs(
    trt: FakeTensorRt, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "_UNKNOWN", ("DequantizeLinear",))
    with pytest.raises(
        EngineError, match=r"\[precision\] backbone-112-int8.onnx has .*; pass precision=\"fp32\""
    ):
        opened(toy_bundle, precision="int8")


def test_a_failing_build_keeps_what_tensorrt_says(trt: FakeTensorRt, toy_bundle: Path) -> None:
    trt.failure = "Error Code 2: OutOfMemory\n(Requested 4096 bytes.)"
    with pytest.raises(EngineError, match=r"cannot build .* OutOfMemory \(Requested.*; .*low_memory=yes"):
        opened(toy_bundle)
    trt.failure = "Error Code 9: Internal"
    with pytest.raises(EngineError, match=r"cannot build .*Code 9: Internal; pass another precision"):
        opened(toy_bundle)
