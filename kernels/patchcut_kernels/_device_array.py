"""Arrays in the memory of a CUDA device."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from . import _C
from ._graph_memory import graph_memory_of
from ._streams import Stream

_DLPACK_CUDA = 2
_ALIGNMENT = 256  # as allocations of CUDA have


class _Allocation:
    """Device memory, which goes back to where it is from when nothing refers to it.

    That is its stream's pool; or the graph's memory, where its stream is being captured with some.
    """

    def __init__(self, device: int, nbytes: int, stream: Stream) -> None:
        self.pointer = 0
        self.graph_memory = graph_memory_of(stream)
        self._device = device
        self._stream = stream
        self._other_streams: dict[int, Stream] = {}
        if nbytes:
            self.pointer = _C.cuda.allocate(device, nbytes, stream.handle)

    def use_on(self, stream: Stream) -> None:
        """Keeps the memory until the work that `stream` was given by then is done."""
        if stream.handle != self._stream.handle:
            self._other_streams[stream.handle] = stream

    def __del__(self) -> None:
        if not self.pointer or (self.graph_memory is not None and not self.graph_memory.handle):
            return
        for other in self._other_streams.values():
            self._stream.wait(other)
        _C.cuda.free(self._device, self.pointer, self._stream.handle)


def contiguous_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Bytes from one index to the next, of each dimension in C order."""
    products = itertools.accumulate(reversed(shape[1:]), lambda a, b: a * max(b, 1), initial=itemsize)
    return tuple(reversed(list(itertools.islice(products, len(shape)))))


@final
class DeviceArray:
    """An array on a CUDA device, as the ops take and return it there.

    It lends its memory to any library that speaks `__cuda_array_interface__` or DLPack, such as torch, cupy
    and jax, without a copy.

    Attributes:
        pointer: address of the first element.
        shape: number of elements along each dimension.
        strides: bytes from one element to the next along each dimension.
        dtype: a numpy dtype.
        device: index of the device.
        stream: the stream in whose order it is written; None for an array of another library that names
            none: it is ready.
        writable: False where its library lends it for reading only.
    """

    __slots__ = (
        "__weakref__",
        "_owner",
        "device",
        "dtype",
        "pointer",
        "shape",
        "stream",
        "strides",
        "writable",
    )

    def __init__(
        self,
        pointer: int,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        *,
        device: int,
        stream: Stream | None,
        owner: object,
        strides: tuple[int, ...] | None = None,
        writable: bool = True,
    ) -> None:
        self.pointer = pointer
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.device = device
        self.stream = stream
        self.strides = contiguous_strides(shape, self.dtype.itemsize) if strides is None else strides
        self.writable = writable
        self._owner = owner

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.dtype.itemsize

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie one after the other in C order."""
        dense = contiguous_strides(self.shape, self.dtype.itemsize)
        return self.size == 0 or all(
            extent == 1 or stride == want
            for extent, stride, want in zip(self.shape, self.strides, dense, strict=True)
        )

    def overlaps(self, other: DeviceArray) -> bool:
        """Whether the two may share memory: whether the bytes from first to last element of each do."""
        (begin, end), (other_begin, other_end) = self._span(), other._span()
        return begin < other_end and other_begin < end

    def _span(self) -> tuple[int, int]:
        if self.size == 0:
            return self.pointer, self.pointer
        steps = [(extent - 1) * stride for extent, stride in zip(self.shape, self.strides, strict=True)]
        low, high = sum(min(step, 0) for step in steps), sum(max(step, 0) for step in steps)
        return self.pointer + low, self.pointer + high + self.dtype.itemsize

    def reshape(self, *shape: int) -> DeviceArray:
        """The same memory in another shape, of which one extent may be -1.

        Raises:
            ValueError: "[DeviceArray] reshape needs a contiguous array, got strides (4, 8)".
        """
        if not self.is_contiguous:
            raise ValueError(f"[DeviceArray] reshape needs a contiguous array, got strides {self.strides}")
        known = math.prod(extent for extent in shape if extent != -1)
        full = tuple(self.size // max(known, 1) if extent == -1 else extent for extent in shape)
        if math.prod(full) != self.size:
            raise ValueError(f"[DeviceArray] shape must have {self.size} elements, got {shape}")
        return DeviceArray(
            self.pointer,
            full,
            self.dtype,
            device=self.device,
            stream=self.stream,
            owner=self._owner,
            writable=self.writable,
        )

    def numpy(self) -> npt.NDArray[Any]:
        """A copy in host memory; waits for the array's stream.

        Raises:
            ValueError: "[DeviceArray] numpy needs a contiguous array, got strides (4, 8)".
        """
        if not self.is_contiguous:
            raise ValueError(f"[DeviceArray] numpy needs a contiguous array, got strides {self.strides}")
        host = np.empty(self.shape, self.dtype)
        stream = self.stream or Stream.legacy(self.device)
        if host.size:
            _C.cuda.copy(self.device, host.ctypes.data, self.pointer, host.nbytes, stream.handle)
        stream.synchronize()
        return host

    def item(self) -> Any:
        """The only element as a number of Python; waits for the array's stream."""
        return self.numpy().item()

    def __int__(self) -> int:
        return int(self.item())

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> DeviceArray:
        """The same memory without its first dimension, at one index of it.

        Raises:
            IndexError: "[DeviceArray] index must be in [0, 2), got 2".
        """
        if not 0 <= index < self.shape[0]:
            raise IndexError(f"[DeviceArray] index must be in [0, {self.shape[0]}), got {index}")
        return DeviceArray(
            self.pointer + index * self.strides[0],
            self.shape[1:],
            self.dtype,
            device=self.device,
            stream=self.stream,
            owner=self._owner,
            strides=self.strides[1:],
            writable=self.writable,
        )

    def __reduce__(self) -> Any:
        raise TypeError("[DeviceArray] memory of a GPU cannot be copied or pickled; numpy() brings it down")

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype}, device='cuda:{self.device}')"

    def __array__(self, *_: object, **__: object) -> npt.NDArray[Any]:
        raise TypeError("[DeviceArray] the array lies on a GPU; numpy() copies it to the host")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, not self.writable),
            "strides": None if self.is_contiguous else self.strides,
            "version": 3,
            # 0 is not allowed there; 1 is the legacy default stream too.
            "stream": None if self.stream is None else self.stream.handle or 1,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return _DLPACK_CUDA, self.device

    def __dlpack__(self, *, stream: int | None = None, **_: object) -> Any:
        if stream != -1:  # -1: the consumer takes care of the order itself
            self.use_on(Stream.of("DeviceArray", self.device, 0 if stream is None else stream))
        return self.lend_strided()

    def use_on(self, stream: Stream) -> None:
        """Lets `stream` wait for the array, and keeps the memory until `stream` is done with it."""
        if self.stream is not None and self.stream.handle != stream.handle:
            stream.wait(self.stream)
        if isinstance(self._owner, _Allocation):
            self._owner.use_on(stream)
        memory = graph_memory_of(stream)
        if memory is not None and getattr(self._owner, "graph_memory", None) is not memory:
            memory.keep(self._owner)

    def lend(self, shape: tuple[int, ...]) -> Any:
        """This memory, contiguous, in another shape, as the native ops take it; nothing waits."""
        return self.reshape(*shape).lend_strided()

    def lend_strided(self, extra_dimensions: int = 0) -> Any:
        """This memory with dimensions of 1 in front, as the native ops and DLPack take it; nothing waits."""
        size = self.dtype.itemsize
        return _C.cuda.lend(
            self.pointer,
            (1,) * extra_dimensions + self.shape,
            (0,) * extra_dimensions + tuple(stride // size for stride in self.strides),
            self.dtype.kind,
            8 * size,
            self.device,
            self,
        )


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike, stream: Stream) -> DeviceArray:
    """A new array on the stream's device, not initialised."""
    memory = _Allocation(stream.device, math.prod(shape) * np.dtype(dtype).itemsize, stream)
    return DeviceArray(memory.pointer, shape, dtype, device=stream.device, stream=stream, owner=memory)


@dataclass(frozen=True, eq=False)
class PackedArrays:
    """Device arrays in one allocation, which come to the host with one copy.

    Attributes:
        arrays: contiguous arrays, each aligned to 256 bytes.
        memory: [bytes] uint8, the memory of all of them.
    """

    arrays: tuple[DeviceArray, ...]
    memory: DeviceArray

    def numpy(self) -> tuple[npt.NDArray[Any], ...]:
        """The arrays in host memory, views of one copy; waits for the stream once."""
        return self.views(self.memory.numpy())

    def views(self, host: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[Any], ...]:
        """The arrays in a copy [bytes] of `memory`."""
        begins = (array.pointer - self.memory.pointer for array in self.arrays)
        return tuple(
            host[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
            for begin, array in zip(begins, self.arrays, strict=True)
        )


def pack(arrays: Iterable[tuple[tuple[int, ...], npt.DTypeLike]], stream: Stream) -> PackedArrays:
    """New arrays of the given shapes and dtypes on the stream's device, not initialised."""
    specs = [(shape, np.dtype(dtype)) for shape, dtype in arrays]
    sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in specs]
    *begins, end = itertools.accumulate((-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes), initial=0)
    memory = empty((end,), np.uint8, stream)
    return PackedArrays(
        tuple(
            DeviceArray(
                memory.pointer + begin, shape, dtype, device=stream.device, stream=stream, owner=memory._owner
            )
            for begin, (shape, dtype) in zip(begins, specs, strict=True)
        ),
        memory,
    )
