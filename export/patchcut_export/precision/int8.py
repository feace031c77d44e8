"""8-bit graphs: linears in 8 bits, and a float graph that reads the same 8-bit weights."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from patchcut.engines.onnxruntime import import_onnxruntime

from patchcut_export.backbones.onnx_export import quiet_logger


def quantize_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with 8-bit linears: weights per output channel, activations per tensor at run time."""
    return _unsign_shared_weights(eight_bit_linears(model))


def eight_bit_linears(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with weights from -127 to 127 around 0 throughout; ONNX Runtime may fail to load it."""
    import_onnxruntime()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, quiet_logger("root"):
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
        quantized: onnx.ModelProto = onnx.load(target)
        return quantized


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
        tensors = [f"{tensor.name}_{suffix}" for suffix in ("quantized", "scale", "zero_point")]
        if not all(name in eight_bit for name in tensors):
            kept.append(tensor)
            continue
        kept.extend(eight_bit[name] for name in tensors)
        nodes.append(helper.make_node("DequantizeLinear", tensors, [tensor.name], axis=1))
    nodes.extend(result.graph.node)
    for field, items in ((result.graph.initializer, kept), (result.graph.node, nodes)):
        fresh = [type(item).FromString(item.SerializeToString()) for item in items]
        del field[:]
        field.extend(fresh)
    onnx.checker.check_model(result)
    return result
