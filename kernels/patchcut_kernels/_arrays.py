"""Arrays of any library as arrays over the same memory; nothing is copied here."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from . import _C
from ._device_array import DeviceArray
from ._streams import Stream

# Devices of DLPack whose memory the CPU reads: its own, pinned for CUDA, pinned for ROCm.
_HOST_DEVICES = (1, 3, 11)
# Memory of one CUDA device, and memory that moves between devices.
_CUDA_DEVICES = (2, 13)
# Before 2.1 numpy asks for DLPack without flags, and calls every array that it gets read-only.
_NUMPY_READS_FLAGS = np.lib.NumpyVersion(np.__version__) >= "2.1.0"

View = npt.NDArray[Any] | DeviceArray


class Array(Protocol):
    """An argument of an op: a numpy array, a torch tensor, or any other array with DLPack."""

    def __dlpack__(self) -> Any: ...
    def __dlpack_device__(self) -> tuple[Any, Any]: ...


class _Borrowed:
    """Lends the memory of `view` to a numpy array that may write it."""

    def __init__(self, view: npt.NDArray[Any]) -> None:
        self._view = view  # keeps the memory
        interface = view.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


def view(op: str, name: str, value: object) -> View:
    """`value` where it is a numpy array or a DeviceArray, else one of them over its memory.

    Raises:
        TypeError: "[affinity] features must be an array, got list", or the array's library does not
            lend it, such as torch a tensor that requires a gradient.
        ValueError: "[affinity] features must lie in host memory or on CUDA, got device (8, 0)", in DLPack's
            numbers.
        RuntimeError: the array lies on CUDA, and there is no CUDA in this build or on this machine.
    """
    if isinstance(value, (np.ndarray, DeviceArray)):
        return value
    kind = type(value).__name__
    lends = hasattr(type(value), "__dlpack__") or hasattr(type(value), "__cuda_array_interface__")
    if isinstance(value, type) or not lends:
        raise TypeError(f"[{op}] {name} must be an array, got {kind}")
    try:
        device, index = _device(value)
        if device in _HOST_DEVICES:
            return np.from_dlpack(value)  # type: ignore[arg-type]
        if device in _CUDA_DEVICES:
            return _device_view(op, value)
    except _NoCuda as error:
        raise RuntimeError(str(error)) from None
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"[{op}] {name} must be an array that can be lent, got {kind}: {error}") from error
    raise ValueError(f"[{op}] {name} must lie in host memory or on CUDA, got device ({int(device)}, {index})")


def writable_view(op: str, name: str, value: object) -> View:
    """`view`, writable unless `value` is really read-only.

    DLPack before 1.0 has no read-only flag, and forbids to lend read-only memory.
    """
    array = view(op, name, value)
    if isinstance(array, DeviceArray) or isinstance(value, np.ndarray):
        return array
    if array.flags.writeable or (_NUMPY_READS_FLAGS and _has_flags(value)):
        return array
    return np.asarray(_Borrowed(array))


class _NoCuda(Exception):
    """There is no CUDA to borrow an array of."""


def _device(value: Any) -> tuple[Any, Any]:
    if hasattr(type(value), "__dlpack_device__"):
        device, index = value.__dlpack_device__()
        return device, index
    return _CUDA_DEVICES[0], 0  # it has __cuda_array_interface__ alone


def _device_view(op: str, value: Any) -> DeviceArray:
    reason = _C.cuda.why_unavailable()
    if reason:
        raise _NoCuda(reason.replace("[cuda]", f"[{op}]", 1))
    interface = getattr(value, "__cuda_array_interface__", None)
    if interface is None:
        return _borrow_dlpack(value)
    pointer, read_only = interface["data"]
    stream, strides = interface.get("stream"), interface.get("strides")
    device = max(_C.cuda.device_of(pointer or 0), 0)
    return DeviceArray(
        pointer or 0,
        tuple(interface["shape"]),
        interface["typestr"],
        device=device,
        stream=None if stream is None else Stream.of(op, device, int(stream)),
        owner=value,
        strides=None if strides is None else tuple(strides),
        writable=not read_only,
    )


def _borrow_dlpack(value: Any) -> DeviceArray:
    pointer, shape, strides, (kind, bits), device, writable, lent = _C.cuda.borrow(value)
    dtype = np.dtype(f"{kind}{bits // 8}")
    return DeviceArray(
        pointer,
        tuple(shape),
        dtype,
        device=device,
        stream=Stream.legacy(device),  # for which DLPack lends where it is told no stream
        owner=lent,
        strides=tuple(stride * dtype.itemsize for stride in strides),
        writable=writable,
    )


def _has_flags(value: Any) -> bool:
    """Whether an array's library knows DLPack 1.0."""
    try:
        value.__dlpack__(max_version=(1, 0))
    except TypeError:
        return False
    return True
