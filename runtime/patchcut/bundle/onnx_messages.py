"""Reads the messages of an ONNX file: a device has no `onnx`, and a file by a stranger is looked at first.

Only what a plain graph needs is known. Everything else is refused: what an engine might understand and this
reader does not, such as a field of a newer ONNX, or the same field twice, which readers join differently.
"""

from __future__ import annotations

import struct
from typing import Any, Final, Literal, NamedTuple

MAX_TEXT_BYTES: Final = 1 << 16
# Numbers that are written one by one; weights lie in raw_data, as bytes.
MAX_NUMBERS: Final = 1 << 16

Kind = Literal["int", "float", "double", "text", "bytes", "message"]
Message = dict[str, Any]


class GraphError(ValueError):
    """A graph is no ONNX, or holds what a bundle's graphs may not."""


class _Field(NamedTuple):
    name: str
    kind: Kind
    repeated: bool = False
    message: str = ""


def _several(name: str, kind: Kind) -> _Field:
    return _Field(name, kind, repeated=True)


def _messages(name: str, message: str) -> _Field:
    return _Field(name, "message", True, message)


_METADATA = _messages("metadata_props", "StringStringEntry")
_DOC = _Field("doc_string", "text")

# onnx.proto, by message and number of the field.
_FIELDS: Final[dict[str, dict[int, _Field]]] = {
    "Model": {
        1: _Field("ir_version", "int"),
        2: _Field("producer_name", "text"),
        3: _Field("producer_version", "text"),
        4: _Field("domain", "text"),
        5: _Field("model_version", "int"),
        6: _DOC,
        7: _Field("graph", "message", message="Graph"),
        8: _messages("opset_import", "OperatorSetId"),
        14: _METADATA,
    },
    "OperatorSetId": {1: _Field("domain", "text"), 2: _Field("version", "int")},
    "StringStringEntry": {1: _Field("key", "text"), 2: _Field("value", "text")},
    "Graph": {
        1: _messages("node", "Node"),
        2: _Field("name", "text"),
        5: _messages("initializer", "Tensor"),
        10: _DOC,
        11: _messages("input", "ValueInfo"),
        12: _messages("output", "ValueInfo"),
        13: _messages("value_info", "ValueInfo"),
        14: _messages("quantization_annotation", "TensorAnnotation"),
        16: _METADATA,
    },
    "TensorAnnotation": {
        1: _Field("tensor_name", "text"),
        2: _messages("quant_parameter_tensor_names", "StringStringEntry"),
    },
    "Node": {
        1: _several("input", "text"),
        2: _several("output", "text"),
        3: _Field("name", "text"),
        4: _Field("op_type", "text"),
        5: _messages("attribute", "Attribute"),
        6: _DOC,
        7: _Field("domain", "text"),
        9: _METADATA,
    },
    "Attribute": {
        1: _Field("name", "text"),
        2: _Field("f", "float"),
        3: _Field("i", "int"),
        4: _Field("s", "bytes"),
        5: _Field("t", "message", message="Tensor"),
        7: _several("floats", "float"),
        8: _several("ints", "int"),
        9: _several("strings", "bytes"),
        13: _DOC,
        20: _Field("type", "int"),
    },
    "Tensor": {
        1: _several("dims", "int"),
        2: _Field("data_type", "int"),
        4: _several("float_data", "float"),
        5: _several("int32_data", "int"),
        7: _several("int64_data", "int"),
        8: _Field("name", "text"),
        9: _Field("raw_data", "bytes"),
        10: _several("double_data", "double"),
        11: _several("uint64_data", "int"),
        12: _DOC,
        13: _messages("external_data", "StringStringEntry"),
        14: _Field("data_location", "int"),
        16: _METADATA,
    },
    "ValueInfo": {
        1: _Field("name", "text"),
        2: _Field("type", "message", message="Type"),
        3: _DOC,
        4: _METADATA,
    },
    "Type": {1: _Field("tensor_type", "message", message="TensorType"), 6: _Field("denotation", "text")},
    "TensorType": {1: _Field("elem_type", "int"), 2: _Field("shape", "message", message="Shape")},
    "Shape": {1: _messages("dim", "Dimension")},
    "Dimension": {
        1: _Field("dim_value", "int"),
        2: _Field("dim_param", "text"),
        3: _Field("denotation", "text"),
    },
}
# What is refused on purpose, by its name.
_REFUSED: Final = {
    ("Model", 20): "training_info",
    ("Model", 25): "functions",
    ("Graph", 15): "sparse_initializer",
    ("Node", 8): "overload",
    ("Attribute", 6): "a subgraph",
    ("Attribute", 10): "tensors",
    ("Attribute", 11): "subgraphs",
    ("Attribute", 14): "a type",
    ("Attribute", 15): "types",
    ("Attribute", 21): "ref_attr_name",
    ("Attribute", 22): "a sparse tensor",
    ("Attribute", 23): "sparse tensors",
    ("Tensor", 3): "segment",
    ("Tensor", 6): "string_data",
    ("Type", 4): "a sequence",
    ("Type", 5): "a map",
    ("Type", 8): "a sparse tensor",
    ("Type", 9): "an optional",
}
_WIRES: Final = {"int": 0, "float": 5, "double": 1, "text": 2, "bytes": 2, "message": 2}
_FLOATS: Final = {"float": struct.Struct("<f"), "double": struct.Struct("<d")}
_LENGTH_DELIMITED = 2


def read_model(data: bytes) -> Message:
    """The fields of a ModelProto by name; fields that are missing are 0, "", None or an empty list.

    Raises:
        GraphError: it is no ONNX model, or has a field that a bundle's graphs may not have.
    Examples:
        >>> graph = bundle.spec.backbone.graphs[0]
        >>> patchcut.bundle.onnx_messages.read_model(bundle.read(graph.file))["graph"]["input"][0]["name"]
        'image'
    """
    return _read(data, 0, len(data), "Model")


def _read(data: bytes, position: int, end: int, message: str) -> Message:
    fields = _FIELDS[message]
    values: Message = {one.name: _missing(one) for one in fields.values()}
    seen = set()
    while position < end:
        key, position = _varint(data, position, end)
        number, wire = key >> 3, key & 7
        one = fields.get(number)
        if one is None:
            if (message, number) in _REFUSED:
                raise GraphError(f"its {message} has {_REFUSED[message, number]}")
            raise GraphError(f"it is no ONNX graph, or a newer one: its {message} has a field {number}")
        if number in seen and not one.repeated:
            raise GraphError(f"its {message} has {one.name} twice")
        seen.add(number)
        if wire == _LENGTH_DELIMITED:
            size, position = _varint(data, position, end)
            begin, position = position, position + size
            if position > end:
                raise GraphError(f"its {message} ends before {one.name} does")
            value = _delimited(data, begin, position, one)
        elif wire == _WIRES[one.kind]:
            value, position = _number(data, position, end, one.kind)
            value = [value] if one.repeated else value
        else:
            raise GraphError(f"its {message} has {one.name} of another type")
        if one.repeated:
            values[one.name] += value
            if len(values[one.name]) > MAX_NUMBERS:
                raise GraphError(f"its {message} has more than {MAX_NUMBERS:,} {one.name}")
        else:
            values[one.name] = value
    return values


def _missing(one: _Field) -> Any:
    if one.repeated:
        return []
    return {"int": 0, "float": 0.0, "double": 0.0, "text": "", "bytes": b"", "message": None}[one.kind]


def _delimited(data: bytes, begin: int, end: int, one: _Field) -> Any:
    """A text, bytes, a message, or packed numbers; in a list where the field is repeated."""
    if one.kind in ("int", "float", "double"):
        if not one.repeated:
            raise GraphError(f"its {one.name} is of another type")
        return _packed(data, begin, end, one)
    value: Any
    if one.kind == "message":
        value = _read(data, begin, end, one.message)
    elif one.kind == "bytes":
        value = data[begin:end]
    else:
        value = _text(data[begin:end], one.name)
    return [value] if one.repeated else value


def _text(data: bytes, name: str) -> str:
    if len(data) > MAX_TEXT_BYTES:
        raise GraphError(f"its {name} has {len(data):,} bytes, the limit is {MAX_TEXT_BYTES:,}")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise GraphError(f"its {name} is no UTF-8") from None


def _packed(data: bytes, begin: int, end: int, one: _Field) -> list[Any]:
    if end - begin > 10 * MAX_NUMBERS:
        raise GraphError(f"its {one.name} has more than {MAX_NUMBERS:,} numbers outside raw_data")
    numbers = []
    while begin < end:
        number, begin = _number(data, begin, end, one.kind)
        numbers.append(number)
    return numbers


def _number(data: bytes, position: int, end: int, kind: Kind) -> tuple[Any, int]:
    """A number, and where the next field begins."""
    if kind == "int":
        value, position = _varint(data, position, end)
        return (value - (1 << 64) if value >> 63 else value), position
    layout = _FLOATS[kind]
    if position + layout.size > end:
        raise GraphError("it ends within a number")
    return layout.unpack_from(data, position)[0], position + layout.size


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, position
        shift += 7
        if shift > 63:
            break
    raise GraphError("it is no ONNX graph, or is cut short")
