"""The bytes of an ONNX file by fields, to write it anew with some of them changed: a device has no `onnx`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from patchcut.bundle.onnx_messages import GraphError

_VARINT: Final = 0
_DELIMITED: Final = 2
_FIXED_BYTES: Final = {1: 8, 5: 4}


class Field(NamedTuple):
    """A field of a message: its number, all its bytes, and those of its value where it has a length."""

    number: int
    whole: memoryview
    value: memoryview


def fields_of(message: memoryview) -> Iterator[Field]:
    """The fields of a message in their order; nothing is copied.

    Raises:
        GraphError: the message is cut short.
    Examples:
        >>> fields = patchcut.bundle.onnx_fields.fields_of(memoryview(bytes([8, 150, 1])))
        >>> [(field.number, field.whole.nbytes) for field in fields]
        [(1, 3)]
    """
    position, end = 0, len(message)
    while position < end:
        begin = position
        key, position = _varint(message, position)
        wire, value = key & 7, message[:0]
        if wire == _DELIMITED:
            size, position = _varint(message, position)
            value = message[position : position + size]
            position += size
        elif wire == _VARINT:
            _, position = _varint(message, position)
        elif wire in _FIXED_BYTES:
            position += _FIXED_BYTES[wire]
        else:
            position = end + 1
        if position > end:
            raise GraphError("it is no ONNX graph, or is cut short")
        yield Field(key >> 3, message[begin:position], value)


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """A whole number, and where the next field begins."""
    value = shift = 0
    while position < len(message) and shift < 64:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise GraphError("it is no ONNX graph, or is cut short")


def head_of(number: int, length: int) -> bytes:
    """What stands before a value that has a length.

    Examples:
        >>> patchcut.bundle.onnx_fields.head_of(7, 300).hex()
        '3aac02'
    """
    head = bytearray()
    for value in (number << 3 | _DELIMITED, length):
        rest = value
        while rest > 0x7F:
            head.append(rest & 0x7F | 0x80)
            rest >>= 7
        head.append(rest)
    return bytes(head)
