"""A frame's whole way on a GPU as one graph: one copy up, one down, and the results of its stages.

The kernels are those of CUDA, run by the host layer, which keeps what a stream is given in a capture and does
it at each launch. An engine of these tests writes and reads the same memory.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import patchcut
import pytest
from patchcut import Frame, Result, Segmenter
from patchcut.engines import onnxruntime as adapter
from patchcut.features import Array
from patchcut.stages import FrameGraph, frame_graphs
from patchcut_kernels import cuda
from patchcut_kernels.cuda import DeviceArray

from tests.host_layer import HostCuda
from tests.runtime import toy_bundle as toy
from tests.runtime.engines.fake_onnxruntime import CPU, CUDA, fake_runtime
from tests.runtime.engines.tensorrt.fakes import install as install_tensorrt
from tests.runtime.results import check_consistent

ONE_UP_ONE_DOWN = {"up": 1, "down": 1}


def on_host(array: Array) -> np.ndarray:
    """The memory of the host layer's device itself."""
    assert isinstance(array, DeviceArray)
    return np.ctypeslib.as_array(ctypes.cast(array.pointer, ctypes.POINTER(ctypes.c_float)), array.shape)


class Engine:
    """An engine whose work is a part of a graph: the toy's patches times its weights, on its stream."""

    capturable = True

    def __init__(self, facts: Any, host: HostCuda) -> None:
        self.facts = facts
        self._host = host
        self._stream = cuda.Stream()
        self._batches: dict[int, tuple[DeviceArray, DeviceArray]] = {}

    def images(self, batch: int) -> DeviceArray:
        return self._memory(batch)[0]

    def run(self, batch: int) -> Mapping[str, DeviceArray]:
        images, features = self._memory(batch)

        def compute() -> None:
            made = [toy.reference_features(image, "fp32") for image in on_host(images)]
            np.copyto(on_host(features), made)

        self._host.call(self._stream.handle, compute)
        return {"key": features}

    def capture(self, work: Callable[[], None]) -> cuda.Graph:
        with cuda.graph_memory(self._stream), cuda.capture(self._stream) as graph:
            work()
        return graph

    def _memory(self, batch: int) -> tuple[DeviceArray, DeviceArray]:
        if batch not in self._batches:
            graph = self.facts.graph
            shapes = (3, *graph.size_hw), (np.prod(graph.grid_hw), toy.DIM)
            images, features = (
                cuda.to_device(np.zeros((batch, *shape), np.float32), stream=self._stream) for shape in shapes
            )
            self._batches[batch] = images, features
        return self._batches[batch]


def load_tensorrt(
    patch: pytest.MonkeyPatch, host: HostCuda, bundle: Path, *, waits: bool = False, **settings: Any
) -> Segmenter:
    """A segmenter whose engine is TensorRT, by its stand-in."""
    with patch.context() as fake:
        fake.setenv("PATCHCUT_TENSORRT", "max_batch=64")
        install_tensorrt(fake, host).waits = waits
        return patchcut.load(bundle, engine="tensorrt", device="cuda", precision="fp32", **settings)


@pytest.fixture(
    params=["the engine is a part of the graph", "the engine runs between two graphs", "tensorrt"]
)
def load(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, host_cuda: HostCuda) -> Any:
    """load(bundle, **settings): a segmenter whose engine has its memory on the device."""
    inside = request.param.startswith("the engine is")

    def load(bundle: Path, **settings: Any) -> Segmenter:
        if request.param == "tensorrt":
            return load_tensorrt(monkeypatch, host_cuda, bundle, **settings)
        with monkeypatch.context() as fake:
            fake.setattr(adapter, "import_onnxruntime", lambda: fake_runtime([CUDA, CPU], [CUDA, CPU]))
            made = patchcut.load(bundle, engine="onnxruntime", device="cuda", precision="fp32", **settings)
        if inside:
            made.extractor.engine = Engine(made.extractor.engine.facts, host_cuda)
        return made

    return load


@pytest.fixture(scope="module")
def photos(photo: np.ndarray, second_photo: np.ndarray) -> list[np.ndarray]:
    """Five frames of one size, which is small: threads take turns on one of the CPU."""
    photo, second_photo = photo[::5, ::5], second_photo[::5, ::5]
    return [photo.copy(), second_photo, photo[::-1], second_photo[:, ::-1], photo[:, ::-1]]


@pytest.fixture
def small(photos: list[np.ndarray]) -> np.ndarray:
    return photos[0]


def alike(got: Result, expected: Result) -> None:
    """Equal up to the rounding of the kernels' sums, which may turn single pixels of a border."""
    check_consistent(got, expected.label_map.shape)
    assert len(got) == len(expected) >= 1
    np.testing.assert_allclose(got.assignment, expected.assignment, atol=2e-4)
    assert np.mean(got.label_map == expected.label_map) > 0.999
    np.testing.assert_allclose(got.scores, expected.scores, atol=1e-3)
    np.testing.assert_allclose(got.confidence, expected.confidence, atol=1e-3)


def test_a_frame_goes_up_once_and_comes_down_once(
    load: Any, toy_bundle: Path, photos: list[np.ndarray], host_cuda: HostCuda
) -> None:
    segmenter, on_cpu = load(toy_bundle), patchcut.load(toy_bundle, precision="fp32")
    results = [segmenter(photos[0]), segmenter(photos[1])]
    for photo in photos[2:]:
        with host_cuda.counted() as copies:
            results.append(segmenter(photo))
        assert {way: copies[way] for way in ("up", "down")} == ONE_UP_ONE_DOWN
        assert "graph" in results[-1].timings_ms and "backbone" not in results[-1].timings_ms
    assert "backbone" in results[0].timings_ms, "the first of a size goes stage by stage"
    for result, photo in zip(results, photos, strict=True):  # the later ones have not changed the earlier
        alike(result, on_cpu(photo))


def test_tensorrt_is_a_part_of_the_one_graph(
    toy_bundle: Path, photos: list[np.ndarray], host_cuda: HostCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = load_tensorrt(monkeypatch, host_cuda, toy_bundle)
    for photo in photos[:2]:
        segmenter(photo)
    (graph,) = segmenter._work.graphs._graphs.values()
    assert len(graph._graphs) == 1
    assert not any(segmenter.extractor._runs.values()), "none of the backbone alone beside it"


def test_an_engine_that_cannot_be_captured_is_told_and_runs_between_two_graphs(
    toy_bundle: Path,
    photos: list[np.ndarray],
    host_cuda: HostCuda,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    segmenter = load_tensorrt(monkeypatch, host_cuda, toy_bundle, waits=True)
    on_cpu = patchcut.load(toy_bundle, precision="fp32")
    caplog.clear()
    for photo in photos:
        with host_cuda.counted() as copies:
            result = segmenter(photo)
        alike(result, on_cpu(photo))
    assert {way: copies[way] for way in ("up", "down")} == ONE_UP_ONE_DOWN
    (graph,) = segmenter._work.graphs._graphs.values()
    assert len(graph._graphs) == 2
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("[engine] tensorrt 10.3.0 (host) cannot be captured in a graph of CUDA, and")


def test_nothing_is_allocated_or_waited_for_in_between(
    load: Any, toy_bundle: Path, small: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = load(toy_bundle)
    for _ in range(3):
        segmenter(small)
    (graph,) = segmenter._work.graphs._graphs.values()

    gc.collect()  # streams of other tests are waited for when they go

    def refuse(*_: object) -> None:
        raise AssertionError("a launch takes no memory, and waits for nothing")

    with monkeypatch.context() as patched:
        for name in ("allocate", "host_allocate", "stream_synchronize", "copy"):
            patched.setattr(f"patchcut_kernels._C.cuda.{name}", refuse)
        graph.launch()


@pytest.mark.parametrize("batch", [1, 3])
def test_frames_of_a_batch_are_found_as_alone(
    load: Any, toy_bundle: Path, photos: list[np.ndarray], host_cuda: HostCuda, batch: int
) -> None:
    segmenter = load(toy_bundle)
    graph = FrameGraph(
        segmenter.extractor, segmenter.head, segmenter.masks, photos[0].shape[:2], "bgr", batch
    )
    frames = [Frame(photo) for photo in photos[:batch]]
    with host_cuda.counted() as copies:
        found = graph(frames)
    assert {way: copies[way] for way in ("up", "down")} == ONE_UP_ONE_DOWN
    for (components, assignment), photo in zip(found, photos, strict=False):
        result = segmenter(photo)
        np.testing.assert_array_equal(assignment.numpy(), result.assignment)
        np.testing.assert_array_equal(components.confidence.numpy(), result.confidence)
        assert len(components.stats.area) == len(result)
        np.testing.assert_array_equal(components.label_map > 0, result.label_map > 0)


def test_64_frames_at_once(load: Any, toy_bundle: Path, small: np.ndarray, host_cuda: HostCuda) -> None:
    segmenter = load(toy_bundle)
    frames = [Frame(np.roll(small[::4, ::4], i, axis=1)) for i in range(64)]
    graph = FrameGraph(
        segmenter.extractor, segmenter.head, segmenter.masks, frames[0].image.shape[:2], "bgr", 64
    )
    with host_cuda.counted() as copies:
        found = graph(frames)
    assert {way: copies[way] for way in ("up", "down")} == ONE_UP_ONE_DOWN
    for i in (0, 31, 63):
        expected = segmenter.masks.components(
            frames[i], segmenter.head(segmenter.extractor([frames[i]]))[0], graph._canvas
        )
        np.testing.assert_array_equal(found[i][0].ids, expected.ids)


def test_frames_may_stay_on_the_device(
    load: Any, toy_bundle: Path, small: np.ndarray, host_cuda: HostCuda
) -> None:
    segmenter = load(toy_bundle)
    graph = FrameGraph(
        segmenter.extractor, segmenter.head, segmenter.masks, small.shape[:2], "bgr", on_host=False
    )
    cuda.copy(small[None], graph.frames, stream=graph.stream)
    with host_cuda.counted() as copies:
        graph.launch()
        graph.stream.synchronize()
    assert copies == {"up": 0, "down": 0, "device": 0}
    result = segmenter(small)
    np.testing.assert_array_equal(graph.found.label_map.numpy()[0] > 0, result.label_map > 0)
    assert int(graph.found.packed.arrays[1].numpy()[0]) == len(result)


def test_photos_of_many_sizes_make_no_graph_and_old_graphs_go(
    load: Any, toy_bundle: Path, small: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = load(toy_bundle)
    crops = [small[: 60 + i].copy() for i in range(4)]
    for crop in crops:
        segmenter(crop)
    assert not segmenter._work.graphs._graphs
    monkeypatch.setattr(frame_graphs, "MAX_GRAPHS", 2)
    for crop in crops:
        segmenter(crop)
    assert len(segmenter._work.graphs._graphs) == 2
    on_cpu = patchcut.load(toy_bundle, precision="fp32")
    for crop in reversed(crops):
        alike(segmenter(crop), on_cpu(crop))


def test_the_engine_may_take_other_memory(load: Any, toy_bundle: Path, photos: list[np.ndarray]) -> None:
    segmenter, on_cpu = load(toy_bundle), patchcut.load(toy_bundle, precision="fp32")
    for photo in photos[:3]:
        segmenter(photo)
    segmenter.extractor([Frame(photo) for photo in photos[:2]])  # another batch: the engine binds anew
    for photo in photos:
        alike(segmenter(photo), on_cpu(photo))


@pytest.mark.parametrize(
    "settings", [{"refine": "guided"}, {"head": "kmeans:k=3"}, {"mode": "parts"}, {"single": True}], ids=str
)
def test_what_needs_the_host_gives_the_same_every_time(
    load: Any, toy_bundle: Path, small: np.ndarray, settings: dict[str, Any]
) -> None:
    segmenter = load(toy_bundle, **settings)
    results = [segmenter(small) for _ in range(3)]
    in_a_graph = "single" in settings
    assert bool(segmenter._work.graphs._graphs) == in_a_graph
    for result in results[1:]:
        np.testing.assert_array_equal(result.label_map, results[0].label_map)
        np.testing.assert_array_equal(result.scores, results[0].scores)


def test_another_head_gets_a_graph_of_its_own(load: Any, toy_bundle: Path, small: np.ndarray) -> None:
    segmenter = load(toy_bundle)
    for _ in range(2):
        segmenter(small)

    class Left:
        name, labels, needs, devices = "left", ("background", "left"), (), ("cpu", "cuda")

        def __call__(self, features: patchcut.Features) -> Array:
            columns = np.float32([[1, 0]] * (features.default.shape[1] // 2) + [[0, 1]] * 32)
            return cuda.to_device(columns[None], stream=features.default.stream)

    segmenter.head = Left()
    for _ in range(3):
        assert segmenter(small).labels == ("background", "left")


def test_features_that_are_not_finite_are_told(load: Any, toy_bundle: Path, small: np.ndarray) -> None:
    segmenter = load(toy_bundle)
    for _ in range(2):
        segmenter(small)
    (graph,) = segmenter._work.graphs._graphs.values()
    launch = graph.launch

    def overflowing() -> None:
        launch()
        on_host(graph.assignment)[:] = np.nan
        graph._down[:] = 0

    graph.launch = overflowing
    with pytest.raises(patchcut.EngineError, match="finite"):
        segmenter(small)


def test_graphs_go_with_their_segmenter(load: Any, toy_bundle: Path, small: np.ndarray) -> None:
    for _ in range(3):
        segmenter = load(toy_bundle)
        results = [segmenter(small) for _ in range(3)]
        del segmenter
        gc.collect()
        np.testing.assert_array_equal(results[-1].confidence, results[0].confidence)


def test_a_batch_of_frames_of_one_size_is_one_graph(
    load: Any, toy_bundle: Path, photos: list[np.ndarray], host_cuda: HostCuda
) -> None:
    segmenter = load(toy_bundle)
    for _ in range(2):
        segmenter.batch(photos[:3])
    with host_cuda.counted() as copies:
        results = segmenter.batch(photos[1:4])
    assert {way: copies[way] for way in ("up", "down")} == ONE_UP_ONE_DOWN
    for result, photo in zip(results, photos[1:4], strict=True):
        assert "graph" in result.timings_ms
        alone = segmenter(photo)
        np.testing.assert_array_equal(result.label_map, alone.label_map)
        np.testing.assert_array_equal(result.confidence, alone.confidence)
    mixed = segmenter.batch([photos[0], photos[1][:50]])
    assert [one.label_map.shape for one in mixed] == [photos[0].shape[:2], (50, 128)]
