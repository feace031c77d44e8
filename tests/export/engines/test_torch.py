"""torch as an engine: what it computes in, what it says where it cannot, and its part in a frame's graph."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import patchcut
import pytest
from patchcut import BundleError, EngineError, OptionError, Settings, open_bundle
from patchcut.features import Array, to_host
from patchcut_kernels import cuda

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from patchcut_export.engines import torch as adapter
from tests.host_layer import HostCuda
from tests.runtime import toy_bundle as toy


@pytest.fixture(scope="module")
def toy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a small bundle with two sizes, int8 and fp32, and three labels."""
    return toy.write(tmp_path_factory.mktemp("bundle") / "toy.patchcut")


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    """Four frames of one size, which is small: threads of the host layer take turns."""
    images = pytest.importorskip("sklearn.datasets")
    flower, temple = (images.load_sample_image(f"{name}.jpg")[::4, ::4, ::-1] for name in ("flower", "china"))
    return [flower, temple, flower[::-1], temple[:, ::-1]]


def opened(path: Path, **settings: Any) -> adapter.TorchEngine:
    with open_bundle(path) as bundle:
        return adapter.open_engine(bundle, bundle.spec.backbone, Settings(device="cpu", **settings))


def features(engine: adapter.TorchEngine, values: np.ndarray) -> np.ndarray:
    np.copyto(engine.images(len(values)), values)
    return np.array(to_host(engine.run(len(values))["key"]))


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    """[2, 3, S, S] images of the toy's first size."""
    size = toy.SIZES[0]
    return np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)


@pytest.mark.parametrize(
    ("precision", "error"), [("auto", 1e-4), ("fp32", 1e-4), ("int8", 1e-4), ("fp16", 0.05), ("bf16", 0.5)]
)
def test_precisions(toy_bundle: Path, values: np.ndarray, precision: str, error: float) -> None:
    engine = opened(toy_bundle, precision=precision)
    expected = np.stack([toy.reference_features(image, "fp32") for image in values])
    assert engine.facts.precision == ("fp32" if precision == "auto" else precision)
    assert engine.facts.graph.precision == ("int8" if precision == "int8" else "fp32")
    found = np.abs(features(engine, values) - expected).max()
    assert found < error
    assert found > 1e-3 or precision not in ("fp16", "bf16"), "it was computed in float32"


def test_what_a_report_refuses_is_not_chosen(toy_bundle: Path) -> None:
    with open_bundle(toy_bundle) as bundle:
        backbone = bundle.spec.backbone
    settings = Settings()
    assert adapter._choose(backbone, settings, "cuda")[1] == "fp16"
    row = {"precision": "fp16", "size": toy.SIZES[0], "images": 1, "accepted": False}
    refused = backbone.model_copy(update={"agreement": (_Row(**row),)})
    assert adapter._choose(refused, settings, "cuda")[1] == "fp32"
    assert adapter._choose(refused, replace(settings, precision="fp16"), "cuda")[1] == "fp16", "when asked"


class _Row:
    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)


def test_what_is_missing_is_said_with_what_mends_it(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineError, match=r'^\[device\] torch \S+ .*; install .* or pass device="cpu"'):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        patchcut.load(toy_bundle, engine="torch", device="cuda")
    with pytest.raises(EngineError, match=r'^\[device\] torch runs on cpu and cuda, got "npu"'):
        patchcut.load(toy_bundle, engine="torch", device="npu")
    with pytest.raises(OptionError, match=r"^\[precision\] the bundle has"):
        patchcut.load(toy_bundle, engine="torch", precision="int8-qdq")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(EngineError, match=r"^\[engine\] torch cannot be imported: .*\[export\]"):
        patchcut.load(toy_bundle, engine="torch")


def test_an_operator_that_nobody_has_is_told(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from patchcut_export.engines import operators

    monkeypatch.delitem(operators.OPERATORS, "Conv")
    with pytest.raises(EngineError, match=r'torch cannot run .*an operator Conv; pass engine="onnxruntime"'):
        opened(toy_bundle, precision="fp32")


def test_a_foreign_graph_is_told(tmp_path: Path) -> None:
    files = toy.members()
    spec = toy.manifest(files)
    spec["backbones"]["toy"]["features"]["key"]["dim"] = toy.DIM + 1
    path = toy.write(tmp_path / "foreign.patchcut", files, spec)
    with pytest.raises((BundleError, EngineError), match="foreign"):
        opened(path, precision="fp32")


def test_threads_of_the_caller_stay(toy_bundle: Path, values: np.ndarray) -> None:
    before = torch.get_num_threads()
    features(opened(toy_bundle, precision="fp32", threads=1 + before % 2), values)
    assert torch.get_num_threads() == before


class OnHostLayer(adapter.OnDevice):
    """The GPU's place with the host layer's memory in place of a GPU's, and its calls in its streams."""

    def __init__(self, host: HostCuda) -> None:
        super().__init__()
        self._host = host

    def lent(self, array: Array) -> Any:
        assert isinstance(array, cuda.DeviceArray)
        pointer = ctypes.cast(array.pointer, ctypes.POINTER(ctypes.c_float))
        return torch.from_numpy(np.ctypeslib.as_array(pointer, array.shape))

    @contextmanager
    def ordered(self) -> Iterator[None]:
        yield

    def give(self, work: Callable[[], None]) -> None:
        assert self.stream is not None
        self._host.call(self.stream.handle, work)

    def capture(self, work: Callable[[], None]) -> cuda.Launchable:
        assert self.stream is not None
        with cuda.graph_memory(self.stream), cuda.capture(self.stream) as graph:
            work()
        return graph


@pytest.fixture
def on_layer(monkeypatch: pytest.MonkeyPatch, host_cuda: HostCuda) -> Callable[..., patchcut.Segmenter]:
    """Loads a bundle with torch, which believes that the CPU is its GPU."""

    def load(path: Path, **settings: Any) -> patchcut.Segmenter:
        with monkeypatch.context() as fake:
            fake.setattr(torch.cuda, "is_available", lambda: True)
            fake.setattr(adapter, "OnDevice", lambda: OnHostLayer(host_cuda))
            real = torch.device
            fake.setattr(torch, "device", lambda name: real("cpu"))
            return patchcut.load(path, engine="torch", device="cuda", **settings)

    return load


def test_a_frame_is_one_graph_of_torch_and_the_kernels(
    on_layer: Any, toy_bundle: Path, photos: list[np.ndarray], host_cuda: HostCuda
) -> None:
    segmenter = on_layer(toy_bundle, precision="fp32")
    on_cpu = patchcut.load(toy_bundle, engine="torch", device="cpu", precision="fp32")
    assert segmenter.describe().device == "cuda"
    for i, frame in enumerate(photos):
        with host_cuda.counted() as copies:
            result = segmenter(frame)
        if i >= 2:
            assert (copies["up"], copies["down"]) == (1, 1)
            assert "graph" in result.timings_ms
        expected = on_cpu(frame)
        np.testing.assert_allclose(result.assignment, expected.assignment, atol=2e-4)
        assert np.mean(result.label_map == expected.label_map) > 0.99
    (graph,) = segmenter._work.graphs._graphs.values()
    assert len(graph._graphs) == 1, "the engine is a part of it"


def test_runs_alone_become_a_graph(
    on_layer: Any, toy_bundle: Path, values: np.ndarray, host_cuda: HostCuda
) -> None:
    extractor = on_layer(toy_bundle, precision="fp32").extractor
    engine = extractor.engine
    expected = np.stack([toy.reference_features(image, "fp32") for image in values])
    for factor in (1, 2, 3, 4):
        cuda.copy(factor * values, engine.images(2), stream=engine.images(2).stream)
        made = extractor.run(2)["key"].numpy()
        np.testing.assert_allclose(made, factor * expected, rtol=1e-4, atol=2e-3)
    (run,) = extractor._runs.values()
    assert run is not None
    extractor.run(1)  # the engine takes other memory
    gc.collect()
    assert list(extractor._runs.values()) == [None], "the graph went with the memory"


def test_the_bench_of_a_gpu_measures_what_it_says(
    on_layer: Any, toy_bundle: Path, photos: list[np.ndarray], host_cuda: HostCuda
) -> None:
    from bench.cases import gpu

    segmenter, frame = on_layer(toy_bundle, precision="fp32"), np.ascontiguousarray(photos[0])
    on_cpu = patchcut.load(toy_bundle, engine="torch", device="cpu", precision="fp32")
    outcomes = list(gpu.on_device("case", segmenter, frame, 2, on_cpu(frame).label_map, repeats=1))
    outcomes += gpu.to_result(segmenter, on_cpu, frame, repeats=1)
    assert [one.device for one in outcomes] == ["cuda"] * 4 + ["cpu"]
    assert all(one.metrics["frames_per_s"] > 0 for one in outcomes)
    assert outcomes[0].quality["labels as on the CPU in fp32"] > 0.99
    way = gpu._Way(segmenter, frame, 1)
    with host_cuda.counted() as copies:
        way.launch()
    assert copies == {"up": 0, "down": 0, "device": 0}
    with pytest.raises(gpu.BenchError, match="needs a GPU: the CUDA kernels of this build run on the host"):
        gpu._require_gpu()
