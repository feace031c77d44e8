"""Puts the bundle's weights into the bytes of a graph, for engines that know them from files only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from patchcut.bundle.onnx_fields import fields_of, head_of

# Numbers of fields in onnx.proto.
_MODEL_GRAPH: Final = 7
_INITIALIZER: Final = 5
_NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 8, 9, 13, 14


def inline_weights(graph: bytes, tensors: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """An ONNX file that holds its external tensors itself.

    Args:
        graph: the bytes of an ONNX file that `check_graph` takes.
        tensors: all of its external tensors by name; they are copied once.
    Examples:
        >>> backbone = bundle.spec.backbone
        >>> data, tensors = bundle.read(backbone.graphs[0].file), bundle.read_tensors(backbone.weights)
        >>> whole = patchcut.bundle.graph_weights.inline_weights(data, tensors)
        >>> patchcut.bundle.graph_check.check_graph(whole, (), None)
    """
    parts: list[bytes | memoryview] = []
    for field in fields_of(memoryview(graph)):
        if field.number == _MODEL_GRAPH:
            parts += _with_head(_MODEL_GRAPH, _graph_parts(field.value, tensors))
        else:
            parts.append(field.whole)
    return b"".join(parts)


def _graph_parts(graph: memoryview, tensors: Mapping[str, npt.NDArray[Any]]) -> list[bytes | memoryview]:
    parts: list[bytes | memoryview] = []
    for field in fields_of(graph):
        if field.number == _INITIALIZER:
            parts += _with_head(_INITIALIZER, _tensor_parts(field.value, tensors))
        else:
            parts.append(field.whole)
    return parts


def _tensor_parts(tensor: memoryview, tensors: Mapping[str, npt.NDArray[Any]]) -> list[bytes | memoryview]:
    fields = list(fields_of(tensor))
    if all(field.number != _EXTERNAL_DATA for field in fields):
        return [tensor]
    name = next(str(field.value, "utf-8") for field in fields if field.number == _NAME)
    array = np.ascontiguousarray(tensors[name])
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    numbers = memoryview(little.reshape(-1).view(np.uint8).data)
    kept = [field.whole for field in fields if field.number not in (_EXTERNAL_DATA, _DATA_LOCATION)]
    return [*kept, head_of(_RAW_DATA, len(numbers)), numbers]


def _with_head(number: int, parts: list[bytes | memoryview]) -> list[bytes | memoryview]:
    return [head_of(number, sum(map(len, parts))), *parts]
