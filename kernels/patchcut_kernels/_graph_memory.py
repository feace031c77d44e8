"""Memory that belongs to a graph of CUDA, and host memory that a graph can copy from and to."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _C
from ._streams import Stream


class GraphMemory:
    """What ops took on a stream while it was captured, and the arrays that they were given.

    A graph reads and writes it at each launch: it is kept for as long as the graph is.
    """

    def __init__(self, stream: Stream) -> None:
        self._device = stream.device
        self._stream = stream
        self._kept: list[object] = []
        self.handle = 0
        self.handle = _C.cuda.graph_memory_begin(stream.device, stream.handle)
        _begun[stream.handle] = self

    def keep(self, owner: object) -> None:
        """Keeps memory that an op of the graph was given."""
        if not any(owner is one for one in self._kept):
            self._kept.append(owner)

    def end(self) -> None:
        """From here on the stream's memory is its pool's again."""
        if _begun.pop(self._stream.handle, None) is not None:
            _C.cuda.graph_memory_end(self._device, self.handle)

    def __del__(self) -> None:
        if self.handle:
            self.end()
            # Arrays of the same garbage may be finalised after it: they find that their memory is gone.
            handle, self.handle = self.handle, 0
            _C.cuda.graph_memory_destroy(self._device, handle)


_begun: dict[int, GraphMemory] = {}  # by the stream's handle


def graph_memory_of(stream: Stream) -> GraphMemory | None:
    """The memory that has begun for a stream and not ended."""
    return _begun.get(stream.handle)


class _HostMemory:
    """Host memory that stays where it is; given back when no array refers to it."""

    def __init__(self, device: int, nbytes: int) -> None:
        self._device = device
        self.pointer = 0
        self.pointer = _C.cuda.host_allocate(device, nbytes)
        self.__array_interface__: dict[str, Any] = {
            "shape": (nbytes,),
            "typestr": "|u1",
            "data": (self.pointer, False),
            "version": 3,
        }

    def __del__(self) -> None:
        if self.pointer:
            _C.cuda.host_free(self._device, self.pointer)


def host_memory(shape: tuple[int, ...], dtype: npt.DTypeLike, device: int) -> npt.NDArray[Any]:
    """A new array [shape] in host memory that is locked, not initialised."""
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    if not nbytes:
        return np.empty(shape, dtype)
    return np.asarray(_HostMemory(device, nbytes)).view(dtype).reshape(shape)
