"""Puts a graph's external weights into its bytes: not every engine takes them from memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from patchcut.bundle.message_fields import fields_of, head_of, text_of

# Numbers of fields in onnx.proto.
_MODEL_GRAPH: Final = 7
_GRAPH_INITIALIZER: Final = 5
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9


def inline_weights(graph: bytes, tensors: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """The graph with the numbers of these tensors in it, instead of the places in a file where they lie.

    Args:
        graph: the bytes of an ONNX file that `check_graph` takes.
        tensors: by name, with the shapes and types that the graph declares; more than it has is all right.
    Returns:
        The bytes of an ONNX file; its other tensors are as they were.
    Examples:
        >>> spec = bundle.spec.backbone
        >>> graph = bundle.read(spec.graphs[0].file)
        >>> whole = patchcut.bundle.graph_weights.inline_weights(graph, bundle.read_tensors(spec.weights))
        >>> len(whole) > 100 * len(graph)
        True
    """
    parts: list[bytes | memoryview] = []
    for field in fields_of(memoryview(graph)):
        if field.number != _MODEL_GRAPH:
            parts.append(field.whole)
            continue
        inner = _inlined(field.value, tensors)
        parts += [head_of(_MODEL_GRAPH, sum(map(len, inner))), *inner]
    return b"".join(parts)


def _inlined(graph: memoryview, tensors: Mapping[str, npt.NDArray[Any]]) -> list[bytes | memoryview]:
    parts: list[bytes | memoryview] = []
    for field in fields_of(graph):
        tensor = None
        if field.number == _GRAPH_INITIALIZER:
            tensor = tensors.get(text_of(field.value, _TENSOR_NAME))
        if tensor is None:
            parts.append(field.whole)
            continue
        content: list[bytes | memoryview] = [
            one.whole
            for one in fields_of(field.value)
            if one.number in (_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME)
        ]
        numbers = np.ascontiguousarray(tensor).tobytes()
        content += [head_of(_TENSOR_RAW, len(numbers)), numbers]
        parts += [head_of(_GRAPH_INITIALIZER, sum(map(len, content))), *content]
    return parts
