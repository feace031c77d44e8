"""TensorRT: real builds by TensorRT for RTX, which needs no GPU; execution is that of `fake_tensorrt`.

None of it has run on a GPU.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import patchcut
import pytest
from onnx import TensorProto, helper, numpy_helper
from patchcut import EngineError, OptionError, OutputError, Settings, open_bundle
from patchcut.engines import Engine, open_engine
from patchcut.engines.tensorrt import TensorRtOptions, builder, engine_cache, gpus, memory, options
from patchcut.engines.tensorrt.memory import KernelMemory
from patchcut.features import to_host
from patchcut_kernels import cuda

from tests.runtime import toy_bundle as toy
from tests.runtime.engines.fake_tensorrt import FakeTensorRt, HostMemory
from tests.runtime.results import same

DRIVER = "540.4.0, CUDA 12.6"
SETS = {"key": toy.DIM, "token": 2 * toy.DIM, "cls": toy.DIM}


@pytest.fixture(scope="module")
def rich_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = toy.members(tokens=True)
    return toy.write(tmp_path_factory.mktemp("b") / "rich.patchcut", files, toy.manifest(files, tokens=True))


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of engines of this test."""
    monkeypatch.setenv("PATCHCUT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/tensorrt"


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch, cache: Path, request: pytest.FixtureRequest) -> FakeTensorRt:
    """TensorRT and a GPU, both of them stand-ins: CUDA that the host runs, or else the host's memory."""
    fake = FakeTensorRt()
    if cuda.is_available() and cuda.device_name() == "host":
        fake.give = request.getfixturevalue("host_cuda").call
    else:
        monkeypatch.setattr(memory, "KernelMemory", HostMemory)
    monkeypatch.setattr(cuda, "device_name", lambda device=0: "host")
    monkeypatch.setattr(cuda, "compute_capability", lambda device=0: (8, 7))
    monkeypatch.setitem(sys.modules, "tensorrt", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(memory, "driver_version", lambda: DRIVER)
    return fake


@pytest.fixture
def trt_on_stream(host_cuda: Any, trt: FakeTensorRt) -> FakeTensorRt:
    """The same with streams and graphs, which are those of the host layer."""
    return trt


def opened(path: Path, sets: Any = ("key",), **settings: Any) -> Engine:
    with open_bundle(path) as bundle:
        backbone = bundle.spec.backbone
        wanted = {name: backbone.features[name] for name in sets}
        chosen = Settings(**{"engine": "tensorrt", "precision": "fp32", **settings})
        return open_engine(bundle, backbone.model_copy(update={"features": wanted}), chosen)


def put(engine: Engine, values: np.ndarray) -> None:
    into = engine.images(len(values))
    if isinstance(into, cuda.DeviceArray):
        assert into.stream is not None
        cuda.copy(values, into, stream=into.stream)
    else:
        np.copyto(into, values)


def images(batch: int, size: int = toy.SIZES[0]) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, 3, size, size)).astype(np.float32)


def reference(values: np.ndarray) -> dict[str, np.ndarray]:
    key = np.stack([toy.reference_features(image, "fp32") for image in values])
    assert key.std() > 1
    token = np.concatenate([key, np.maximum(key, 0)], axis=2)
    return {"key": key, "token": token, "cls": key.mean(axis=1, keepdims=True)}


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# What runs


@pytest.mark.parametrize("size", toy.SIZES)
def test_features_are_those_of_the_graph(trt: FakeTensorRt, rich_bundle: Path, size: int) -> None:
    engine = opened(rich_bundle, ("cls", "key", "token"), size=size)
    for batch in (1, 8, 3, 1, 1):
        values = batch + images(batch, size)
        put(engine, values)
        made = engine.run(batch)
        assert list(made) == ["cls", "key", "token"]
        for name, expected in reference(values).items():
            np.testing.assert_allclose(to_host(made[name]), expected, rtol=1e-4, atol=2e-3)


def test_facts_say_what_runs(trt: FakeTensorRt, toy_bundle: Path) -> None:
    described = patchcut.load(toy_bundle, engine="tensorrt", size=168, precision="fp32").describe()
    assert (described.engine, described.device, described.precision) == ("tensorrt", "cuda", "fp32")
    assert described.provider == "tensorrt 10.3.0 (host)" and described.size_hw == (168, 168)


def test_results_are_those_of_onnxruntime(trt: FakeTensorRt, toy_bundle: Path, photo: np.ndarray) -> None:
    segmenter = patchcut.load(toy_bundle, engine="tensorrt", precision="fp32")
    other = patchcut.load(toy_bundle, engine="onnxruntime", device="cpu", precision="fp32")
    photo = photo[::4, ::4]  # CUDA that the host runs is slow
    for _ in range(3):  # the third frame is one graph
        found, expected = segmenter(photo), other(photo)
        assert len(expected) > 0 and np.mean(found.label_map == expected.label_map) > 0.999


def test_two_segmenters_give_equal_results(trt: FakeTensorRt, toy_bundle: Path, photo: np.ndarray) -> None:
    one, other = (patchcut.load(toy_bundle, engine="tensorrt", precision="fp32") for _ in range(2))
    same(one(photo[::4, ::4]), other(photo[::4, ::4]))


def test_work_is_a_graph_from_the_second_run_on(trt_on_stream: FakeTensorRt, toy_bundle: Path) -> None:
    trt, engine = trt_on_stream, opened(toy_bundle)
    asked, done = trt.executed, trt.computed
    for _ in range(3):
        engine.run(1)
    assert (trt.executed, trt.computed) == (asked, done + 3)  # warmed up when it was opened
    for _ in range(4):
        engine.run(2)
    assert (trt.executed, trt.computed) == (asked + 2, done + 7)
    engine.run(1)
    assert trt.executed == asked + 2


def test_an_engine_is_a_part_of_a_graph(trt_on_stream: FakeTensorRt, toy_bundle: Path) -> None:
    engine: Any = opened(toy_bundle)
    values = images(1)
    host = cuda.empty_host(values.shape)
    stream = engine.images(1).stream

    def work() -> None:
        cuda.copy(host, engine.images(1), stream=stream)
        engine.run(1)

    assert engine.capturable
    graph = engine.capture(work)
    host[:] = values
    graph.launch(stream)
    np.testing.assert_allclose(to_host(engine.run(1)["key"]), reference(values)["key"], rtol=1e-4, atol=2e-3)


def test_what_cannot_be_captured_runs_all_the_same(
    trt_on_stream: FakeTensorRt, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory.KernelMemory, "capture", lambda *_: None)
    engine: Any = opened(toy_bundle)
    values = images(1)
    for _ in range(3):
        put(engine, values)
        np.testing.assert_allclose(
            to_host(engine.run(1)["key"]), reference(values)["key"], rtol=1e-4, atol=2e-3
        )
    assert not engine.capturable
    with pytest.raises(EngineError, match=r"\[engine\] tensorrt 10.3.0 cannot be captured"):
        engine.capture(lambda: None)


class FakeContext:
    depth = 0

    def push(self) -> None:
        self.depth += 1

    def pop(self) -> None:
        self.depth -= 1


class FakePyCuda(ModuleType):
    """pycuda.driver on memory of the host; each call needs the context, as pycuda's do."""

    def __init__(self, context: FakeContext) -> None:
        super().__init__("pycuda.driver")
        self.context = context
        self.copied: list[tuple[str, int]] = []
        self.allocations: list[np.ndarray] = []
        self.memcpy_htod_async = self._copy("up")
        self.memcpy_dtoh_async = self._copy("down")

    def Stream(self) -> Any:
        assert self.context.depth
        return SimpleNamespace(handle=0, synchronize=lambda: None)

    def Device(self, index: int) -> Any:
        return SimpleNamespace(name=lambda: "Orin", compute_capability=lambda: (8, 7))

    def mem_alloc(self, nbytes: int) -> int:
        assert self.context.depth
        self.allocations.append(np.full(nbytes + 256, 255, np.uint8))
        return -(-self.allocations[-1].ctypes.data // 256) * 256

    def memset_d8(self, to: int, value: int, count: int) -> None:
        ctypes.memset(to, value, count)

    def pagelocked_zeros(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.zeros(shape, dtype)

    def _copy(self, direction: str) -> Callable[[Any, Any, Any], None]:
        def copy(to: Any, source: Any, stream: Any) -> None:
            assert self.context.depth
            host = source if direction == "up" else to
            self.copied.append((direction, host.nbytes))
            ctypes.memmove(*(x if isinstance(x, int) else x.ctypes.data for x in (to, source)), host.nbytes)

        return copy


@pytest.mark.parametrize("kernels", ["cuda", "cpu"])
def test_memory_of_pycuda(
    trt: FakeTensorRt, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, kernels: str
) -> None:
    if kernels == "cuda" and trt.give is None:
        pytest.skip("needs kernels that were built with PATCHCUT_CUDA=HOST")
    context = FakeContext()
    fake = FakePyCuda(context)
    monkeypatch.setitem(sys.modules, "pycuda", ModuleType("pycuda"))
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake)
    monkeypatch.setitem(sys.modules, "pycuda.autoprimaryctx", SimpleNamespace(context=context))  # type: ignore[arg-type]
    monkeypatch.setenv("PATCHCUT_TENSORRT", "memory=pycuda,max_batch=2")
    trt.give = None
    if kernels == "cpu":
        monkeypatch.setattr(cuda, "is_available", lambda: False)
    engine = opened(toy_bundle)
    assert engine.facts.provider == "tensorrt 10.3.0 (Orin)" and engine.facts.max_batch == 2
    for batch in (2, 1, 1):
        fake.copied.clear()
        values = images(batch)
        put(engine, values)
        made = engine.run(batch)["key"]
        np.testing.assert_allclose(to_host(made), reference(values)["key"], rtol=1e-4, atol=2e-3)
        assert isinstance(made, np.ndarray) == (kernels == "cpu")
        expected = [("up", values.nbytes), ("down", made.nbytes)] if kernels == "cpu" else []
        assert fake.copied == expected
    assert context.depth == 0


def test_engines_leave_nothing_behind(trt: FakeTensorRt, toy_bundle: Path) -> None:
    gone = []
    for _ in range(5):
        engine = opened(toy_bundle)
        engine.run(1)
        gone.append(weakref.ref(engine))
    del engine
    gc.collect()
    assert not any(reference() for reference in gone)


# The cache of engines


def test_an_engine_is_built_once(
    trt: FakeTensorRt, toy_bundle: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(toy_bundle)
    assert len(trt.configs) == 1 and len(list(cache.glob("*.engine"))) == 1
    said = warnings_of(caplog)
    assert said[0].startswith("[engine] builds an engine now, once, for minutes; `patchcut export engine`")
    made = "[engine] builds backbone-112-fp32.onnx with tensorrt 10.3.0 for host (compute capability "
    assert said[1].startswith(made) and len(said) == 2
    caplog.clear()
    opened(toy_bundle)
    assert len(trt.configs) == 1 and not warnings_of(caplog)


def change_driver(trt: FakeTensorRt, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(memory, "driver_version", lambda: "580.1, CUDA 13.0")


def change_gpu(trt: FakeTensorRt, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cuda, "device_name", lambda device=0: "Thor")


def change_capability(trt: FakeTensorRt, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cuda, "compute_capability", lambda device=0: (11, 0))


def change_version(trt: FakeTensorRt, patch: pytest.MonkeyPatch) -> None:
    trt.__version__ = "10.16.1"


def change_option(trt: FakeTensorRt, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("PATCHCUT_TENSORRT", "max_batch=4")


CHANGES = [
    (change_driver, "is of another driver: 540.4.0, CUDA 12.6, here 580.1, CUDA 13.0"),
    (change_gpu, "is of another GPU: host, here Thor"),
    (change_capability, "is of another compute capability"),
    (change_version, "is of another TensorRT's version: 10.3.0, here 10.16.1"),
    (change_option, "is of another max_batch: 8, here 4"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES, ids=[one.__name__ for one, _ in CHANGES])
def test_an_engine_of_another_machine_is_not_loaded(
    trt: FakeTensorRt,
    toy_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    change: Callable[..., None],
    said: str,
) -> None:
    opened(toy_bundle)
    caplog.clear()
    change(trt, monkeypatch)
    opened(toy_bundle)
    assert len(trt.configs) == 2
    assert any(said in line for line in warnings_of(caplog)), warnings_of(caplog)


def test_other_feature_sets_and_other_weights_are_other_engines(
    trt: FakeTensorRt, rich_bundle: Path, toy_bundle: Path, cache: Path
) -> None:
    for sets in (("key",), ("key", "token"), ("key",)):
        opened(rich_bundle, sets)
    opened(toy_bundle)
    assert len(trt.configs) == 3 and len(list(cache.glob("*.engine"))) == 3


def test_a_renamed_engine_of_another_gpu_is_seen(
    trt: FakeTensorRt, toy_bundle: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(toy_bundle)
    (path,) = cache.glob("*.engine")
    path.write_bytes(path.read_bytes().replace(b'"gpu": "host"', b'"gpu": "Orin"'))
    caplog.clear()
    opened(toy_bundle)
    assert len(trt.configs) == 2
    line = warnings_of(caplog)[0]
    assert line == f"[engine] {path} is of another GPU: Orin, here host; it is built again"


@pytest.mark.parametrize("harm", ["cut", "flipped", "foreign", "empty", "unreadable header"])
def test_a_damaged_engine_is_built_again(
    trt: FakeTensorRt, toy_bundle: Path, cache: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    opened(toy_bundle)
    (path,) = cache.glob("*.engine")
    data = path.read_bytes()
    harmed = {
        "cut": data[:-9],
        "flipped": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        "foreign": b"ftrt" + bytes(100),
        "empty": b"",
        "unreadable header": data.replace(b'{"key"', b'{"kex"'),
    }
    path.write_bytes(harmed[harm])
    caplog.clear()
    opened(toy_bundle)
    assert len(trt.configs) == 2 and path.read_bytes() == data
    assert warnings_of(caplog)[0].startswith(f"[engine] {path} is ")


def test_a_timing_cache_is_kept_and_a_damaged_one_is_begun_anew(
    trt: FakeTensorRt, toy_bundle: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trt.timings = [b"x"]
    for size in toy.SIZES:
        opened(toy_bundle, size=size)
    assert trt.timing_caches == [b"", b"x"]
    (path,) = cache.glob("*.cache")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    caplog.clear()
    opened(toy_bundle, precision="int8")  # its weights are 8-bit, and dequantized
    assert f"[engine] the timing cache {path} is damaged; begins a new one" in warnings_of(caplog)
    assert trt.timing_caches[2:] == [b""]
    trt.timings = []  # TensorRT itself does not take it
    trt.__version__ = "10.3.1"
    key = SimpleNamespace(flavour="tensorrt", version="10.3.1", gpu="host", capability="8.7", driver=DRIVER)
    engine_cache.EngineCache(cache).write_timings(key, b"of another")  # type: ignore[arg-type]
    opened(toy_bundle)
    assert trt.timing_caches[3:] == [b""]


def test_nothing_is_kept_where_the_cache_is_off(
    trt: FakeTensorRt, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setenv("PATCHCUT_CACHE", "off")
    for _ in range(2):
        opened(toy_bundle)
    assert len(trt.configs) == 2 and not cache.exists()


# How it is built


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


# Bad input, each with one line


def no_driver(patch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    patch.setattr(memory, "driver_version", gpus.driver_version)
    patch.setattr(gpus, "ctypes", SimpleNamespace(CDLL=missing))


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


def test_too_many_frames(trt: FakeTensorRt, toy_bundle: Path) -> None:
    with pytest.raises(EngineError, match=r"tensorrt 10.3.0 takes 1 to 8 frames, not 9, of"):
        opened(toy_bundle).run(9)


# TensorRT for RTX itself, which builds without a GPU

rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="needs patchcut[tensorrt-rtx]")


def typed_graph(precision: str, weights: bytes, size: int) -> bytes:
    """The toy's fp32 graph, its convolution in another type, or on 8-bit images and weights."""
    model = onnx.load_from_string(toy.graph(size, "fp32", weights))
    kept = [node for node in model.graph.node if node.op_type != "Conv"]
    if precision == "int8-qdq":
        scales = [numpy_helper.from_array(np.float32(value), f"s{i}") for i, value in enumerate((0.05, 0.01))]
        zero = numpy_helper.from_array(np.int8(0), "zero")
        kernel = numpy_helper.from_array(toy.embedding(), "kernel8")
        model.graph.initializer.extend([*scales, zero, kernel])
        first = [
            helper.make_node("QuantizeLinear", ["image", "s0", "zero"], ["image8"]),
            helper.make_node("DequantizeLinear", ["image8", "s0", "zero"], ["x"]),
            helper.make_node("DequantizeLinear", ["kernel8", "s1", "zero"], ["w"]),
        ]
        last = "patches"
    else:
        kind = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
        first = [
            helper.make_node("Cast", [source], [name], to=kind)
            for source, name in (("image", "x"), ("embed.fp32", "w"))
        ]
        last = "typed"
    sides = [toy.PATCH, toy.PATCH]
    nodes = [*first, helper.make_node("Conv", ["x", "w"], [last], strides=sides, kernel_shape=sides)]
    if last == "typed":
        nodes.append(helper.make_node("Cast", ["typed"], ["patches"], to=TensorProto.FLOAT))
    fresh = [type(node).FromString(node.SerializeToString()) for node in [*nodes, *kept]]
    del model.graph.node[:]
    model.graph.node.extend(fresh)
    if precision == "int8-qdq":
        left = [t for t in model.graph.initializer if t.name != "embed.fp32"]
        held = [type(t).FromString(t.SerializeToString()) for t in left]
        del model.graph.initializer[:]
        model.graph.initializer.extend(held)
    if precision == "bf16":
        model.opset_import[0].version = 22  # the first whose Conv takes it
        model.ir_version = 10
    data: bytes = model.SerializeToString()
    return data


@pytest.fixture(scope="module")
def typed_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with every precision that TensorRT takes, at one size."""
    files = toy.members()
    spec = toy.manifest(files)
    backbone = spec["backbones"]["toy"]
    graphs = [one for one in backbone["graphs"] if one["file"] == "backbone-112-fp32.onnx"]
    for precision in ("fp16", "bf16", "int8-qdq"):
        name = f"backbone-112-{precision}.onnx"
        files[name] = typed_graph(precision, files["backbone.safetensors"], 112)
        held = [] if precision == "int8-qdq" else ["embed.fp32"]
        graphs.append({**graphs[0], "file": name, "precision": precision, "initializers": held})
    wanted = {"backbone.safetensors", "head.safetensors", "card.md", *(one["file"] for one in graphs)}
    files = {name: data for name, data in files.items() if name in wanted}
    backbone["graphs"] = graphs
    spec["files"] = toy.manifest(files)["files"]
    return toy.write(tmp_path_factory.mktemp("typed") / "typed.patchcut", files, spec)


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "patchcut", "export", "engine", *map(str, words)]


@rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8-qdq"])
def test_real_engines_of_every_precision_are_built_without_a_gpu(
    run_cli: Callable[..., int],
    typed_bundle: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    precision: str,
) -> None:
    choice = ["--precision", precision, "--capability", "8.9", "--cache", tmp_path]
    assert run_cli("export", "engine", typed_bundle, *choice) == 0
    said = capfd.readouterr().err
    assert f"builds backbone-112-{precision}.onnx with tensorrt-rtx" in said
    assert "for any GPU of compute capability 8.9" in said and "nothing was run" in said
    (path,) = tmp_path.glob("*.engine")
    header = json.loads(path.read_bytes().split(b"\n")[1])
    assert header["key"]["capability"] == "8.9" and header["key"]["driver"] == ""
    assert path.stat().st_size > 2000
    assert run_cli("export", "engine", typed_bundle, *choice) == 0
    assert f"{path} is there already" in capfd.readouterr().err


@rtx
def test_the_graph_is_parsed_as_a_strongly_typed_network(embedded_bundle: Path) -> None:
    from patchcut.bundle.graph_outputs import keep_outputs
    from patchcut.bundle.graph_weights import inline_weights
    from patchcut.engines.tensorrt.package import import_package

    package = import_package("tensorrt-rtx")
    with open_bundle(embedded_bundle) as bundle:
        backbone = bundle.spec.backbone
        graph = next(one for one in backbone.graphs if one.precision == "fp32")
        data, _ = keep_outputs(bundle.read(graph.file), [backbone.default_features.output])
        assert backbone.weights is not None
        whole = inline_weights(data, bundle.read_tensors(backbone.weights))
    made = package.module.Builder(package.logger)
    network = made.create_network(1 << int(package.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = package.module.OnnxParser(network, package.logger)
    assert parser.parse(whole), package.last_error("")
    assert tuple(network.get_input(0).shape) == (-1, 3, *graph.size_hw)
    assert network.num_outputs == 1


@rtx
def test_of_two_processes_one_builds_and_one_waits(toy_bundle: Path, tmp_path: Path) -> None:
    words = command(
        toy_bundle, "--size", 112, "--precision", "fp32", "--capability", "8.6", "--cache", tmp_path
    )
    both = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("builds backbone-112-fp32.onnx" in text for text in said) == 1
    assert len(list(tmp_path.glob("*.engine"))) == 1


HOLD = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from patchcut.engines.tensorrt.engine_cache import EngineCache
with EngineCache(Path(sys.argv[1])).alone(SimpleNamespace(file=sys.argv[2]), print):
    print("holds", flush=True)
    time.sleep(60)
"""


def test_a_process_that_is_killed_leaves_the_turn_to_others(tmp_path: Path) -> None:
    key: Any = SimpleNamespace(file="x.engine")
    held = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), key.file], stdout=subprocess.PIPE, text=True
    )
    assert held.stdout is not None and held.stdout.readline() == "holds\n"
    said: list[str] = []

    def kill(line: str) -> None:
        said.append(line)
        held.send_signal(signal.SIGKILL)

    begun = time.monotonic()
    with engine_cache.EngineCache(tmp_path).alone(key, kill):
        assert time.monotonic() - begun < 30
    held.wait()
    held.stdout.close()
    assert said == ["waits for another process that builds x.engine"]


@rtx
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--capability", "9.0"], 1, "[device] tensorrt-rtx"),
        (["--capability", "sm_89"], 2, "[capability] must be numbers such as 8.6,8.9, got 'sm_89'"),
        (["--features", "semantic"], 2, "[features] must be among those of the bundle (key), got 'semantic'"),
        (["--size", "224"], 2, "[size] must be one of the bundle's sizes (112, 168), got 224"),
        (["--max-batch", "0"], 2, "[max_batch] must be a whole number from 1 to 256, got 0"),
        ([], 1, "[device] TensorRT runs on an NVIDIA GPU, and this machine has no NVIDIA driver"),
    ],
)
def test_bad_words_of_the_command(
    run_cli: Callable[..., int],
    toy_bundle: Path,
    cache: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    status: int,
    said: str,
) -> None:
    no_driver(monkeypatch)
    assert run_cli("export", "engine", toy_bundle, *words) == status
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]
    assert not list(cache.glob("*.engine"))


def test_the_command_needs_no_torch(toy_bundle: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = sys.modules['timm'] = sys.modules['onnx'] = None\n"
    code += "from patchcut.__main__ import main; main()"
    words = ["export", "engine", str(toy_bundle), "--cache", str(tmp_path), "--capability", "9.9"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "[device] tensorrt-rtx" in done.stderr or "[engine] tensorrt_rtx cannot" in done.stderr


def test_options_repeat_themselves() -> None:
    chosen = TensorRtOptions(memory="pycuda", max_batch=3)
    assert chosen.words() == "memory=pycuda,max_batch=3"
    assert replace(chosen, max_batch=8, memory="kernels").words() == ""
