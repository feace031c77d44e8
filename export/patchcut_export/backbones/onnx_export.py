"""Backbone graphs in ONNX: float, with dynamic 8-bit linears, and with 8-bit weights but float arithmetic."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from patchcut_export.backbones.vit import FeatureExtractor
from patchcut_export.errors import ExportError

OPSET = 20
# Name of a graph's features among its outputs.
OUTPUT = "features"
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


def export_fp32(extractor: FeatureExtractor, image_size: int) -> onnx.ModelProto:
    """The extractor's graph: `image` [batch, 3, S, S] float32 → `features` [batch, n, d] float32."""
    import onnxslim

    example = torch.zeros(2, 3, image_size, image_size)
    with warnings.catch_warnings(), _quiet("torch.onnx"):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            extractor,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    if program is None:
        raise ExportError("export", "torch.onnx.export gave no program", "try another version of torch")
    model: onnx.ModelProto = onnxslim.slim(program.model_proto)
    return _name_linear_weights(model)


def quantize_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with 8-bit linears: weights per output channel, activations per tensor at run time."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, _quiet("root"):
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return _unsign_shared_weights(onnx.load(target))


def _unsign_shared_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same linears, the 8-bit weights that several of them share moved from -128..127 to 0..255.

    Where products of u8 and s8 would saturate, ONNX Runtime moves weights so itself, but it fails at the
    second linear of the same weights.
    """
    linears = [node for node in model.graph.node if node.op_type == "MatMulInteger"]
    uses = Counter(node.input[1] for node in linears)
    shared = {name for node in linears if uses[node.input[1]] > 1 for name in (node.input[1], node.input[3])}
    for tensor in model.graph.initializer:
        if tensor.name in shared and tensor.data_type == TensorProto.INT8:
            moved = numpy_helper.to_array(tensor).astype(np.int16) + 128
            tensor.CopyFrom(numpy_helper.from_array(moved.astype(np.uint8), tensor.name))
    return model


def dequantize_weights(model: onnx.ModelProto, quantized: onnx.ModelProto) -> onnx.ModelProto:
    """The float graph `model` on the 8-bit weights of `quantized`, turned into floats when it is loaded."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    eight_bit = {t.name: t for t in quantized.graph.initializer}
    kept, nodes = [], []
    for tensor in result.graph.initializer:
        parts = [f"{tensor.name}_{suffix}" for suffix in ("quantized", "scale", "zero_point")]
        if not all(part in eight_bit for part in parts):
            kept.append(tensor)
            continue
        kept.extend(eight_bit[part] for part in parts)
        nodes.append(helper.make_node("DequantizeLinear", parts, [tensor.name], axis=1))
    nodes.extend(result.graph.node)
    for field, items in ((result.graph.initializer, kept), (result.graph.node, nodes)):
        fresh = [type(item).FromString(item.SerializeToString()) for item in items]
        del field[:]
        field.extend(fresh)
    onnx.checker.check_model(result)
    return result


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
            if array.nbytes < _SHARED_BYTES:
                continue
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
    told: set[str] = set()
    for old, new in renamed.items():
        if new in told:
            model.graph.initializer.remove(anonymous[old])
        anonymous[old].name = new
        told.add(new)
    for node in model.graph.node:
        for i, source in enumerate(node.input):
            node.input[i] = renamed.get(source, source)
    return model


class _quiet:
    """Raises a logger's level to ERROR for the length of a block: exporters report every node they skip."""

    def __init__(self, logger: str) -> None:
        self.logger = logging.getLogger(logger)

    def __enter__(self) -> None:
        self.level = self.logger.level
        self.logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self.logger.setLevel(self.level)
