"""Cuts out of a graph, in its bytes, what only outputs need that nobody asks for: a device has no `onnx`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from patchcut.bundle.onnx_fields import Field, fields_of, head_of
from patchcut.bundle.onnx_messages import GraphError

# Numbers of fields in onnx.proto.
_MODEL_GRAPH: Final = 7
_NODE, _INITIALIZER, _OUTPUT, _VALUE_INFO = 1, 5, 12, 13
_NODE_INPUT, _NODE_OUTPUT, _TENSOR_NAME, _VALUE_NAME = 1, 2, 8, 1


def keep_outputs(graph: bytes, outputs: Collection[str]) -> tuple[bytes, frozenset[str]]:
    """A graph that makes no other outputs, without the nodes and tensors that only the others need.

    Engines compute whatever a graph holds: of the last blocks of a ViT, whose middle was asked for, too.

    Args:
        graph: the bytes of an ONNX file that `check_graph` takes.
        outputs: names of the outputs to keep.
    Returns:
        The bytes, `graph` itself where it makes no others, and the names of its initializers.
    Raises:
        GraphError: it has no such output.
    Examples:
        >>> data = bundle.read(bundle.spec.backbone.graphs[0].file)
        >>> kept, names = patchcut.bundle.graph_outputs.keep_outputs(
        ...     data, [bundle.spec.backbone.default_features.output])
        >>> len(kept) <= len(data), len(names) > 100
        (True, True)
    """
    model = list(fields_of(memoryview(graph)))
    inner = next((field.value for field in model if field.number == _MODEL_GRAPH), memoryview(b""))
    fields = list(fields_of(inner))
    made = {_text(field.value, _VALUE_NAME) for field in fields if field.number == _OUTPUT}
    if missing := sorted(set(outputs) - made):
        raise GraphError(f"it has no output {missing[0]}, but {', '.join(sorted(made))}")
    if made == set(outputs):
        names = (_text(field.value, _TENSOR_NAME) for field in fields if field.number == _INITIALIZER)
        return graph, frozenset(names)
    kept, initializers = _needed(fields, outputs)
    content = b"".join(field.whole for field in kept)
    parts = [
        head_of(_MODEL_GRAPH, len(content)) + content if field.number == _MODEL_GRAPH else field.whole
        for field in model
    ]
    return b"".join(parts), initializers


def _needed(fields: list[Field], outputs: Collection[str]) -> tuple[list[Field], frozenset[str]]:
    """A graph's fields that its outputs need, in their order, and the names of the initializers among them.

    Nodes stand in the order in which they run, so that one look from the last to the first finds them.
    """
    needed = set(outputs)
    nodes = set()
    for i in range(len(fields) - 1, -1, -1):
        if fields[i].number == _NODE and not needed.isdisjoint(_texts(fields[i].value, _NODE_OUTPUT)):
            nodes.add(i)
            needed.update(_texts(fields[i].value, _NODE_INPUT))
    needed.discard("")  # an input that is left out
    initializers = set()
    kept = []
    for i, field in enumerate(fields):
        if field.number == _INITIALIZER:
            if (name := _text(field.value, _TENSOR_NAME)) not in needed:
                continue
            initializers.add(name)
        elif field.number == _NODE:
            if i not in nodes:
                continue
        elif field.number == _OUTPUT:
            if _text(field.value, _VALUE_NAME) not in outputs:
                continue
        elif field.number == _VALUE_INFO and _text(field.value, _VALUE_NAME) not in needed:
            continue
        kept.append(field)
    return kept, frozenset(initializers)


def _texts(message: memoryview, number: int) -> list[str]:
    return [str(field.value, "utf-8") for field in fields_of(message) if field.number == number]


def _text(message: memoryview, number: int) -> str:
    return next((str(field.value, "utf-8") for field in fields_of(message) if field.number == number), "")
