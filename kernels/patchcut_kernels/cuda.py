"""Arrays, streams, events and graphs of CUDA, for programs without a library that has them.

Arrays and streams of torch, cupy, pycuda, numba and jax work as well. Ops run where their arrays lie; two
arguments are for CUDA alone, and must be None for arrays in host memory:

- `stream`: a stream of any library or its handle; None for the stream that the arrays name, else the legacy
  default stream.
- `workspace`: [bytes] uint8, the memory that an op computes in; None to take it from the stream's pool. One
  that is too small is an error that says how much is needed.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from . import _C, _device_array
from ._device_array import DeviceArray, PackedArrays
from ._graph_memory import GraphMemory, graph_memory_of, host_memory
from ._streams import Stream

__all__ = [
    "DeviceArray",
    "Event",
    "Graph",
    "GraphMemory",
    "Launchable",
    "PackedArrays",
    "Stream",
    "capture",
    "compute_capability",
    "copy",
    "device_count",
    "device_name",
    "empty",
    "empty_host",
    "graph_memory",
    "is_available",
    "last_workspace_bytes",
    "pack",
    "to_device",
    "why_unavailable",
]


def is_available() -> bool:
    """Whether ops can run on CUDA here.

    Examples:
        >>> pk.cuda.is_available() == (pk.cuda.device_count() > 0)
        True
    """
    return not why_unavailable()


def why_unavailable() -> str:
    """The missing piece: CUDA in this build, a driver or a device; "" where ops can run on CUDA.

    Examples:
        >>> pk.cuda.why_unavailable()
        ''
    """
    return _C.cuda.why_unavailable()


def device_count() -> int:
    """Number of CUDA devices; 0 where CUDA is not available.

    Examples:
        >>> pk.cuda.device_count() > 0
        True
    """
    return _C.cuda.device_count()


def device_name(device: int = 0) -> str:
    """Name of a device, such as "NVIDIA H100".

    Raises:
        RuntimeError: "[cuda] CUDA needs a device and its driver, this machine has no NVIDIA driver".
    Examples:
        >>> pk.cuda.device_name()
        '...'
    """
    _require_cuda()
    return _C.cuda.device_name(device)


def compute_capability(device: int = 0) -> tuple[int, int]:
    """(major, minor) of a device; raises as `device_name`.

    Examples:
        >>> pk.cuda.compute_capability() > (5, 0)
        True
    """
    _require_cuda()
    major, minor = divmod(_C.cuda.compute_capability(device), 10)
    return major, minor


def last_workspace_bytes() -> int:
    """Bytes of `workspace` that this thread's last op on CUDA took, or found too few; 0 before the first.

    It depends on shapes, dtypes and settings alone. Raises as `device_name`.
    Examples:
        >>> ids, count = pk.connected_components(pk.cuda.to_device(np.eye(8, dtype=np.int32)))
        >>> pk.cuda.last_workspace_bytes() > 0
        True
    """
    _require_cuda()
    return _C.cuda.last_workspace_bytes()


def empty(
    shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.float32, *, device: int = 0, stream: Any = None
) -> DeviceArray:
    """A new array, not initialised; raises as `device_name`.

    Args:
        shape: shape of the array.
        dtype: type of the array.
        device: index of the device.
        stream: stream in whose order the memory is taken and given back; None for the legacy default stream.
    Examples:
        >>> pk.cuda.empty((2, 3))
        DeviceArray(shape=(2, 3), dtype=float32, device='cuda:0')
    """
    queue = _queue("cuda.empty", device, stream)
    return _device_array.empty(shape if isinstance(shape, tuple) else (shape,), dtype, queue)


def pack(
    arrays: Sequence[tuple[tuple[int, ...], npt.DTypeLike]], *, device: int = 0, stream: Any = None
) -> PackedArrays:
    """New arrays in one allocation, not initialised; one copy brings all of them to the host.

    Args:
        arrays: shape and dtype of each.
        device: as for `empty`.
        stream: as for `empty`; `PackedArrays.numpy` waits for it.
    Returns:
        PackedArrays.
    Raises:
        RuntimeError: as `device_name`.
    Examples:
        >>> packed = pk.cuda.pack([((2, 3), np.float32), ((4,), np.int64)])
        >>> [array.shape for array in packed.numpy()]
        [(2, 3), (4,)]
    """
    return _device_array.pack(arrays, _queue("cuda.pack", device, stream))


def to_device(array: npt.ArrayLike, *, device: int = 0, stream: Any = None) -> DeviceArray:
    """A copy of an array of the host on a device; arguments and errors are those of `empty`.

    Examples:
        >>> pk.cuda.to_device([1.0, 2.0]).numpy().tolist()
        [1.0, 2.0]
    """
    host = np.ascontiguousarray(array).reshape(np.shape(array))
    made = empty(host.shape, host.dtype, device=device, stream=stream)
    if host.size:
        assert made.stream is not None
        _C.cuda.copy(made.device, made.pointer, host.ctypes.data, host.nbytes, made.stream.handle)
    return made


def empty_host(
    shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.float32, *, device: int = 0
) -> npt.NDArray[Any]:
    """A new array in host memory that stays in its place, not initialised; raises as `device_name`.

    Graphs can copy from and to it, and copies from and to it are the fastest.
    Examples:
        >>> pk.cuda.empty_host((2, 3), np.uint8).shape
        (2, 3)
    """
    _require_cuda()
    return host_memory(shape if isinstance(shape, tuple) else (shape,), dtype, device)


def copy(source: Any, out: Any, *, stream: Stream) -> None:
    """Gives `stream` the copy of one array into another, of which one at least is a DeviceArray.

    Nothing waits for it: one in host memory is that of `empty_host` where it is used again or captured.

    Args:
        source: contiguous, a DeviceArray or of numpy.
        out: the same of the same shape and dtype; is written.
        stream: in whose order.
    Raises:
        ValueError: "[cuda.copy] arrays must be contiguous and alike, got float32 (2,) and float32 (3,)".
    Examples:
        >>> stream, host = pk.cuda.Stream(), pk.cuda.empty_host(3)
        >>> host[:] = 5
        >>> array = pk.cuda.empty(3, stream=stream)
        >>> pk.cuda.copy(host, array, stream=stream)
        >>> array.numpy().tolist()
        [5.0, 5.0, 5.0]
    """
    contiguous = all(
        array.is_contiguous if isinstance(array, DeviceArray) else array.flags.c_contiguous
        for array in (source, out)
    )
    if not contiguous or (source.shape, source.dtype) != (out.shape, out.dtype):
        came = " and ".join(f"{array.dtype} {array.shape}" for array in (source, out))
        raise ValueError(f"[cuda.copy] arrays must be contiguous and alike, got {came}")
    if out.size:
        to, origin = (_address(array, stream) for array in (out, source))
        _C.cuda.copy(stream.device, to, origin, out.nbytes, stream.handle)


def _address(array: Any, stream: Stream) -> int:
    """Of the first element; `stream` waits for the array."""
    if not isinstance(array, DeviceArray):
        return int(array.ctypes.data)
    array.use_on(stream)
    return array.pointer


class Event:
    """A point in the work of a stream, and when it was reached; raises as `device_name`."""

    def __init__(self, device: int = 0) -> None:
        _require_cuda()
        self.device = device
        self.handle = 0
        self.handle = _C.cuda.event_create(device)

    def record(self, stream: Any) -> Event:
        """Itself, set to the end of the work that `stream` has now."""
        _C.cuda.event_record(self.device, self.handle, Stream.of("cuda.Event", self.device, stream).handle)
        return self

    def synchronize(self) -> None:
        """Waits until it is reached."""
        _C.cuda.event_synchronize(self.device, self.handle)

    def elapsed_ms(self, since: Event) -> float:
        """Milliseconds from `since` to this event; waits for it."""
        self.synchronize()
        return _C.cuda.event_elapsed_ms(self.device, since.handle, self.handle)

    def __del__(self) -> None:
        if self.handle:
            _C.cuda.event_destroy(self.device, self.handle)


class Launchable(Protocol):
    """What can be given to a stream as a whole: a `Graph`, or one that another library has captured."""

    def launch(self, stream: Any) -> None:
        """Gives all of it to `stream`."""
        ...


class Graph:
    """Work that a stream was given once and can be given again; see `capture`."""

    def __init__(self, device: int) -> None:
        self.device = device
        self.handle = 0
        self.memory: GraphMemory | None = None  # which goes after the graph

    def launch(self, stream: Any) -> None:
        """Gives all of it to `stream`, which need not be the one it was captured from.

        Raises:
            RuntimeError: "[cuda.Graph] launch needs a graph whose capture has ended".
        """
        if not self.handle:
            raise RuntimeError("[cuda.Graph] launch needs a graph whose capture has ended")
        _C.cuda.graph_launch(self.device, self.handle, Stream.of("cuda.Graph", self.device, stream).handle)

    def __del__(self) -> None:
        if self.handle:
            _C.cuda.graph_destroy(self.device, self.handle)


@contextmanager
def capture(stream: Stream) -> Iterator[Graph]:
    """Keeps the work that ops give to `stream` meanwhile in a graph, instead of doing it.

    A graph uses the memory that its ops were given, which must be kept for as long as it is launched, and
    allocates none: ops need `out` and `workspace`, unless the stream has `graph_memory`.
    Examples:
        >>> stream = pk.cuda.Stream()
        >>> labels, table = (pk.cuda.to_device(np.int32(a), stream=stream) for a in ([[0, 1]], [1, 0]))
        >>> with pk.cuda.capture(stream) as graph:
        ...     _ = pk.relabel(labels, table, out=labels, stream=stream)
        >>> graph.launch(stream)
        >>> labels.numpy().tolist()
        [[1, 0]]
    """
    graph = Graph(stream.device)
    graph.memory = graph_memory_of(stream)
    with _no_garbage():
        _C.cuda.capture_begin(stream.device, stream.handle)
        try:
            yield graph
        except BaseException:
            with suppress(RuntimeError):  # else the stream could not be used again
                graph.handle = _C.cuda.capture_end(stream.device, stream.handle)
            raise
        graph.handle = _C.cuda.capture_end(stream.device, stream.handle)


@contextmanager
def _no_garbage() -> Iterator[None]:
    """A block in which none is collected: streams and graphs that go wait for the GPU, and end a capture."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextmanager
def graph_memory(stream: Stream) -> Iterator[GraphMemory]:
    """Gives a graph that is captured from `stream` meanwhile the memory that its ops take.

    It belongs to the object that comes out, which also keeps the arrays that the ops were given. A `Graph`
    has it; a graph that another library captures must not be launched without it. All that uses the memory is
    in the order of the stream.

    Examples:
        >>> stream = pk.cuda.Stream()
        >>> features = pk.cuda.to_device(np.float32([[1, 0], [0, 1]]), stream=stream)
        >>> with pk.cuda.graph_memory(stream) as memory, pk.cuda.capture(stream) as graph:
        ...     edges = pk.affinity(features)
        >>> graph.launch(stream)
        >>> edges.numpy().tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    memory = GraphMemory(stream)
    try:
        yield memory
    finally:
        memory.end()


def _queue(op: str, device: int, stream: Any) -> Stream:
    _require_cuda()
    return Stream.legacy(device) if stream is None else Stream.of(op, device, stream)


def _require_cuda() -> None:
    reason = why_unavailable()
    if reason:
        raise RuntimeError(reason)
