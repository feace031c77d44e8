"""Tensors of the Open Inference Protocol (KServe V2): in JSON, or as bytes behind it."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut_server.refusals import bad_request

LENGTH_HEADER = "Inference-Header-Content-Length"
_DTYPES: dict[str, Any] = {
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP32": np.float32,
}
_MOST_AXES = 8
_MOST_SIDE = 1 << 31
# Values of one output in JSON, each of which takes tens of bytes while it is written.
MOST_IN_JSON = 1 << 22

Tensor = npt.NDArray[Any] | list[bytes]  # a tensor BYTES is a list


@dataclass(frozen=True)
class Asked:
    """What a request asks for.

    Attributes:
        id: the caller's, given back.
        parameters: of the request.
        inputs: by their names; a tensor BYTES is a list.
        outputs: names, and whether each is wanted as bytes; in their order.
    """

    id: str
    parameters: dict[str, Any]
    inputs: dict[str, Tensor]
    outputs: dict[str, bool] = field(default_factory=dict)


def read_request(body: bytes, header_length: str | None, known: Sequence[str]) -> Asked:
    """The request of an infer's body.

    Args:
        body: JSON, and behind it the tensors that have `binary_data_size`.
        header_length: of the JSON in bytes, as the header `Inference-Header-Content-Length` says; None where
            all is JSON.
        known: names of the outputs there are; all of them are given where none is asked for.
    Raises:
        Refusal: 400, one line that names what is wrong.
    Examples:
        >>> x = b'{"name": "x", "shape": [2], "datatype": "INT32", "data": [1, 2]}'
        >>> asked = read_request(b'{"inputs": [' + x + b"]}", None, ["y"])
        >>> asked.inputs["x"].tolist(), asked.outputs
        ([1, 2], {'y': False})
    """
    head, tail = _split(body, header_length)
    try:
        said = json.loads(head)
    except (ValueError, RecursionError) as error:
        raise bad_request("body", f"is no JSON: {_first_line(error)}") from error
    if not isinstance(said, dict):
        raise bad_request("body", "must be a JSON object with inputs")
    parameters = _mapping(said.get("parameters", {}), "parameters")
    given = said.get("inputs")
    if not isinstance(given, list) or not 1 <= len(given) <= 16:
        raise bad_request("inputs", "must be a list of 1 to 16 tensors")
    inputs: dict[str, Tensor] = {}
    for one in given:
        name, tensor, tail = _input(_mapping(one, "inputs"), tail)
        if name in inputs:
            raise bad_request("inputs", f"has {name[:60]!r} twice")
        inputs[name] = tensor
    if tail:
        raise bad_request("body", f"has {len(tail)} bytes more than its inputs say")
    identity = said.get("id", "")
    if not isinstance(identity, str) or len(identity) > 256:
        raise bad_request("id", "must be a text of at most 256 letters")
    return Asked(identity, parameters, inputs, _outputs(said, parameters, known))


def write_response(
    head: Mapping[str, Any],
    outputs: Mapping[str, tuple[str, Tensor]],
    binary: Mapping[str, bool],
) -> tuple[bytes, int | None]:
    """The body of an infer's answer, and the length of its JSON where bytes follow it.

    Args:
        head: what the JSON says besides.
        outputs: datatype and tensor of each; a list is BYTES.
        binary: the names that are wanted, in this order, and whether as bytes.
    Raises:
        Refusal: 400, an output is too large for JSON.
    Examples:
        >>> body, length = write_response({}, {"y": ("INT32", np.int32([1]))}, {"y": True})
        >>> body[length:]
        b'\\x01\\x00\\x00\\x00'
    """
    told, tails = [], []
    for name, as_bytes in binary.items():
        datatype, tensor = outputs[name]
        shape = [len(tensor)] if isinstance(tensor, list) else list(tensor.shape)
        one: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
        if as_bytes:
            data = _as_bytes(tensor)
            one["parameters"] = {"binary_data_size": len(data)}
            tails.append(data)
        elif isinstance(tensor, list):
            one["data"] = [text.decode() for text in tensor]
        elif tensor.size > MOST_IN_JSON:
            what = f"has {tensor.size} values, more than JSON is made of here ({MOST_IN_JSON})"
            raise bad_request(f"output {name}", what, "ask for it as binary data, or leave it out")
        else:
            one["data"] = tensor.ravel().tolist()
        told.append(one)
    said = json.dumps({**head, "outputs": told}).encode()
    return b"".join([said, *tails]), len(said) if tails else None


def _split(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    if header_length is None:
        return body, memoryview(b"")
    length = (
        int(header_length)
        if header_length.isascii() and header_length.isdigit() and len(header_length) < 12
        else -1
    )
    if not 0 <= length <= len(body):
        what = f"must be a number of bytes of the body, which has {len(body)}, got {header_length[:60]!r}"
        raise bad_request(LENGTH_HEADER, what)
    return body[:length], memoryview(body)[length:]


def _input(one: dict[str, Any], tail: memoryview) -> tuple[str, Tensor, memoryview]:
    """Name and tensor of an input, and what is left of the bytes."""
    name, datatype = one.get("name"), one.get("datatype")
    if not isinstance(name, str) or not name:
        raise bad_request("inputs", "must have a name each")
    where = f"input {name[:60]}"
    if datatype not in (*_DTYPES, "BYTES"):
        raise bad_request(where, f"must be of {', '.join((*_DTYPES, 'BYTES'))}, got {str(datatype)[:60]!r}")
    shape = _shape(one.get("shape"), where)
    count = math.prod(shape)
    size = _mapping(one.get("parameters", {}), where).get("binary_data_size")
    if size is None:
        return name, _of_json(one.get("data"), datatype, shape, count, where), tail
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(tail):
        raise bad_request(where, f"has binary_data_size {str(size)[:60]}, and {len(tail)} bytes are left")
    data, tail = tail[:size], tail[size:]
    if datatype == "BYTES":
        return name, _texts(bytes(data), count, where), tail
    dtype = np.dtype(_DTYPES[datatype])
    if size != count * dtype.itemsize:
        raise bad_request(where, f"of shape {shape} takes {count * dtype.itemsize} bytes, got {size}")
    return name, np.frombuffer(data, dtype).reshape(shape), tail


def _shape(shape: object, where: str) -> list[int]:
    told = shape if isinstance(shape, list) else [None]
    sides = [side for side in told if isinstance(side, int) and not isinstance(side, bool)]
    if len(sides) != len(told) or len(sides) > _MOST_AXES:
        raise bad_request(where, f"must have a shape of at most {_MOST_AXES} whole numbers")
    if not all(0 <= side < _MOST_SIDE for side in sides) or math.prod(sides) >= _MOST_SIDE:
        raise bad_request(where, "has a shape that is negative or too large")
    return sides


def _of_json(data: object, datatype: str, shape: list[int], count: int, where: str) -> Tensor:
    flat = _flat(data, where)
    if len(flat) != count:
        raise bad_request(where, f"of shape {shape} has {count} values, got {len(flat)}")
    if datatype == "BYTES":
        if not all(isinstance(text, str) for text in flat):
            raise bad_request(
                where, "of BYTES must be texts in JSON; send pictures with the binary extension"
            )
        return [text.encode("utf-8", "surrogatepass") for text in flat]
    dtype = np.dtype(_DTYPES[datatype])
    kinds = (int, float) if dtype.kind == "f" else (int,)
    if not all(isinstance(value, kinds) and not isinstance(value, bool) for value in flat):
        raise bad_request(where, f"of {datatype} holds what is no such number")
    try:
        return np.array(flat, dtype).reshape(shape)
    except (OverflowError, ValueError) as error:
        raise bad_request(where, f"of {datatype} holds a number that is too large") from error


def _flat(data: object, where: str) -> list[Any]:
    """The values of nested lists, in order."""
    if not isinstance(data, list):
        raise bad_request(where, "has no data: a list, or bytes of binary_data_size")
    level: list[Any] = data
    while level and all(isinstance(one, list) for one in level):
        level = [value for one in level for value in one]
    return level


def _texts(data: bytes, count: int, where: str) -> list[bytes]:
    """The elements of a tensor BYTES: each after its length in four bytes."""
    found: list[bytes] = []
    at = 0
    while at + 4 <= len(data) and len(found) < count:
        (length,) = struct.unpack_from("<I", data, at)
        if at + 4 + length > len(data):
            break
        found.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    if len(found) != count or at != len(data):
        raise bad_request(where, f"of BYTES must be {count} elements with their lengths, got {len(found)}")
    return found


def _as_bytes(tensor: Tensor) -> bytes:
    if isinstance(tensor, list):
        return b"".join(struct.pack("<I", len(text)) + text for text in tensor)
    return np.ascontiguousarray(tensor).tobytes()


def _outputs(said: dict[str, Any], parameters: dict[str, Any], known: Sequence[str]) -> dict[str, bool]:
    as_bytes = parameters.get("binary_data_output", False) is True
    given = said.get("outputs") or [{"name": name} for name in known]
    if not isinstance(given, list) or len(given) > 64:
        raise bad_request("outputs", "must be a list of at most 64")
    wanted = {}
    for one in given:
        output = _mapping(one, "outputs")
        name = output.get("name")
        if not isinstance(name, str) or name not in known:
            raise bad_request("outputs", f"must be of {', '.join(known)}, got {str(name)[:60]!r}")
        wanted[name] = _mapping(output.get("parameters", {}), "outputs").get("binary_data", as_bytes) is True
    return wanted


def _mapping(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise bad_request(where, "must be a JSON object")
    return value


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]
