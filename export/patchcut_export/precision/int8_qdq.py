"""Static 8-bit graphs in QuantizeLinear and DequantizeLinear, which OpenVINO and TensorRT both read.

All zero points are 0. The weights are those of the dynamic int8 graph byte for byte, so that a bundle holds
them once; that is why nothing that changes weights, such as SmoothQuant, is done. Activations are rounded by
the mean of their largest magnitudes in the calibration images, as NNCF finds them.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from patchcut import telemetry
from patchcut.engines.onnxruntime import import_onnxruntime
from patchcut.errors import OptionError, install_hint
from patchcut_kernels import default_threads

from patchcut_export.errors import ExportError
from patchcut_export.precision.int8 import dequantize_weights, eight_bit_linears

# What a linear may cost alone, in mean cosine of the features, and the share of linears that stay in floats
# where it costs more. Of the embedded ViT's 45 these are five: of its first blocks, whose activations reach
# 150 times their root mean square, and of the last, whose errors nothing averages: on ten
# photos 0.9968 → 0.9987.
_TOLERATED = 1e-4
_MOST_LEFT_OUT = 1 / 8
_TRIED_IMAGES = 2

Images = Sequence[npt.NDArray[np.float32]]
_Flags = dict[str, npt.NDArray[np.bool_]]


def quantize_int8_qdq(exact: onnx.ModelProto, calibration: Images) -> onnx.ModelProto:
    """The graph with linears of 8-bit weights and activations, those that cost too much left in floats.

    Args:
        exact: a float graph; it is not changed.
        calibration: images [1, 3, S, S] float32, as the graph takes them.
    Raises:
        OptionError: there are no images.
        ExportError: NNCF is not installed, or found no linears.
    """
    if not calibration:
        raise OptionError("calibrate", "int8-qdq needs photos to be fitted to", "pass --calibrate DIR")
    eight_bit = eight_bit_linears(exact)
    base = dequantize_weights(exact, eight_bit)
    scales = _scales(exact, _linears(base), calibration)
    costs = _costs(base, scales, calibration[:_TRIED_IMAGES])
    dear = sorted((name for name in costs if costs[name] > _TOLERATED), key=costs.__getitem__, reverse=True)
    left_out = dear[: int(len(costs) * _MOST_LEFT_OUT)]
    model = _with_rounding(base, {name: one for name, one in scales.items() if name not in left_out})
    onnx.checker.check_model(model, full_check=True)
    return model


def _linears(base: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The linears whose weights are in 8 bits."""
    weights = {node.output[0] for node in base.graph.node if node.op_type == "DequantizeLinear"}
    return [node for node in base.graph.node if node.op_type == "MatMul" and node.input[1] in weights]


def _scales(
    exact: onnx.ModelProto, linears: Sequence[onnx.NodeProto], calibration: Images
) -> dict[str, np.float32]:
    """Steps of the activations that go into linears, by the linear's output."""
    named = onnx.ModelProto()
    named.CopyFrom(exact)
    outputs = {node.output[0] for node in linears}
    for i, node in enumerate(named.graph.node):
        node.name = f"node.{i}"
    others = [node.name for node in named.graph.node if node.output[0] not in outputs]
    quantized = _run_nncf(named, others, calibration)
    made = {name: node for node in quantized.graph.node for name in node.output}
    tensors = {tensor.name: tensor for tensor in quantized.graph.initializer}
    scales = {}
    for output in outputs:
        rounded = made[made[output].input[0]] if output in made and made[output].input[0] in made else None
        if rounded is not None and rounded.op_type == "DequantizeLinear":
            step, zero_point = (numpy_helper.to_array(tensors[name]) for name in rounded.input[1:])
            # what is never below 0 NNCF rounds to 0..255, which TensorRT does not take
            factor = np.float32(255 / 127 if zero_point.dtype == np.uint8 else 1)
            scales[output] = np.float32(step.reshape(())) * factor
    if not scales:
        raise ExportError("calibrate", "nncf found no linears to round", "export another precision")
    return scales


def import_nncf() -> Any:
    """The module `nncf`, which then tells its maker nothing and writes no identifier of the machine.

    Raises:
        ExportError: it is not installed; names the extra.
    """
    with telemetry.kept_out("openvino_telemetry"):  # it does without, where that is not installed
        try:
            return import_module("nncf")
        except ImportError as error:
            what = f"nncf cannot be imported: {error}"
            raise ExportError("calibrate", what, install_hint("export")) from error


def _run_nncf(model: onnx.ModelProto, ignored: list[str], calibration: Images) -> onnx.ModelProto:
    """NNCF's own graph."""
    nncf, advanced = import_nncf(), import_module("nncf.quantization.advanced_parameters")
    parameters = advanced.AdvancedQuantizationParameters(
        activations_quantization_params=advanced.QuantizationParameters(mode="symmetric"),
        smooth_quant_alphas=advanced.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1),
        disable_bias_correction=True,
    )
    with _quiet():
        quantized: onnx.ModelProto = nncf.quantize(
            model,
            nncf.Dataset(calibration, lambda image: {"image": image}),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(calibration),
            ignored_scope=nncf.IgnoredScope(names=ignored),
            advanced_parameters=parameters,
        )
    return quantized


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on the terminal but what we say: NNCF draws bars there."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _costs(base: onnx.ModelProto, scales: Mapping[str, np.float32], images: Images) -> dict[str, float]:
    """What the features lose, in mean cosine, where the activations of one linear alone are rounded."""
    session = _session(_with_rounding(base, scales, switches=True))
    flags = {_switch(name): np.array(False) for name in scales}
    exact = [session.run(None, {"image": image, **flags}) for image in images]
    costs = {}
    for name in scales:
        one = {**flags, _switch(name): np.array(True)}
        rounded = [session.run(None, {"image": image, **one}) for image in images]
        costs[name] = 1 - min(
            float(np.mean([_cosine(a[i], b[i]) for a, b in zip(exact, rounded, strict=True)]))
            for i in range(len(exact[0]))
        )
    return costs


def _cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Mean cosine of rows."""
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(((a * b).sum(-1) / np.maximum(lengths, 1e-12)).mean())


def _session(model: onnx.ModelProto) -> Any:
    from patchcut.engines.onnxruntime import session_options

    onnxruntime = import_onnxruntime()
    options = session_options(onnxruntime, default_threads(), "fp32")
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _with_rounding(
    base: onnx.ModelProto, scales: Mapping[str, np.float32], *, switches: bool = False
) -> onnx.ModelProto:
    """The graph with the activations of linears rounded, each only where its switch says so.

    Args:
        base: a float graph on 8-bit weights.
        scales: steps by the linear's output.
        switches: whether the graph gets an input for each, `_switch(output)`, a bool.
    """
    model = onnx.ModelProto()
    model.CopyFrom(base)
    nodes: list[onnx.NodeProto] = []
    rounded: dict[tuple[str, np.float32], str] = {}
    for node in model.graph.node:
        scale = scales.get(node.output[0])
        if scale is not None:
            source, output = node.input[0], node.output[0]
            key = (source, scale)
            if key not in rounded:
                rounded[key] = _round(model, nodes, source, f"{output}_input", scale)
            node.input[0] = rounded[key]
            if switches:
                node.input[0] = f"{output}_chosen"
                inputs = [_switch(output), rounded[key], source]
                nodes.append(helper.make_node("Where", inputs, [node.input[0]]))
                model.graph.input.append(helper.make_tensor_value_info(_switch(output), TensorProto.BOOL, []))
        nodes.append(node)
    fresh = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(fresh)
    return model


def _round(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], source: str, name: str, scale: np.float32
) -> str:
    """Appends the nodes that round `source`; returns the name of what comes of them."""
    step = [f"{name}_scale", f"{name}_zero_point"]
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(scale), step[0]))
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(np.int8(0)), step[1]))
    nodes.append(helper.make_node("QuantizeLinear", [source, *step], [f"{name}_quantized"]))
    nodes.append(helper.make_node("DequantizeLinear", [f"{name}_quantized", *step], [f"{name}_rounded"]))
    return f"{name}_rounded"


def _switch(output: str) -> str:
    return f"round {output}"
