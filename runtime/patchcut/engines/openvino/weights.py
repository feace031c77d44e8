"""Puts a bundle's weights into the bytes of its graph: OpenVINO looks for them beside a file, of which there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_MODEL_GRAPH, _GRAPH_INITIALIZER = 7, 5
_TENSOR_NAME, _TENSOR_RAW_DATA, _TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 8, 9, 13, 14
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5


class _Field(NamedTuple):
    """One field of a message: its number, all of its bytes, and what they hold where it is delimited."""

    number: int
    whole: memoryview
    content: memoryview


def inline_weights(graph: bytes, tensors: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """An ONNX file whose external tensors hold their numbers themselves.

    Args:
        graph: bytes that `patchcut.bundle.graph_check.check_graph` has found right.
        tensors: the external tensors by name; what lies outside the graph and is not among them stays there.
    Returns:
        The same model; besides the weights nothing in it is copied more than once.
    """
    parts: list[bytes | memoryview] = []
    for field in _fields(memoryview(graph)):
        if field.number == _MODEL_GRAPH:
            inner = _graph_parts(field.content, tensors)
            parts += [_head(_MODEL_GRAPH, sum(map(len, inner))), *inner]
        else:
            parts.append(field.whole)
    return b"".join(parts)


def _graph_parts(
    graph: memoryview, tensors: Mapping[str, npt.NDArray[Any]]
) -> list[bytes | memoryview]:
    parts: list[bytes | memoryview] = []
    for field in _fields(graph):
        if field.number == _GRAPH_INITIALIZER:
            inner = _tensor_parts(field.content, tensors)
            parts += [_head(_GRAPH_INITIALIZER, sum(map(len, inner))), *inner]
        else:
            parts.append(field.whole)
    return parts


def _tensor_parts(
    tensor: memoryview, tensors: Mapping[str, npt.NDArray[Any]]
) -> list[bytes | memoryview]:
    fields = list(_fields(tensor))
    name = next((bytes(one.content).decode() for one in fields if one.number == _TENSOR_NAME), "")
    outside = any(one.number == _TENSOR_EXTERNAL_DATA for one in fields)
    if not outside or name not in tensors:
        return [tensor]
    array = np.ascontiguousarray(tensors[name])
    numbers = memoryview(array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8))
    where = (_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION)
    kept = [one.whole for one in fields if one.number not in where]
    return [*kept, _head(_TENSOR_RAW_DATA, len(numbers)), numbers]


def _fields(message: memoryview) -> Iterator[_Field]:
    position = 0
    while position < len(message):
        begin = position
        key, position = _varint(message, position)
        content, wire = message[:0], key & 7
        if wire == _DELIMITED:
            size, position = _varint(message, position)
            content, position = message[position : position + size], position + size
        elif wire == _VARINT:
            _, position = _varint(message, position)
        else:
            position += {_FIXED64: 8, _FIXED32: 4}[wire]
        yield _Field(key >> 3, message[begin:position], content)


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _head(number: int, size: int) -> bytes:
    """What stands before the content of a delimited field."""
    return _to_varint(number << 3 | _DELIMITED) + _to_varint(size)


def _to_varint(value: int) -> bytes:
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])
