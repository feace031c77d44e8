"""Arrays of any library as numpy arrays over the same memory; nothing is copied here."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

# Devices of DLPack whose memory the CPU reads: its own, pinned for CUDA, pinned for ROCm.
_HOST_DEVICES = (1, 3, 11)
# Before 2.1 numpy asks for DLPack without flags, and calls every array that it gets read-only.
_NUMPY_READS_FLAGS = np.lib.NumpyVersion(np.__version__) >= "2.1.0"


class Array(Protocol):
    """What an op takes: a numpy array, a torch tensor, or any other array with DLPack."""

    def __dlpack__(self) -> Any: ...
    def __dlpack_device__(self) -> tuple[Any, Any]: ...


class _Borrowed:
    """Lends the memory of `view` to a numpy array that may write it."""

    def __init__(self, view: npt.NDArray[Any]) -> None:
        self._view = view  # keeps the memory
        interface = view.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


def host_view(op: str, name: str, value: object) -> npt.NDArray[Any]:
    """`value` where it is a numpy array, else a numpy array over its memory.

    Raises:
        TypeError: "[affinity] features must be an array, got list", or the array's library does not
            lend it, such as torch a tensor that requires a gradient.
        ValueError: "[affinity] features must lie in host memory, got device (2, 0)", in DLPack's numbers.
    """
    if isinstance(value, np.ndarray):
        return value
    kind = type(value).__name__
    if isinstance(value, type) or not hasattr(value, "__dlpack__"):
        raise TypeError(f"[{op}] {name} must be an array, got {kind}")
    try:
        device, index = value.__dlpack_device__()  # type: ignore[attr-defined]
        if device in _HOST_DEVICES:
            return np.from_dlpack(value)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"[{op}] {name} must be an array that can be lent, got {kind}: {error}") from error
    raise ValueError(f"[{op}] {name} must lie in host memory, got device ({int(device)}, {index})")


def writable_host_view(op: str, name: str, value: object) -> npt.NDArray[Any]:
    """`host_view`, writable unless `value` is really read-only.

    DLPack before 1.0 has no read-only flag, and forbids to lend what is read-only.
    """
    view = host_view(op, name, value)
    if isinstance(value, np.ndarray) or view.flags.writeable or (_NUMPY_READS_FLAGS and _has_flags(value)):
        return view
    return np.asarray(_Borrowed(view))


def _has_flags(value: Any) -> bool:
    """Whether an array's library knows DLPack 1.0."""
    try:
        value.__dlpack__(max_version=(1, 0))
    except TypeError:
        return False
    return True
