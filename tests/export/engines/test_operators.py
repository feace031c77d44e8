"""torch's operators give what ONNX's own examples say, and what ONNX Runtime makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from patchcut.bundle.graph_check import CONTRIBUTED
from patchcut.bundle.graph_check import OPERATORS as ALLOWED

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from onnx import TensorProto, helper, numpy_helper
from patchcut_export.engines.onnx_program import GraphError, OnnxProgram, Plan
from patchcut_export.engines.operators import OPERATORS, TORCH_TYPES

# Where ONNX keeps the examples of an operator whose name is no name of its module.
MODULES = {
    "And": "and_",
    "BatchNormalization": "batch_normalization",
    "GreaterOrEqual": "greater_or_equal",
    "InstanceNormalization": "instance_normalization",
    "LessOrEqual": "less_or_equal",
    "Not": "not_",
    "Or": "or_",
    "ReduceLogSumExp": "reduce_log_sum_exp",
}
# Their examples take 13 s to make; they are compared with ONNX Runtime below.
SLOW_EXAMPLES = ("AveragePool", "MaxPool")
# Whose examples are of an older opset, with the same meaning.
UNCHANGED = {
    "And",
    "ConvInteger",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "Not",
    "Or",
    "QLinearConv",
    "Xor",
}
REFUSED = ("that trains", "that tells where", "that crops", "non-zero size")
ROUNDED = ("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul")


def test_every_operator_that_a_bundle_may_hold_is_there() -> None:
    assert set(OPERATORS) | {"Constant"} >= ALLOWED | CONTRIBUTED


def examples() -> Iterator[Any]:
    """ONNX's examples: each with its model, inputs and outputs."""
    node = import_module("onnx.backend.test.case.node")
    for operator in sorted(ALLOWED - set(SLOW_EXAMPLES) - {"Constant"}):
        import_module(f"onnx.backend.test.case.node.{MODULES.get(operator, operator.lower())}")
    yield from node._NodeTestCases


def as_tensor(value: Any) -> Any:
    return value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value))


def folded(model: Any, inputs: Sequence[Any]) -> list[np.ndarray]:
    """The outputs of a model whose inputs are constants of it."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    del whole.graph.input[:]
    for value, tensor in zip(model.graph.input, inputs, strict=False):
        tensor.name = value.name
        whole.graph.initializer.append(tensor)
    names = [one.name for one in whole.graph.output if one.name]
    program = OnnxProgram(whole, {}, names, device=torch.device("cpu"))
    made = Plan(program, torch.zeros(1))(torch.zeros(1))
    return [(one.float() if one.dtype == torch.bfloat16 else one).numpy() for one in made]


def check(got: np.ndarray, expected: Any, *, steps: int = 0) -> None:
    """Alike, and of the same type; `steps` is how much whole numbers may differ by."""
    want = numpy_helper.to_array(expected)
    assert got.shape == want.shape
    assert got.dtype == want.dtype or want.dtype.name == "bfloat16"
    atol = {"float16": 1e-3, "bfloat16": 1e-2}.get(want.dtype.name, 1e-5)
    np.testing.assert_allclose(
        got.astype(np.float64), want.astype(np.float64), rtol=20 * atol, atol=max(steps, atol)
    )


@pytest.mark.filterwarnings("ignore")
def test_operators_do_what_the_examples_of_onnx_say() -> None:
    done: Counter[str] = Counter()
    wrong = []
    for case in examples():
        model = case.model
        operators = {node.op_type for node in model.graph.node}
        if not operators <= ALLOWED or any(node.domain for node in model.graph.node):
            continue
        if operators <= UNCHANGED:
            model.opset_import[0].version = 13
        inputs, outputs = ([as_tensor(one) for one in given] for given in case.data_sets[0])
        if model.opset_import[0].version < 13 or any(
            one.data_type not in TORCH_TYPES for one in (*inputs, *outputs)
        ):
            continue
        try:
            for got, want in zip(folded(model, inputs), outputs, strict=True):
                rounds = want.data_type in (TensorProto.UINT8, TensorProto.INT8) and operators & set(ROUNDED)
                check(got, want, steps=bool(rounds))
        except (GraphError, AssertionError) as error:
            if not any(words in str(error) for words in REFUSED):
                wrong.append(f"{case.name}: {error}")
            continue
        done.update(operators)
    assert not wrong
    assert ALLOWED - set(SLOW_EXAMPLES) - {"Constant"} <= set(done), "without an example"
    assert done.total() > 900


def made_by_onnxruntime(model: Any, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def compare(node: Any, inputs: dict[str, np.ndarray], *, steps: int = 0) -> None:
    """One node here and in ONNX Runtime."""
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in inputs.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([node], "one", values, outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    got = folded(model, [as_tensor(array) for array in inputs.values()])
    for ours, theirs in zip(got, made_by_onnxruntime(model, inputs), strict=True):
        check(ours, as_tensor(theirs), steps=steps)


@pytest.mark.parametrize("operator", SLOW_EXAMPLES)
@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [3, 2]},
        {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "strides": [2, 1], "pads": [1, 1, 1, 1], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
    ],
    ids=str,
)
@pytest.mark.parametrize("with_padding", [0, 1])
def test_pools(operator: str, attributes: dict[str, Any], with_padding: int) -> None:
    counting = {"count_include_pad": with_padding} if operator == "AveragePool" else {}
    if operator == "MaxPool" and with_padding:
        pytest.skip("has no such attribute")
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 7)).astype(np.float32)
    compare(helper.make_node(operator, ["x"], ["y"], **attributes, **counting), {"x": x})


def quantized(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 255, shape, endpoint=True).astype(np.uint8)


def contributed(rng: np.random.Generator) -> dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]]:
    """Inputs and attributes of ONNX Runtime's own operators."""
    x = rng.standard_normal((4, 6)).astype(np.float32)
    scale, other, bias = np.float32(0.02), np.float32(0.5), rng.standard_normal(6).astype(np.float32)
    zero = np.uint8(120)
    # Of 7 bits: on a processor with AVX2 alone ONNX Runtime adds two products up in 16 bits.
    weight = rng.integers(-64, 64, (6, 6)).astype(np.int8)
    a, b = quantized(rng, 4, 6), quantized(rng, 4, 6)
    pair = {"a": a, "a_scale": scale, "a_zero": zero, "b": b, "b_scale": other, "b_zero": np.uint8(7)}
    none = np.int8(0)
    to = {"scale": other, "zero": np.uint8(100)}
    multiplied = {
        "a": a,
        "b": weight,
        "a_scale": scale,
        "b_scale": scale,
        "a_zero": zero,
        "b_zero": none,
    }
    of_gemm = {"a": a, "a_scale": scale, "a_zero": zero, "b": weight, "b_scale": scale, "b_zero": none}
    return {
        "BiasGelu": ({"x": x, "bias": bias}, {}),
        "DequantizeLinear": ({"x": a, "scale": scale, "zero": zero}, {}),
        "DynamicQuantizeMatMul": (
            {"x": x, "b": weight, "scale": scale, "zero": none, "bias": bias},
            {},
        ),
        "FastGelu": ({"x": x}, {}),
        "FusedMatMul": ({"a": x, "b": x}, {"transB": 1, "alpha": 0.5}),
        "Gelu": ({"x": x}, {}),
        "MatMulIntegerToFloat": ({**multiplied, "bias": bias}, {}),
        "QGemm": ({**of_gemm, "bias": rng.integers(-99, 99, 6).astype(np.int32)}, {}),
        "QLinearAdd": ({**pair, **to}, {}),
        "QLinearMul": ({**pair, **to}, {}),
        "QLinearSoftmax": (
            {"x": a, "x_scale": scale, "x_zero": zero, "scale": np.float32(1 / 256), "zero": np.uint8(0)},
            {"axis": -1, "opset": 13},
        ),
        "QuantizeLinear": ({"x": x, "scale": scale, "zero": zero}, {}),
        "QuickGelu": ({"x": x}, {"alpha": 1.5}),
        "SkipLayerNormalization": ({"x": x[None], "skip": x[None] ** 2, "gamma": bias, "beta": bias}, {}),
    }


@pytest.mark.parametrize("operator", sorted(CONTRIBUTED))
def test_operators_of_onnxruntime(operator: str) -> None:
    inputs, attributes = contributed(np.random.default_rng(0))[operator]
    inputs = {name: np.asarray(value) for name, value in inputs.items()}
    node = helper.make_node(operator, list(inputs), ["y"], domain="com.microsoft", **attributes)
    compare(node, inputs, steps=operator.startswith("Q"))
