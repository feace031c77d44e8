"""ONNX Runtime's wheels and providers, on a machine that has neither a GPU nor the wheel for one."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import patchcut
import pytest
from patchcut import EngineError, OptionError, Settings, installed, open_bundle
from patchcut.engines import onnxruntime as adapter
from patchcut.engines.onnxruntime import OnnxRuntimeEngine, tensorrt_cache
from patchcut.engines.onnxruntime.providers import CPU_PROVIDER, CUDA_PROVIDER, TENSORRT_PROVIDER

from tests.runtime.engines.fake_onnxruntime import fake_runtime

CPU, CUDA, TENSORRT = CPU_PROVIDER, CUDA_PROVIDER, TENSORRT_PROVIDER
ALL = [TENSORRT, CUDA, CPU]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATCHCUT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/onnxruntime-tensorrt"


def pretend(monkeypatch: pytest.MonkeyPatch, *args: Any, **more: Any) -> SimpleNamespace:
    fake = fake_runtime(*args, **more)
    monkeypatch.setattr(adapter, "import_onnxruntime", lambda: fake)
    return fake


def test_both_wheels_at_once_are_an_error_that_says_which_to_remove(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "_version", {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}.get)
    said = (
        r"\[engine\] onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are both installed, over each other; "
        r"remove the first, .*: pip uninstall -y onnxruntime && pip install .* onnxruntime-gpu==1.31.1"
    )
    with pytest.raises(EngineError, match=said):
        patchcut.load(toy_bundle, engine="onnxruntime")


@pytest.mark.parametrize("device", ["gpu", "npu"])
def test_devices_of_other_engines_name_the_engine(toy_bundle: Path, device: Any) -> None:
    with open_bundle(toy_bundle) as bundle:
        for factory in (adapter.open_engine, adapter.open_tensorrt):
            with pytest.raises(EngineError, match=rf'\[device\] .* does not run on "{device}"; .*openvino'):
                factory(bundle, bundle.spec.backbone, Settings(engine="onnxruntime", device=device))


def test_libraries_of_cuda_that_are_missing_are_named_and_nothing_is_printed(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def preload() -> None:
        print("Failed to load libcublasLt.so.13: cannot open shared object file")
        print("Please follow the instructions")

    pretend(monkeypatch, [CUDA, CPU], [CPU], preload_dlls=preload)
    with pytest.raises(EngineError, match=r"runs on CPU.* \(Failed to load libcublasLt.so.13: cannot open"):
        patchcut.load(toy_bundle, device="cuda")
    assert capfd.readouterr().out == ""


def test_libraries_of_cuda_are_left_alone_on_a_cpu(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def preload() -> None:
        raise AssertionError

    pretend(monkeypatch, [CUDA, CPU], [CPU], preload_dlls=preload)
    assert patchcut.load(toy_bundle, device="cpu").describe().provider == CPU


def test_nodes_that_fell_back_are_an_error(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assigned = {CUDA: ["MatMul", "Conv"], CPU: ["Shape", "Concat", "DynamicQuantizeLinear", "Softmax"]}
    pretend(monkeypatch, [CUDA, CPU], [CUDA, CPU], assigned=assigned)
    said = r"leaves 2 nodes \(DynamicQuantizeLinear, Softmax\) to CPUExecutionProvider"
    with pytest.raises(EngineError, match=rf"\[device\] CUDAExecutionProvider {said}"):
        patchcut.load(toy_bundle, device="cuda")


def test_sums_of_shapes_may_run_on_the_cpu(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assigned = {CUDA: ["MatMul", "Conv"], CPU: ["Shape", "Concat"]}
    pretend(monkeypatch, [CUDA, CPU], [CUDA, CPU], assigned=assigned)
    assert patchcut.load(toy_bundle, device="cuda").describe().provider == CUDA


def test_auto_says_why_it_does_not_run_on_the_gpu(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pretend(monkeypatch, [CUDA, CPU], [CUDA, CPU], fails=True)
    with caplog.at_level(logging.WARNING, "patchcut"):
        assert patchcut.load(toy_bundle).describe().device == "cpu"
    (message,) = caplog.messages
    assert "no CUDA-capable device is detected" in message and "runs on the CPU" in message


def test_a_gpus_memory_is_bounded_and_fp32_is_fp32(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, [CUDA, CPU], [CUDA, CPU])
    engine: Any = patchcut.load(toy_bundle, device="cuda", precision="fp32").extractor.engine
    (name, options), *others = engine._session.providers
    assert (name, others) == (CUDA, [CPU])
    assert int(options["gpu_mem_limit"]) == 4 << 30 and options["arena_extend_strategy"] == "kSameAsRequested"
    assert options["use_tf32"] == "0"


def open_tensorrt(path: Path, **settings: Any) -> OnnxRuntimeEngine:
    with open_bundle(path) as bundle:
        settings.setdefault("engine", "onnxruntime-tensorrt")
        return adapter.open_tensorrt(bundle, bundle.spec.backbone, Settings(**settings))


def test_tensorrt_gets_one_profile_and_a_whole_cache(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pretend(monkeypatch, ALL, ALL)
    engine: Any = open_tensorrt(toy_bundle)
    facts = engine.facts
    assert (facts.name, facts.provider, facts.device) == ("onnxruntime-tensorrt", TENSORRT, "cuda")
    assert (facts.precision, facts.max_batch) == ("fp32", 8)
    (name, options), (second, _), third = engine._session.providers
    assert [name, second, third] == ALL
    shapes = {name: options[f"trt_profile_{name}_shapes"] for name in ("min", "opt", "max")}
    assert shapes == {"min": "image:1x3x112x112", "opt": "image:1x3x112x112", "max": "image:8x3x112x112"}
    assert "trt_fp16_enable" not in options and int(options["trt_max_workspace_size"]) == 1 << 30
    building = Path(options["trt_engine_cache_path"])
    assert building.name.startswith("building-") and not building.exists()
    (folder,) = (one for one in cache.iterdir() if one.is_dir())
    assert "which takes minutes" in caplog.text

    caplog.clear()
    again: Any = open_tensorrt(toy_bundle)
    assert again._session.providers[0][1]["trt_engine_cache_path"] == str(folder) and not caplog.text
    other: Any = open_tensorrt(toy_bundle, size=168)
    assert other._session.providers[0][1]["trt_engine_cache_path"] != str(folder)
    assert sum(one.is_dir() for one in cache.iterdir()) == 2


def test_a_build_that_fails_leaves_no_folder(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    pretend(monkeypatch, ALL, [CUDA, CPU])
    with pytest.raises(EngineError, match="has TensorrtExecutionProvider but runs on CUDAExecutionProvider"):
        open_tensorrt(toy_bundle)
    assert not any(one.is_dir() for one in cache.iterdir())


def test_of_two_that_build_the_same_one_waits(tmp_path: Path) -> None:
    cache = tensorrt_cache.TensorrtCache(tmp_path / "engines")
    begun, waits, got = threading.Event(), threading.Event(), []

    def second() -> None:
        begun.wait(10)
        waits.set()
        with cache.entry() as folder:
            got.append((folder, (folder / "engine").read_text()))

    thread = threading.Thread(target=second)
    thread.start()
    with cache.entry() as building:
        begun.set()
        waits.wait(10)
        (building / "engine").write_text("whole")
        assert not got and building != cache.folder
    thread.join(10)
    assert got == [(cache.folder, "whole")]


def test_without_a_cache_nothing_is_kept(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHCUT_CACHE", "off")
    pretend(monkeypatch, ALL, ALL)
    engine: Any = open_tensorrt(toy_bundle)
    assert "trt_engine_cache_enable" not in engine._session.providers[0][1]


def test_a_cache_that_cannot_be_written_is_one_line(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PATCHCUT_CACHE", str(tmp_path / "file"))
    pretend(monkeypatch, ALL, ALL)
    with pytest.raises(
        EngineError, match=r"\[engine\] cannot write .*; name another folder in PATCHCUT_CACHE"
    ):
        open_tensorrt(toy_bundle)


def test_an_engine_is_of_one_graph_gpu_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(__version__="1.32.0")
    folders = {tensorrt_cache.TensorrtCache.of(fake, data) for data in (b"a", b"a", b"b")}
    folders.add(tensorrt_cache.TensorrtCache.of(SimpleNamespace(__version__="1.33.0"), b"a"))
    monkeypatch.setattr(tensorrt_cache.cuda, "is_available", lambda: True)
    for name in ("H100", "Orin"):
        monkeypatch.setattr(tensorrt_cache.cuda, "device_name", lambda name=name: name)
        monkeypatch.setattr(tensorrt_cache.cuda, "compute_capability", lambda: (9, 0))
        folders.add(tensorrt_cache.TensorrtCache.of(fake, b"a"))
    assert len(folders) == 5


@pytest.mark.parametrize(
    ("settings", "available", "error", "said"),
    [
        ({"device": "cpu"}, ALL, EngineError, r'\[device\] .* does not run on "cpu"; .*engine="onnxruntime"'),
        ({"precision": "int8"}, ALL, OptionError, r'\[precision\] must be "int8-qdq", "bf16", .*got "int8"'),
        ({}, [CUDA, CPU], EngineError, r"\[device\] .*no TensorrtExecutionProvider, only CUDA.*\[gpu\]"),
        ({"precision": "fp16"}, ALL, OptionError, r"\[precision\] the bundle has int8, fp32"),
    ],
    ids=str,
)
def test_what_tensorrt_cannot_do_is_told(
    toy_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    available: list[str],
    error: type[Exception],
    said: str,
) -> None:
    pretend(monkeypatch, available, available)
    with pytest.raises(error, match=said):
        open_tensorrt(toy_bundle, **settings)


def test_frames_go_through_tensorrt_together(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "_stream", lambda: None)  # memory of the host, which the fake reads
    pretend(monkeypatch, ALL, ALL)
    engine = open_tensorrt(toy_bundle)
    images: Any = engine.images(3)
    images[:] = np.random.default_rng(0).standard_normal(images.shape)
    made = np.array(engine.run(3)["key"])
    with open_bundle(toy_bundle) as bundle:
        on_cpu = adapter.open_engine(bundle, bundle.spec.backbone, Settings(device="cpu", precision="fp32"))
    np.copyto(on_cpu.images(3), images)  # type: ignore[arg-type]
    np.testing.assert_allclose(made, on_cpu.run(3)["key"], atol=1e-4)  # type: ignore[arg-type]
    assert len(engine._bindings) == 1 and len(on_cpu._bindings) == 3
