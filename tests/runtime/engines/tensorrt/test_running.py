"""What an engine of TensorRT runs, by a stand-in for it, and in what memory. None of it has run on a GPU."""

from __future__ import annotations

import gc
import sys
import weakref
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import patchcut
import pytest
from patchcut import EngineError
from patchcut.engines import Engine
from patchcut.features import to_host
from patchcut_kernels import cuda

from tests.runtime import toy_bundle as toy
from tests.runtime.engines.tensorrt.fakes import FakeContext, FakePyCuda, FakeTensorRt, opened
from tests.runtime.results import same


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


def test_the_backbone_is_a_graph_from_the_second_run_on(
    trt_on_stream: FakeTensorRt, toy_bundle: Path
) -> None:
    trt, extractor = trt_on_stream, patchcut.load(toy_bundle, engine="tensorrt", precision="fp32").extractor
    asked, done = trt.executed, trt.computed
    for batch in (1, 2):
        for factor in (1, 2, 3, 4):
            values = factor * images(batch)
            put(extractor.engine, values)
            made = to_host(extractor.run(batch)["key"])
            np.testing.assert_allclose(made, reference(values)["key"], rtol=1e-4, atol=1e-2)
    assert (trt.executed, trt.computed) == (asked + 4, done + 8)
    extractor.run(1)
    assert (trt.executed, trt.computed) == (asked + 4, done + 9)


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
    trt_on_stream: FakeTensorRt, toy_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trt_on_stream.waits = True
    extractor = patchcut.load(toy_bundle, engine="tensorrt", precision="fp32").extractor
    caplog.clear()
    for factor in (1, 2, 3, 4):
        values = factor * images(1)
        put(extractor.engine, values)
        made = to_host(extractor.run(1)["key"])
        np.testing.assert_allclose(made, reference(values)["key"], rtol=1e-4, atol=1e-2)
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("[engine] tensorrt 10.3.0 (host) cannot be captured in a graph of CUDA, and")
    assert "cudaErrorStreamCaptureUnsupported" in line


@pytest.mark.parametrize("kernels", ["cuda", "cpu"])
def test_memory_of_pycuda(
    trt: FakeTensorRt, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, kernels: str
) -> None:
    if kernels == "cuda" and trt.give is None:
        pytest.skip("needs kernels that were built with PATCHCUT_CUDA=HOST")
    context = FakeContext()
    stream = cuda.Stream() if kernels == "cuda" else None
    fake = FakePyCuda(context, 0 if stream is None else stream.handle)
    monkeypatch.setitem(sys.modules, "pycuda", ModuleType("pycuda"))
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake)
    monkeypatch.setitem(sys.modules, "pycuda.autoprimaryctx", SimpleNamespace(context=context))  # type: ignore[arg-type]
    monkeypatch.setenv("PATCHCUT_TENSORRT", "memory=pycuda,max_batch=2")
    if kernels == "cpu":
        trt.give = None
        monkeypatch.setattr(cuda, "is_available", lambda: False)
    engine: Any = opened(toy_bundle)
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
    assert engine.capturable == (kernels == "cuda")
    if kernels == "cuda":
        graph = engine.capture(lambda: engine.run(1))
        put(engine, 2 * values)
        graph.launch(stream)
        made = to_host(engine.run(1)["key"])
        np.testing.assert_allclose(made, reference(2 * values)["key"], rtol=1e-4, atol=1e-2)


def test_engines_leave_nothing_behind(trt: FakeTensorRt, toy_bundle: Path) -> None:
    gone = []
    for _ in range(5):
        engine = opened(toy_bundle)
        engine.run(1)
        gone.append(weakref.ref(engine))
    del engine
    gc.collect()
    assert not any(reference() for reference in gone)


def test_too_many_frames(trt: FakeTensorRt, toy_bundle: Path) -> None:
    with pytest.raises(EngineError, match=r"tensorrt 10.3.0 takes 1 to 8 frames, not 9, of"):
        opened(toy_bundle).run(9)
