"""8-bit graphs: linears in 8 bits, and a float graph that reads the same 8-bit weights."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
from onnx import helper

from patchcut_export.backbones.onnx_export import quiet_logger


def quantize_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with 8-bit linears: weights per output channel, activations per tensor at run time."""
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
        return onnx.load(target)


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
