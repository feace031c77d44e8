"""The launch of an op: one call runs on the device of its arrays, and there on one stream."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from . import _C, _arrays, _device_array
from ._device_array import DeviceArray
from ._streams import Stream


class Launch:
    """Device, stream and workspace of one call of an op; the arrays that it makes lie on that device.

    Attributes:
        context: the same for the native op.
        device: "cpu" or "cuda:0".
        stream: None on the CPU.
    """

    def __init__(self, context: _C.Context, stream: Stream | None) -> None:
        self.context = context
        self.device = "cpu" if stream is None else f"cuda:{stream.device}"
        self.stream = stream

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A new array, not initialised."""
        if self.stream is None:
            return np.empty(shape, dtype)
        return cast("npt.NDArray[Any]", _device_array.empty(shape, dtype, self.stream))

    def use(self, array: DeviceArray) -> None:
        """Lets the op wait for an array, and keeps the array's memory until the op is done."""
        if self.stream is not None:
            array.use_on(self.stream)


HOST = Launch(_C.Context(_C.DeviceType.cpu, 0, 0, 0, 0), None)


def device_name(array: object) -> str:
    """ "cpu" or "cuda:0" """
    return f"cuda:{array.device}" if isinstance(array, DeviceArray) else "cpu"


def prepare(op: str, stream: object, workspace: object, **arrays: object) -> Launch:
    """The launch of one call on the device of its arrays.

    Args:
        op: its name, for errors.
        stream: a stream of any library or its handle; None for the stream that the arrays name, else the
            legacy default stream.
        workspace: device memory for the op, [bytes] uint8; None to take it from the stream's pool.
        arrays: views, by their names in errors; None for those that were not given.
    Raises:
        ValueError: "[op] arrays must lie on one device, got features on cuda:0 and affinity on cpu".
        ValueError: "[op] stream must be None where the arrays lie in host memory".
    """
    used = [value for value in arrays.values() if type(value) is DeviceArray]
    if not used:
        if stream is not None or workspace is not None:
            given = "workspace" if stream is None else "stream"
            raise ValueError(f"[{op}] {given} must be None where the arrays lie in host memory")
        return HOST
    require_one_device(op, **arrays)
    device = used[0].device
    if stream is None:
        queue = next((array.stream for array in used if array.stream is not None), Stream.legacy(device))
    else:
        queue = Stream.of(op, device, stream)
    if workspace is not None:
        used.append(_workspace(op, workspace, device))
    for array in used:
        array.use_on(queue)
    memory = (used[-1].pointer, used[-1].nbytes) if workspace is not None else (0, 0)
    return Launch(_C.Context(_C.DeviceType.cuda, device, queue.handle, *memory), queue)


def require_one_device(op: str, **arrays: object) -> None:
    """Raises unless all arrays that are not None lie on one device."""
    names = {name: device_name(value) for name, value in arrays.items() if value is not None}
    first = next(iter(names))
    for name, device in names.items():
        if device != names[first]:
            raise ValueError(
                f"[{op}] arrays must lie on one device, got {first} on {names[first]} and {name} on {device}"
            )


def _workspace(op: str, value: object, device: int) -> DeviceArray:
    memory = _arrays.writable_view(op, "workspace", value)
    if memory.ndim != 1:
        raise ValueError(f"[{op}] workspace must be [bytes], got shape {memory.shape}")
    if memory.dtype != np.uint8:
        raise TypeError(f"[{op}] workspace must be uint8, got {memory.dtype}")
    if not isinstance(memory, DeviceArray) or memory.device != device:
        raise ValueError(
            f"[{op}] workspace must lie on cuda:{device} with the arrays, got {device_name(memory)}"
        )
    return memory
