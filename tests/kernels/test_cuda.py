"""Arrays, streams and graphs of CUDA, and ops on them; with a GPU, or in a build with PATCHCUT_CUDA=HOST."""

from __future__ import annotations

import copy
import gc
import itertools
import pickle
from typing import Any

import numpy as np
import patchcut_kernels as pk
import pytest
from patchcut_kernels import cuda

pytestmark = pytest.mark.skipif(not cuda.is_available(), reason=cuda.why_unavailable())


class Foreign:
    """An array of a library that speaks `__cuda_array_interface__` alone."""

    def __init__(self, array: cuda.DeviceArray, **changes: Any) -> None:
        self.array = array
        self.__interface = {**array.__cuda_array_interface__, "stream": None, **changes}

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.__interface


class ForeignDlpack:
    """An array of a library that speaks DLPack alone."""

    def __init__(self, array: cuda.DeviceArray) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def test_devices():
    assert cuda.device_count() >= 1
    assert cuda.device_name()
    assert cuda.compute_capability() >= (7, 5)
    with pytest.raises(RuntimeError, match=r"^\[cuda\] CUDA device must be 0 to \d+, got 99"):
        cuda.device_name(99)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 5)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32, np.int64, np.uint8, np.bool_])
def test_there_and_back(rng, shape, dtype):
    host = (100 * rng.random(shape)).astype(dtype)
    array = cuda.to_device(host)
    assert (array.shape, array.dtype, array.ndim, array.size) == (shape, dtype, host.ndim, host.size)
    assert array.is_contiguous
    np.testing.assert_array_equal(array.numpy(), host)
    np.testing.assert_array_equal(array.reshape(-1).numpy(), host.reshape(-1))
    assert "cuda:0" in repr(array)


PACKED = [((3, 5), np.float32), ((), np.int32), ((0, 4), np.int64), ((7,), np.bool_), ((2, 129), np.int64)]


def test_packed_arrays_come_down_with_one_copy(rng, transfers):
    packed = cuda.pack(PACKED)
    hosts = [np.asarray(100 * rng.random(shape)).astype(dtype) for shape, dtype in PACKED]
    for array, host in zip(packed.arrays, hosts, strict=True):
        assert (array.shape, array.dtype) == (host.shape, host.dtype)
        assert array.is_contiguous
        assert array.pointer % 256 == 0
        if host.size:
            pk._C.cuda.copy(0, array.pointer, host.ctypes.data, host.nbytes, 0)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(packed.arrays, 2))
    transfers.clear()
    got = packed.numpy()
    assert transfers == [("down", packed.memory.nbytes)]
    for array, host in zip(got, hosts, strict=True):
        assert array.dtype == host.dtype
        np.testing.assert_array_equal(array, host)


def test_ops_write_packed_arrays(rng, transfers):
    label_map = (rng.random((20, 30)) > 0.6).astype(np.int32)
    want, count = pk.connected_components(label_map)
    stream = cuda.Stream()
    packed = cuda.pack([((20, 30), np.int32), ((), np.int32), ((count,), np.int64)], stream=stream)
    ids, counted, area = packed.arrays
    pk.connected_components(cuda.to_device(label_map), out=ids, counts_out=counted, stream=stream)
    boxes = cuda.empty((count, 4), stream=stream)
    pk.region_stats(ids, count, out=pk.RegionStats(area, boxes, None, None), stream=stream)
    got = packed.numpy()
    np.testing.assert_array_equal(got[0], want)
    assert got[1] == count
    np.testing.assert_array_equal(got[2], pk.region_stats(want, count).area)
    assert [direction for direction, _ in transfers] == ["up", "down"]


def test_an_array_keeps_the_memory_that_it_is_packed_in(rng):
    host = normal(rng, 300)
    array = cuda.pack([((300,), np.float32), ((300,), np.float32)]).arrays[1]
    pk._C.cuda.copy(0, array.pointer, host.ctypes.data, host.nbytes, 0)
    gc.collect()
    fresh = [cuda.to_device(normal(rng, 300)) for _ in range(4)]
    np.testing.assert_array_equal(array.numpy(), host)
    assert not any(array.overlaps(other) for other in fresh)


def test_packs_may_be_empty(transfers):
    assert cuda.pack([]).numpy() == ()
    (array,) = cuda.pack([((0, 3), np.float32)]).numpy()
    assert array.shape == (0, 3)
    assert not transfers


def test_transfers_have_directions(rng, transfers):
    array = cuda.to_device(normal(rng, 3))
    other = cuda.empty(3)
    pk._C.cuda.copy(0, other.pointer, array.pointer, 12, 0)
    other.numpy()
    assert transfers == [("up", 12), ("device", 12), ("down", 12)]


def test_what_an_array_refuses(rng):
    array = cuda.to_device(normal(rng, 3, 4))
    with pytest.raises(TypeError, match=r"^\[DeviceArray\] the array lies on a GPU; numpy\(\) copies it"):
        np.asarray(array)
    with pytest.raises(ValueError, match=r"^\[DeviceArray\] shape must have 12 elements, got \(5, 2\)"):
        array.reshape(5, 2)
    strided = Foreign(array, shape=(4, 3), strides=(4, 16))
    with pytest.raises(ValueError, match=r"^\[affinity\] features must be C-contiguous on CUDA, got strides"):
        pk.affinity(strided)


def test_memory_and_streams_are_neither_copied_nor_pickled():
    stream = cuda.Stream()
    for thing in (cuda.empty(3, stream=stream), stream):
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match=r"cannot be copied or pickled"):
                duplicate(thing)


@pytest.mark.parametrize("lend", [lambda array: array, Foreign, ForeignDlpack])
def test_memory_of_other_libraries_is_used_itself(rng, lend):
    host = normal(rng, 9, 5)
    features, out = cuda.to_device(host), cuda.empty((9, 9))
    lent = lend(out)
    assert pk.affinity(lend(features), out=lent) is lent
    np.testing.assert_allclose(out.numpy(), pk.reference.affinity(host), rtol=0, atol=2e-6)
    frames = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    array = cuda.to_device(frames)
    turned = Foreign(array, data=(array.pointer + 11 * 48, False), strides=(-48, 3, 1))
    settings = (8, (0.5,) * 3, (0.2,) * 3)
    got = pk.preprocess(turned, *settings).numpy()
    np.testing.assert_array_equal(got, pk.preprocess(cuda.to_device(frames[::-1]), *settings).numpy())


def test_device_arrays_speak_dlpack(rng):
    array = cuda.to_device(normal(rng, 4, 3))
    assert array.__dlpack_device__() == (2, 0)
    pointer, shape, strides, dtype, device, writable, _ = pk._C.cuda.borrow(ForeignDlpack(array))
    assert (pointer, shape, strides, dtype, device, writable) == (
        array.pointer,
        (4, 3),
        (3, 1),
        ("f", 32),
        0,
        True,
    )


def test_torch_tensors_on_a_gpu(rng):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch has no GPU here")
    host = normal(rng, 33, 7)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        features = torch.from_numpy(host).cuda()
        out = torch.empty(33, 33, device="cuda")
        assert pk.affinity(features, out=out, stream=stream) is out
        got = torch.from_dlpack(pk.affinity(features, stream=stream))
        np.testing.assert_array_equal(got.cpu().numpy(), out.cpu().numpy())
    np.testing.assert_allclose(out.cpu().numpy(), pk.reference.affinity(host), rtol=0, atol=2e-6)


class Handle:
    """A stream of another library, which calls its handle `name`."""

    def __init__(self, name: str, value: Any) -> None:
        setattr(self, name, value)


def test_streams_of_any_library(rng):
    features = cuda.to_device(normal(rng, 5, 3))
    want = pk.affinity(features).numpy()
    stream = cuda.Stream()
    handle = stream.handle
    for given in (stream, handle, *(Handle(name, handle) for name in ("cuda_stream", "ptr", "handle"))):
        got = pk.affinity(features, stream=given)
        assert got.stream.handle == handle
        np.testing.assert_array_equal(got.numpy(), want)
    assert pk.affinity(pk.affinity(features, stream=stream)).stream.handle == handle
    for legacy in (None, 0, 1, Handle("handle", None)):
        assert pk.affinity(features, stream=legacy).stream.handle == 0
    for wrong in ("x", 1.5, True, [1]):
        with pytest.raises(TypeError, match=r"^\[affinity\] stream must be an int or a CUDA stream, got "):
            pk.affinity(features, stream=wrong)


def test_arrays_outlive_what_they_were_made_of(rng):
    host = normal(rng, 50, 20)
    want = pk.affinity(host)
    results = [pk.affinity(cuda.to_device(host), stream=cuda.Stream()) for _ in range(20)]
    gc.collect()
    for got in results:
        np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=4e-6)


def test_events_measure(rng):
    stream = cuda.Stream()
    begin = cuda.Event().record(stream)
    pk.affinity(cuda.to_device(normal(rng, 100, 30), stream=stream))
    end = cuda.Event().record(stream)
    assert end.elapsed_ms(begin) > 0


def test_mixed_devices_are_an_error(rng):
    features, edges = normal(rng, 6, 4), rng.random((6, 6), np.float32)
    layer = pk.LinearLayer(normal(rng, 4, 2), normal(rng, 2))
    weights = pk.GcnWeights(False, normal(rng, 4), normal(rng, 4), (), (layer,))
    message = r"^\[gcn_forward\] arrays must lie on one device, got features on cuda:0 and affinity on cpu"
    with pytest.raises(ValueError, match=message):
        pk.gcn_forward(cuda.to_device(features), edges, weights)
    with pytest.raises(ValueError, match=r"^\[affinity\] out must lie on cuda:0 with the inputs, got cpu"):
        pk.affinity(cuda.to_device(features), out=edges)
    with pytest.raises(ValueError, match=r"^\[affinity\] out must lie on cpu with the inputs, got cuda:0"):
        pk.affinity(features, out=cuda.to_device(edges))
    for options in ({"stream": 0}, {"workspace": cuda.empty(5, np.uint8)}):
        with pytest.raises(ValueError, match=r"^\[affinity\] \w+ must be None where the arrays lie in host"):
            pk.affinity(features, **options)


def test_a_workspace_is_used_and_checked(rng):
    features = cuda.to_device(normal(rng, 40, 20))
    want = pk.affinity(features).numpy()
    nbytes = cuda.last_workspace_bytes()
    assert nbytes >= 4 * 40 * 20
    workspace = cuda.empty(nbytes, np.uint8)
    np.testing.assert_array_equal(pk.affinity(features, workspace=workspace).numpy(), want)
    with pytest.raises(ValueError, match=rf"^\[affinity\] workspace must have at least {nbytes} bytes"):
        pk.affinity(features, workspace=cuda.empty(nbytes - 1, np.uint8))
    for wrong, error, message in [
        (np.empty(nbytes, np.uint8), ValueError, "workspace must lie on cuda:0 with the arrays, got cpu"),
        (cuda.empty(nbytes), TypeError, "workspace must be uint8, got float32"),
        (cuda.empty((nbytes, 1), np.uint8), ValueError, "workspace must be .bytes., got shape"),
        (7, TypeError, "workspace must be an array, got int"),
    ]:
        with pytest.raises(error, match=r"^\[affinity\] " + message):
            pk.affinity(features, workspace=wrong)


class Chain:
    """Features to regions, in memory that is taken once."""

    def __init__(self, rng: np.random.Generator, grid: int, d: int, size_hw: tuple[int, int]) -> None:
        n, k = grid * grid, 3
        layer = pk.GcnLayer(normal(rng, d, 16), normal(rng, d, 16), np.zeros(16, np.float32))
        mlp = [pk.LinearLayer(normal(rng, *wh), np.zeros(wh[1], np.float32)) for wh in ((16, 8), (8, k))]
        self.weights = pk.GcnWeights(
            True, np.zeros(d, np.float32), np.ones(d, np.float32), (layer,), tuple(mlp)
        )
        self.grid_hw, self.size_hw = (grid, grid), size_hw
        self.stream = cuda.Stream()
        empty = lambda shape, dtype=np.float32: cuda.empty(shape, dtype, stream=self.stream)  # noqa: E731
        self.features = empty((n, d))
        self.edges, self.degrees = empty((n, n)), empty(n)
        self.assignment = empty((n, k))
        self.labels, self.confidence = empty(size_hw, np.int32), empty(size_hw)
        self.ids, self.count = empty(size_hw, np.int32), empty((), np.int32)
        self.stats = pk.RegionStats(empty(99, np.int64), empty((99, 4)), empty(99), empty(99, np.int32))
        self.lengths = pk.RunLengths(size_hw, empty(99 * 400, np.uint32), empty(100, np.int64))
        self.workspaces: dict[str, cuda.DeviceArray] = {}

    def run(self) -> None:
        self._call("affinity", pk.affinity, self.features, out=self.edges, return_degrees=self.degrees)
        inputs = (self.features, self.edges, self.weights)
        self._call("gcn", pk.gcn_forward, *inputs, degrees=self.degrees, out=self.assignment)
        maps = {"out": self.labels, "confidence": self.confidence}
        pk.upsample_argmax(self.assignment, self.grid_hw, self.size_hw, stream=self.stream, **maps)
        maps = {"out": self.ids, "counts_out": self.count}
        self._call("components", pk.connected_components, self.labels, min_area=3, **maps)
        maps = {"label_map": self.labels, "confidence": self.confidence}
        self._call("stats", pk.region_stats, self.ids, 99, out=self.stats, **maps)
        self._call("rle", pk.rle_encode, self.ids, 99, out=self.lengths)

    def _call(self, name: str, op: Any, *inputs: Any, **options: Any) -> None:
        """Takes the op's workspace where it has none yet: not in a capture."""
        op(*inputs, **options, stream=self.stream, workspace=self.workspaces.get(name))
        if name not in self.workspaces:
            nbytes = cuda.last_workspace_bytes()
            self.workspaces[name] = cuda.empty(nbytes, np.uint8, stream=self.stream)

    def results(self) -> list[np.ndarray]:
        arrays = [self.edges, self.assignment, self.labels, self.confidence, self.ids, self.count]
        arrays += [*vars(self.stats).values(), self.lengths.runs, self.lengths.offsets]
        return [array.numpy() for array in arrays]


def send(chain: Chain, features: np.ndarray) -> None:
    """Writes new features where a graph reads them."""
    pk._C.cuda.copy(0, chain.features.pointer, features.ctypes.data, features.nbytes, chain.stream.handle)
    chain.stream.synchronize()


@pytest.mark.parametrize(("grid", "d", "size_hw"), [(5, 6, (37, 41)), (8, 24, (60, 80))])
def test_the_chain_is_one_graph(rng, grid, d, size_hw):
    chain = Chain(rng, grid, d, size_hw)
    first, second = (normal(rng, grid * grid, d) for _ in range(2))
    send(chain, first)
    chain.run()
    want = chain.results()
    assert np.unique(want[2]).size > 1
    assert 1 <= want[5] < 99
    with cuda.capture(chain.stream) as graph:
        chain.run()
    for features, launches in ((first, 1), (second, 1), (first, 2)):
        send(chain, features)
        for _ in range(launches):
            graph.launch(chain.stream)
        got = chain.results()
        changed = [not np.array_equal(a, b) for a, b in zip(got[:4], want[:4], strict=True)]
        assert all(changed) if features is second else not any(changed)
    for got_array, want_array in zip(got, want, strict=True):
        np.testing.assert_allclose(got_array, want_array, rtol=1e-6)


def test_clustering_is_one_graph(rng):
    """What one launch leaves in memory, such as counters, does not disturb the next."""
    n, d, k = 20, 6, 3
    stream = cuda.Stream()
    features = cuda.empty((n, d), stream=stream)
    integers = lambda *shape: cuda.empty(shape, np.int32, stream=stream)  # noqa: E731
    floats = lambda *shape: cuda.empty(shape, stream=stream)  # noqa: E731
    edges = floats(n, n)
    means = pk.KMeansClustering(integers(n), floats(k, d), floats())
    found = pk.CorrelationClustering(integers(n), integers(), floats())
    shares = pk.PrototypeAssignment(integers(n), floats(n), floats(n, k))
    doubles = lambda *shape: cuda.empty(shape, np.float64, stream=stream)  # noqa: E731
    counts = cuda.empty((k,), np.int64, stream=stream)
    step = pk.KMeansSums(integers(n), floats(n), doubles(k, d), counts, doubles())
    offsets = np.int64([0, 7, 20])
    starts = cuda.to_device(offsets, stream=stream)
    common = pk.Cosegmentation(floats(n), integers(2), floats(d))
    workspace = cuda.empty(1 << 20, np.uint8, stream=stream)

    def run() -> None:
        launch = {"stream": stream, "workspace": workspace}
        pk.cosegment(features, offsets=starts, out=common, **launch)
        pk.affinity(features, mode="cc", out=edges, **launch)
        pk.correlation_cluster(edges, out=found, **launch)
        pk.kmeans(features, k, restarts=2, iterations=5, out=means, **launch)
        pk.assign(features, means.centroids, temperature=0.1, out=shares, **launch)
        pk.kmeans_sums(features, means.centroids, out=step, **launch)

    with cuda.capture(stream) as graph:
        run()
    for values in [normal(rng, n, d) for _ in range(3)]:
        pk._C.cuda.copy(0, features.pointer, values.ctypes.data, values.nbytes, stream.handle)
        graph.launch(stream)
        want = pk.correlation_cluster(edges.numpy())
        np.testing.assert_array_equal(found.labels.numpy(), want.labels)
        want = pk.kmeans(values, k, restarts=2, iterations=5)
        np.testing.assert_array_equal(means.labels.numpy(), want.labels)
        sums = pk.kmeans_sums(values, means.centroids.numpy())
        np.testing.assert_array_equal(step.counts.numpy(), sums.counts)
        np.testing.assert_allclose(step.sums.numpy(), sums.sums, atol=1e-12)
        np.testing.assert_allclose(step.inertia.numpy(), sums.inertia, rtol=1e-6)
        want_common = pk.cosegment(values, offsets=offsets)
        np.testing.assert_array_equal(common.seeds.numpy(), want_common.seeds)
        np.testing.assert_allclose(common.scores.numpy(), want_common.scores, atol=1e-6)
        want = pk.assign(values, want.centroids, temperature=0.1)
        np.testing.assert_allclose(shares.assignment.numpy(), want.assignment, atol=1e-5)


def test_refining_is_one_graph(rng):
    size_hw = (21, 30)
    stream = cuda.Stream()
    empty = lambda *shape, dtype=np.float32: cuda.empty(shape, dtype, stream=stream)  # noqa: E731
    frame, soft, refined, solved = empty(*size_hw, 3, dtype=np.uint8), *(empty(*size_hw) for _ in range(3))
    labels, refined_labels = (empty(*size_hw, dtype=np.int32) for _ in range(2))
    launch = {"stream": stream, "workspace": empty(1 << 20, dtype=np.uint8)}
    with cuda.capture(stream) as graph:
        pk.guided_refine(frame, soft, 3, 1e-3, out=refined, **launch)
        pk.guided_refine(frame, labels, 3, 1e-3, count=4, out=refined_labels, **launch)
        pk.bilateral_solver(frame, soft, soft, smoothness=1, out=solved, **launch)
    for _ in range(2):
        pixels = rng.integers(0, 256, (*size_hw, 3)).astype(np.uint8)
        shares = rng.random(size_hw, np.float32)
        indices = (4 * np.kron(shares[::7, ::6], np.ones((7, 6)))).astype(np.int32)
        for array, values in ((frame, pixels), (soft, shares), (labels, indices)):
            pk._C.cuda.copy(0, array.pointer, values.ctypes.data, values.nbytes, stream.handle)
        graph.launch(stream)
        stream.synchronize()
        np.testing.assert_allclose(refined.numpy(), pk.guided_refine(pixels, shares, 3, 1e-3), atol=2e-5)
        want = pk.guided_refine(pixels, indices, 3, 1e-3)
        assert (refined_labels.numpy() == want).mean() > 0.99
        want = pk.bilateral_solver(pixels, shares, shares, smoothness=1)
        assert np.ptp(want) > 0.1
        np.testing.assert_allclose(solved.numpy(), want, atol=5e-5)


@pytest.mark.parametrize("threshold", [0.0, None])
@pytest.mark.parametrize("warm", [{}, {"tolerance": 1e-4}], ids=str)
def test_cuts_are_one_graph(rng, threshold, warm):
    h, w, d, k = 4, 6, 7, 3
    stream = cuda.Stream()
    features = cuda.empty((h * w, d), stream=stream)
    cuts = pk.NCut(
        *(cuda.empty(shape, stream=stream) for shape in ((k,), (h * w, k), (k,))),
        cuda.empty((), np.int32, stream=stream),
    )
    found = pk.Bipartition(
        cuda.empty((h, w), np.bool_, stream=stream),
        cuda.empty((), np.int32, stream=stream),
        cuda.empty(h * w, stream=stream),
    )
    options = {"threshold": threshold, "iterations": 24, **warm}
    launch = {"stream": stream, "workspace": cuda.empty(1 << 20, np.uint8, stream=stream)}
    with cuda.capture(stream) as graph:
        pk.ncut(features, k, out=cuts, **options, **launch)
        pk.bipartition(features, (h, w), binary=False, out=found, **options, **launch)
    for values in [normal(rng, h * w, d) for _ in range(3)]:
        pk._C.cuda.copy(0, features.pointer, values.ctypes.data, values.nbytes, stream.handle)
        graph.launch(stream)
        want = pk.ncut(values, k, **options)
        np.testing.assert_allclose(cuts.eigenvalues.numpy(), want.eigenvalues, atol=1e-5)
        want = pk.bipartition(values, (h, w), binary=False, **options)
        np.testing.assert_array_equal(found.mask.numpy(), want.mask)
        np.testing.assert_array_equal(found.seed.numpy(), want.seed)


def test_garbage_waits_for_the_end_of_a_capture(rng, monkeypatch):
    """A stream waits for its work when it goes, which nothing may do while another is captured."""
    stream, gone = cuda.Stream(), []
    features = cuda.to_device(normal(rng, 6, 4), stream=stream)
    out, workspace = cuda.empty((6, 6), stream=stream), cuda.empty(1 << 16, np.uint8, stream=stream)
    destroy = pk._C.cuda.stream_destroy
    monkeypatch.setattr(pk._C.cuda, "stream_destroy", lambda *one: (gone.append(one), destroy(*one)))
    cycle: list[Any] = [cuda.Stream()]
    cycle.append(cycle)
    del cycle
    thresholds = gc.get_threshold()
    try:
        with cuda.capture(stream) as graph:
            gc.set_threshold(1, 1, 1)
            _ = [[i] for i in range(1000)]
            pk.affinity(features, out=out, workspace=workspace)
            assert not gone
    finally:
        gc.set_threshold(*thresholds)
    assert gc.isenabled()
    gc.collect()
    assert gone
    graph.launch(stream)
    np.testing.assert_array_equal(out.numpy(), pk.affinity(features).numpy())


def test_a_graph_allocates_nothing(rng):
    stream = cuda.Stream()
    features = cuda.to_device(normal(rng, 6, 4), stream=stream)
    out = cuda.empty((6, 6), stream=stream)
    message = "memory must be given while the stream is captured"
    with pytest.raises(ValueError, match=message), cuda.capture(stream):
        pk.affinity(features)
    message = r"^\[affinity\] workspace must be given while the stream is captured"
    with pytest.raises(ValueError, match=message), cuda.capture(stream):
        pk.affinity(features, out=out)
    with pytest.raises(RuntimeError, match=r"^\[cuda.Graph\] launch needs a graph whose capture has ended"):
        cuda.Graph(0).launch(stream)
    got = pk.affinity(features, out=out).numpy()
    np.testing.assert_allclose(got, pk.reference.affinity(features.numpy()), rtol=0, atol=2e-6)


def test_wide_batches_and_many_regions(rng):
    """More regions than a block keeps in shared memory, in several items."""
    ids = rng.integers(0, 400, (3, 40, 50)).astype(np.int32)
    confidence = rng.random(ids.shape, np.float32)
    got = pk.region_stats(cuda.to_device(ids), 399, confidence=cuda.to_device(confidence))
    for b, name in itertools.product(range(3), ("area", "boxes_xyxy", "mean_confidence")):
        want = getattr(pk.reference.region_stats(ids[b], 399, confidence=confidence[b]), name)
        np.testing.assert_allclose(getattr(got, name).numpy()[b], want, rtol=1e-6)


def test_values_that_are_out_of_range_do_no_harm(rng):
    labels = rng.integers(-3, 9, (20, 30)).astype(np.int32)
    table = np.arange(10, 14, dtype=np.int32)
    inside = (labels >= 0) & (labels < 4)
    got = pk.relabel(cuda.to_device(labels), cuda.to_device(table)).numpy()
    np.testing.assert_array_equal(got, np.where(inside, labels + 10, 0))
    stats = pk.region_stats(cuda.to_device(labels), 4)
    want = pk.reference.region_stats(np.where((labels > 0) & (labels <= 4), labels, 0), 4)
    np.testing.assert_array_equal(stats.area.numpy(), want.area)
    features = normal(rng, 7, 5)
    features[2, 3] = np.nan
    got = pk.affinity(cuda.to_device(features)).numpy()
    clean = np.delete(np.arange(7), 2)
    np.testing.assert_allclose(
        got[np.ix_(clean, clean)], pk.reference.affinity(features[clean]), rtol=0, atol=2e-6
    )
