"""The backbone alone in ONNX Runtime, with default options: only the number of threads is set."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from patchcut.bundle import open_bundle
from patchcut.engines.onnxruntime import import_onnxruntime


def open_float(bundle: Path, size: int, threads: int) -> Any:
    """A session of the bundle's float graph of one size, with every weight stored as float32.

    Left as it is, the graph's DequantizeLinear nodes make ONNX Runtime run 8-bit weights in other kernels
    (MatMulNBits), so they are computed here: what remains is the graph that a float export gives.
    """
    return _open(fold_weights(load_graph(bundle, size, "fp32")), threads)


def open_same(bundle: Path, size: int, precision: str, threads: int) -> Any:
    """A session of the very graph that patchcut runs."""
    return _open(load_graph(bundle, size, precision), threads)


def load_graph(bundle: Path, size: int, precision: str) -> onnx.ModelProto:
    """The bundle's graph of a size and precision, with its weights inside."""
    with open_bundle(bundle) as opened, tempfile.TemporaryDirectory() as folder:
        backbone = opened.spec.backbone
        wanted = ((size, size), precision)
        graph = next(g for g in backbone.graphs if (g.size_hw, g.precision) == wanted)
        for name in (graph.file, *([backbone.weights] if backbone.weights else [])):
            (Path(folder) / name).write_bytes(opened.read(name))
        return onnx.load(str(Path(folder) / graph.file))


def _open(model: onnx.ModelProto, threads: int) -> Any:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def fold_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` whose constant DequantizeLinear nodes are float32 initializers."""
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in folded.graph.initializer}
    nodes = []
    for node in folded.graph.node:
        if node.op_type == "DequantizeLinear" and all(name in constants for name in node.input):
            parts = [numpy_helper.to_array(constants[name]) for name in node.input]
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
            folded.graph.initializer.append(numpy_helper.from_array(_dequantize(parts, axis), node.output[0]))
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in folded.graph.initializer if tensor.name in used]
    _replace(folded.graph.node, nodes)
    _replace(folded.graph.initializer, kept)
    return folded


def _dequantize(parts: list[npt.NDArray[Any]], axis: int) -> npt.NDArray[np.float32]:
    values, scale, *zero_point = (part.astype(np.float32) for part in parts)
    shape = [1] * values.ndim
    if scale.ndim:
        shape[axis] = -1
    shift = zero_point[0].reshape(shape) if zero_point else np.float32(0)
    floats: npt.NDArray[np.float32] = (values - shift) * scale.reshape(shape)
    return floats


def _replace(target: Any, items: list[Any]) -> None:
    fresh = [type(item).FromString(item.SerializeToString()) for item in items]
    del target[:]
    target.extend(fresh)
