"""Backbone graphs in ONNX, and the weights that several of them share."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper

from patchcut_export.backbones.vit import Extracting
from patchcut_export.errors import ExportError

OPSET = 20
# Initializers smaller than this stay inside their graph; the rest are shared by all graphs of a bundle.
_SHARED_BYTES = 1024


@dataclass(frozen=True)
class SharedGraphs:
    """Graphs without their large initializers, and those initializers, each once.

    Attributes:
        graphs: name of the graph → its proto; shared initializers are declared as external data.
        initializers: name of the graph → the shared initializers that it uses.
        weights: name → array.
    """

    graphs: dict[str, onnx.ModelProto]
    initializers: dict[str, list[str]]
    weights: dict[str, np.ndarray]


def export_fp32(extractor: Extracting, image_size: int) -> onnx.ModelProto:
    """The extractor's graph: `image` [batch, 3, S, S] float32 → each feature set, under its name."""
    example = torch.zeros(2, 3, image_size, image_size)
    return export_graph(extractor, example, "image", list(extractor.spec.features))


def export_graph(
    module: torch.nn.Module, example: torch.Tensor, source: str, outputs: list[str]
) -> onnx.ModelProto:
    """The graph of a module with one input.

    Args:
        module: in evaluation mode.
        example: [2, ...], an input; its first axis is free in the graph.
        source: name of the input.
        outputs: names of the outputs.
    """
    import onnxslim

    with warnings.catch_warnings(), quiet_logger("torch.onnx"):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[source],
            output_names=outputs,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    if program is None:
        raise ExportError("export", "torch.onnx.export gave no program", "try another version of torch")
    model: onnx.ModelProto = onnxslim.slim(program.model_proto)
    return _name_linear_weights(model)


def share_weights(models: dict[str, onnx.ModelProto], location: str) -> SharedGraphs:
    """Moves the large initializers of several graphs into one set; equal ones are stored once.

    Args:
        models: name of the graph → its proto, changed in place.
        location: the file name that the graphs' external data will point to; `set_offsets` completes it.
    """
    weights: dict[str, np.ndarray] = {}
    used: dict[str, list[str]] = {}
    for name, model in models.items():
        renamed = {}
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.nbytes < _SHARED_BYTES or tensor.data_type == TensorProto.BFLOAT16:
                continue  # numpy, with which the runtime reads weights, has no bfloat16
            shared = _shared_name(tensor.name, array, weights)
            weights[shared] = array
            renamed[tensor.name] = shared
            # made anew: the data may lie in any of several fields, such as raw_data and float_data
            tensor.CopyFrom(
                TensorProto(
                    name=shared,
                    data_type=tensor.data_type,
                    dims=tensor.dims,
                    data_location=TensorProto.EXTERNAL,
                )
            )
            tensor.external_data.add(key="location", value=location)
        for node in model.graph.node:
            for i, source in enumerate(node.input):
                node.input[i] = renamed.get(source, source)
        used[name] = sorted(renamed.values())
    return SharedGraphs(models, used, weights)


def set_offsets(models: Iterable[onnx.ModelProto], extents: dict[str, tuple[int, int]]) -> None:
    """Writes each external initializer's (offset, length) in bytes into the graphs."""
    for model in models:
        for tensor in model.graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL:
                offset, length = extents[tensor.name]
                tensor.external_data.add(key="offset", value=str(offset))
                tensor.external_data.add(key="length", value=str(length))


def graph_bytes(model: onnx.ModelProto, about: str = "") -> bytes:
    """A graph's bytes, with a text about it, and without what the exporter tells of the machine it ran on."""
    clean = onnx.ModelProto()
    clean.CopyFrom(model)
    clean.doc_string = about
    for node in clean.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in [*clean.graph.value_info, *clean.graph.input, *clean.graph.output, *clean.graph.initializer]:
        del value.metadata_props[:]
    del clean.graph.metadata_props[:]
    del clean.metadata_props[:]
    serialized: bytes = clean.SerializeToString(deterministic=True)
    return serialized


def _shared_name(name: str, array: np.ndarray, weights: dict[str, np.ndarray]) -> str:
    """`name`, or `name.1`, … where that is another array already (the position embedding of another size)."""
    candidate, i = name, 0
    while candidate in weights and not _same(weights[candidate], array):
        i += 1
        candidate = f"{name}.{i}"
    return candidate


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _name_linear_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Names the exporter's anonymous MatMul weights `linear.<i>` by graph order, whatever the image size.

    A linear that runs at several scales has one weight, which the exporter transposes for each.
    """
    anonymous = {t.name: t for t in model.graph.initializer}
    renamed: dict[str, str] = {}
    names: dict[bytes, str] = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in anonymous and node.input[1] not in renamed:
            array = numpy_helper.to_array(anonymous[node.input[1]])
            content = repr((array.dtype, array.shape)).encode() + array.tobytes()
            renamed[node.input[1]] = names.setdefault(content, f"linear.{len(names)}")
    kept: set[str] = set()
    for old, new in renamed.items():
        if new in kept:
            model.graph.initializer.remove(anonymous[old])
        anonymous[old].name = new
        kept.add(new)
    for node in model.graph.node:
        for i, source in enumerate(node.input):
            node.input[i] = renamed.get(source, source)
    return model


@contextmanager
def quiet_logger(name: str) -> Iterator[None]:
    """Raises a logger's level to ERROR for the length of a block: exporters report every node they skip."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
