"""Graphs in bfloat16: the range of 32 bits with 8 bits of precision, for TensorRT and GPUs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from patchcut_export.precision.fp16 import KEPT, to_fp16

_HALF, _BRAIN, _FLOAT = TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT


def to_bf16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in bfloat16, but for operators that have none and those that fp16 keeps in float32.

    It has the casts of the fp16 graph, and the float32 weights rounded once.
    """
    version = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    without = {node.op_type for node in model.graph.node if not _has_bf16(node, version)}
    converted = to_fp16(model, without | set(KEPT))
    exact = {tensor.name: tensor for tensor in model.graph.initializer}
    for tensor in converted.graph.initializer:
        if tensor.data_type == _HALF:
            source = numpy_helper.to_array(exact.get(tensor.name, tensor)).astype(np.float32)
            rounded = source.astype(helper.tensor_dtype_to_np_dtype(_BRAIN))
            tensor.CopyFrom(
                helper.make_tensor(tensor.name, _BRAIN, source.shape, rounded.tobytes(), raw=True)
            )
    for value in [*converted.graph.value_info, *converted.graph.input, *converted.graph.output]:
        if value.type.tensor_type.elem_type == _HALF:
            value.type.tensor_type.elem_type = _BRAIN
    for node in converted.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == _HALF:
                attribute.i = _BRAIN
    onnx.checker.check_model(converted, full_check=True)
    return converted


def rounded_to_bf16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph that gives a bfloat16 graph's features on CPUs whose ONNX Runtime has no bfloat16.

    Every output of an operator in bfloat16 is computed in float32 and rounded, as hardware does that sums
    in float32.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    brain = {value.name for value in result.graph.value_info if value.type.tensor_type.elem_type == _BRAIN}
    for tensor in result.graph.initializer:
        if tensor.data_type == _BRAIN:
            array = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    nodes = []
    for node in result.graph.node:
        casts = [one for one in node.attribute if one.name == "to" and one.i == _BRAIN]
        for cast in casts:
            cast.i = _FLOAT
        nodes.append(node)
        for i, name in enumerate(node.output):
            if name in brain or casts:
                node.output[i] = f"{name}_exact"
                nodes.append(helper.make_node("Cast", [f"{name}_exact"], [f"{name}_bf16"], to=_BRAIN))
                nodes.append(helper.make_node("Cast", [f"{name}_bf16"], [name], to=_FLOAT))
    fresh = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del result.graph.node[:], result.graph.value_info[:]
    result.graph.node.extend(fresh)
    onnx.checker.check_model(result, full_check=True)
    return result


def _has_bf16(node: onnx.NodeProto, version: int) -> bool:
    """Whether the operator can be computed in bfloat16, or does not compute in floats."""
    schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    floats = [one for one in schema.type_constraints if "tensor(float)" in one.allowed_type_strs]
    return not floats or any("tensor(bfloat16)" in one.allowed_type_strs for one in floats)
