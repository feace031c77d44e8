"""Reads and writes safetensors: a list of names, types, shapes and places in JSON, then the numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

MAX_HEADER_BYTES: Final = 16 << 20
MAX_TENSORS: Final = 1 << 16
MAX_RANK: Final = 8

_DTYPES: Final = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "F16": np.float16,
    "U32": np.uint32,
    "I32": np.int32,
    "F32": np.float32,
    "U64": np.uint64,
    "I64": np.int64,
    "F64": np.float64,
}
_METADATA = "__metadata__"
_NAMES: Final = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_ALIGNED = 8  # where the numbers begin


def load_tensors(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a safetensors file by name, each its own memory.

    Here and not by the package's reader, since that one holds all of them twice and aborts where memory ends.

    Raises:
        ValueError: it is no such file, or a tensor does not lie within it.
    Examples:
        >>> data = bundle.read("head.safetensors")
        >>> patchcut.bundle.tensors.load_tensors(data)["gcn.0.theta"].ndim
        2
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(MAX_HEADER_BYTES, len(data) - 8):
        raise ValueError("its header is not there, or too long")
    try:
        header = json.loads(data[8 : 8 + size])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its header is no JSON: {error}") from error
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise ValueError("its header names no tensors, or too many")
    numbers = memoryview(data)[8 + size :]
    return {name: _tensor(name, entry, numbers) for name, entry in header.items() if name != _METADATA}


def dump_tensors(tensors: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """A safetensors file of arrays: those of wider numbers come first, then by name, as in the package.

    Raises:
        ValueError: "x is of type complex64, which safetensors does not have".
    Examples:
        >>> data = patchcut.bundle.tensors.dump_tensors({"x": np.arange(3, dtype=np.int32)})
        >>> patchcut.bundle.tensors.load_tensors(data)["x"].tolist()
        [0, 1, 2]
    """
    header: dict[str, Any] = {}
    numbers, at = [], 0
    for name, array in sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])):
        if (dtype := _NAMES.get(array.dtype.newbyteorder("="))) is None:
            raise ValueError(f"{name} is of type {array.dtype}, which safetensors does not have")
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        offsets = [at, at + len(data)]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
        numbers.append(data)
        at = offsets[1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNED)
    return b"".join([len(text).to_bytes(8, "little"), text, *numbers])


def _tensor(name: str, entry: object, numbers: memoryview) -> npt.NDArray[Any]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} has no dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"{name} is of type {dtype!r}")
    if not _are_sizes(shape) or len(shape) > MAX_RANK or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{name} has the shape {shape!r} at {offsets!r}")
    begin, end = offsets
    item, count = np.dtype(_DTYPES[dtype]), math.prod(shape)
    if not begin <= end <= len(numbers) or end - begin != count * item.itemsize:
        raise ValueError(f"{name} of shape {shape} does not lie at {begin} to {end}")
    found: npt.NDArray[Any] = np.frombuffer(numbers[begin:end], item.newbyteorder("<")).reshape(shape)
    return found.astype(item)


def _are_sizes(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 62 for value in values)
