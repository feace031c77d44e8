"""What ops take while a stream is captured belongs to the graph; host memory that a graph copies from."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import patchcut_kernels as pk
import pytest
from patchcut_kernels import cuda

pytestmark = pytest.mark.skipif(not cuda.is_available(), reason=cuda.why_unavailable())


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def test_ops_without_out_and_workspace_are_captured(rng):
    stream = cuda.Stream()
    features = cuda.to_device(normal(rng, 30, 7), stream=stream)
    with cuda.graph_memory(stream), cuda.capture(stream) as graph:
        edges, degrees = pk.affinity(features, return_degrees=True)
        ids, count = pk.connected_components(pk.upsample_argmax(edges, (5, 6), (40, 50)), min_area=2)
    for _ in range(3):
        values = normal(rng, 30, 7)
        cuda.copy(values, features, stream=stream)
        graph.launch(stream)
        want, want_degrees = pk.affinity(values, return_degrees=True)
        np.testing.assert_allclose(edges.numpy(), want, atol=4e-6)
        np.testing.assert_allclose(degrees.numpy(), want_degrees, rtol=1e-5)
        want_ids, want_count = pk.connected_components(
            pk.upsample_argmax(edges.numpy(), (5, 6), (40, 50)), min_area=2
        )
        assert int(count) == want_count > 1
        np.testing.assert_array_equal(ids.numpy(), want_ids)


def test_memory_that_was_given_back_is_taken_again_within_the_graph_only(rng):
    stream = cuda.Stream()
    with cuda.graph_memory(stream):
        first = cuda.empty(100, stream=stream)
        pointer = first.pointer
        del first
        second = cuda.empty(99, stream=stream)
        third = cuda.empty(100, stream=stream)
        assert second.pointer == pointer != third.pointer
    del second
    later = cuda.to_device(normal(rng, 100), stream=stream)
    assert later.pointer != pointer
    assert not later.overlaps(third)


def test_a_graph_keeps_what_its_ops_were_given(rng):
    stream = cuda.Stream()
    values = normal(rng, 9, 4)
    features = cuda.to_device(values, stream=stream)
    with cuda.graph_memory(stream), cuda.capture(stream) as graph:
        edges = pk.affinity(features)
    del features
    gc.collect()
    others = [cuda.to_device(normal(rng, 9, 4), stream=stream) for _ in range(4)]
    graph.launch(stream)
    np.testing.assert_allclose(edges.numpy(), pk.affinity(values), atol=4e-6)
    assert len(others) == 4


def test_arrays_outlive_their_graph(rng):
    stream = cuda.Stream()
    features = cuda.to_device(normal(rng, 9, 4), stream=stream)
    with cuda.graph_memory(stream), cuda.capture(stream) as graph:
        edges = pk.affinity(features)
    graph.launch(stream)
    want = edges.numpy()
    del graph
    gc.collect()
    np.testing.assert_array_equal(edges.numpy(), want)


def test_a_stream_has_one_memory_at_a_time_and_is_free_afterwards(rng):
    stream, other = cuda.Stream(), cuda.Stream()
    message = r"^\[cuda\] a stream must have one graph's memory at a time"
    with (
        cuda.graph_memory(stream),
        cuda.graph_memory(other),
        pytest.raises(ValueError, match=message),
        cuda.graph_memory(stream),
    ):
        pass
    with pytest.raises(RuntimeError, match="on purpose"), cuda.graph_memory(stream):
        raise RuntimeError("on purpose")
    features = cuda.to_device(normal(rng, 6, 4), stream=stream)
    with pytest.raises(ValueError, match="while the stream is captured"), cuda.capture(stream):
        pk.affinity(features)


def test_a_graph_copies_from_and_to_locked_host_memory_alone(rng):
    stream = cuda.Stream()
    up, down = cuda.empty_host((3, 5)), cuda.empty_host((3, 5))
    array = cuda.empty((3, 5), stream=stream)
    with cuda.capture(stream) as graph:
        cuda.copy(up, array, stream=stream)
        cuda.copy(array, down, stream=stream)
    for _ in range(2):
        up[:] = values = normal(rng, 3, 5)
        graph.launch(stream)
        stream.synchronize()
        np.testing.assert_array_equal(down, values)
    if cuda.device_name() == "host":
        with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureUnsupported"), cuda.capture(stream):
            cuda.copy(normal(rng, 3, 5), array, stream=stream)


def test_host_memory_goes_with_its_last_array(host_cuda):
    view = cuda.empty_host((4, 6), np.int32)[1:]
    assert view.dtype == np.int32
    assert view.flags.writeable
    assert view.ctypes.data % 8 == 0
    gc.collect()
    view[:] = 7
    assert view.sum() == 7 * 18
    assert pk._C.cuda.device_of(view.ctypes.data) == -1
    assert cuda.empty_host((0, 3)).shape == (0, 3)
    assert cuda.empty_host(()).shape == ()


def test_copies_are_counted(rng, host_cuda):
    stream = cuda.Stream()
    host, array, other = cuda.empty_host(8), cuda.empty(8, stream=stream), cuda.empty(8, stream=stream)
    host[:] = 1
    with cuda.capture(stream) as graph:
        cuda.copy(host, array, stream=stream)
        cuda.copy(array, other, stream=stream)
        cuda.copy(other, host, stream=stream)
    with host_cuda.counted() as copies:
        graph.launch(stream)
        graph.launch(stream)
    assert copies == {"up": 2, "down": 2, "device": 2}
    with host_cuda.counted() as copies:
        array.numpy()
    assert copies == {"up": 0, "down": 1, "device": 0}


def test_a_function_is_called_in_each_launch(host_cuda):
    stream, calls = cuda.Stream(), []
    with cuda.capture(stream) as graph:
        host_cuda.call(stream.handle, lambda: calls.append(1))
    assert not calls
    graph.launch(stream)
    graph.launch(stream)
    assert calls == [1, 1]


@pytest.mark.parametrize(
    ("shape", "dtype"), [((4,), np.float32), ((3,), np.float64), ((3, 1), np.float32)], ids=str
)
def test_what_a_copy_refuses(shape: Any, dtype: Any):
    stream = cuda.Stream()
    array = cuda.empty(3, stream=stream)
    with pytest.raises(ValueError, match=r"^\[cuda.copy\] arrays must be contiguous and alike, got float"):
        cuda.copy(np.zeros(shape, dtype), array, stream=stream)
    with pytest.raises(ValueError, match=r"contiguous and alike"):
        cuda.copy(np.zeros((3, 2), np.float32)[:, 0], array, stream=stream)
