"""Streams of CUDA: ours, and those of other libraries."""

from __future__ import annotations

from typing import Any

from . import _C

# Names of the handle in stream objects of torch, cupy, pycuda and numba.
_HANDLE_NAMES = ("cuda_stream", "ptr", "handle")


class Stream:
    """Work of one device that is done in order; a new one does not wait for the legacy default stream.

    Attributes:
        device: index of the device.
        handle: cudaStream_t as an int; 0 is the legacy default stream.
    Raises:
        RuntimeError: "[cuda] CUDA needs a device and its driver, this machine has no NVIDIA driver".
    """

    __slots__ = ("__weakref__", "_owner", "device", "handle")

    def __init__(self, device: int = 0) -> None:
        self.device = device
        self.handle = 0
        self._owner: object = None  # of a stream that is not ours to destroy
        self.handle = _C.cuda.stream_create(device)

    @classmethod
    def _borrow(cls, device: int, handle: int, owner: object) -> Stream:
        stream = cls.__new__(cls)
        stream.device, stream.handle, stream._owner = device, handle, owner
        return stream

    @classmethod
    def legacy(cls, device: int) -> Stream:
        """The legacy default stream of a device."""
        return cls._borrow(device, 0, cls)

    @classmethod
    def of(cls, op: str, device: int, value: Any) -> Stream:
        """A stream of any library, or its handle as an int; it is kept, never destroyed.

        Raises:
            TypeError: "[affinity] stream must be an int or a CUDA stream, got str".
        """
        if isinstance(value, Stream):
            return value
        return cls._borrow(device, _handle(op, value), value)

    def synchronize(self) -> None:
        """Waits until all work that it was given is done."""
        _C.cuda.stream_synchronize(self.device, self.handle)

    def wait(self, other: Stream) -> None:
        """Lets work that this stream is given from now on wait for the work that `other` has now.

        Not while this stream is captured: a graph waits for nothing outside itself.
        """
        _C.cuda.stream_wait(self.device, self.handle, other.handle)

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.handle

    def __reduce__(self) -> Any:
        raise TypeError("[Stream] a stream cannot be copied or pickled; make a new one")

    def __repr__(self) -> str:
        return f"Stream(device='cuda:{self.device}', handle={self.handle:#x})"

    def __del__(self) -> None:
        if self.handle and self._owner is None:
            # Arrays of the same garbage may be finalised after it: they find the legacy stream, and no work.
            handle, self.handle = self.handle, 0
            _C.cuda.stream_synchronize(self.device, handle)
            _C.cuda.stream_destroy(self.device, handle)


def _handle(op: str, value: Any) -> int:
    found = value
    if hasattr(value, "__cuda_stream__"):
        protocol = value.__cuda_stream__
        found = (protocol() if callable(protocol) else protocol)[1]
    elif name := next((name for name in _HANDLE_NAMES if hasattr(value, name)), None):
        found = getattr(value, name)
        found = getattr(found, "value", found) or 0  # ctypes.c_void_p, None for 0
    if isinstance(found, bool) or not isinstance(found, int):
        raise TypeError(f"[{op}] stream must be an int or a CUDA stream, got {type(value).__name__}")
    return 0 if found == 1 else found  # both are the legacy default stream
