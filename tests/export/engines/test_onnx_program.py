"""A graph becomes calls of torch: only those that are wanted, some as one, all of them repeatable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from onnx import TensorProto, helper, numpy_helper
from patchcut_export.engines.onnx_program import GraphError, OnnxProgram

DIM, HEADS, SIDE, PATCH = 12, 3, 8, 4
CPU = torch.device("cpu")


def made_model(*, scaled: str = "Mul", opset: int = 17) -> Any:
    """Patches, one block of attention with a mask, and two outputs; its reshapes follow the batch."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32) / 3  # noqa: E731
    constants = {
        "kernel": normal(DIM, 3, PATCH, PATCH),
        "token": normal(1, 1, DIM),
        "qkv": normal(DIM, 3 * DIM),
        "qkv_bias": normal(3 * DIM),
        "proj": normal(DIM, DIM),
        "proj_bias": normal(DIM),
        "mask": normal(1, 1, 5, 5),
        "factor": np.float32(0.5 if scaled == "Mul" else 2),
        "ones": np.ones(DIM, np.float32),
        "flat": np.int64([0, DIM, -1]),
        "of_token": np.int64([1, DIM]),
        "of_heads": np.int64([0, 0, 3, HEADS, DIM // HEADS]),
        "of_rows": np.int64([0, 0, DIM]),
        "first": np.int64([0]),
        "zero": np.int64([0]),
        "one": np.int64([1]),
        "far": np.int64([99]),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "kernel"], ["patches"], strides=[PATCH, PATCH], kernel_shape=[PATCH, PATCH]),
        node("Reshape", ["patches", "flat"], ["columns"]),
        node("Transpose", ["columns"], ["rows"], perm=[0, 2, 1]),
        node("Shape", ["image"], ["sides"]),
        node("Gather", ["sides", "first"], ["batch"], axis=0),
        node("Concat", ["batch", "of_token"], ["of_tokens"], axis=0),
        node("Expand", ["token", "of_tokens"], ["tokens"]),
        node("Concat", ["tokens", "rows"], ["x"], axis=1),
        node("LayerNormalization", ["x", "ones"], ["normed"], axis=-1),
        node("MatMul", ["normed", "qkv"], ["product"]),
        node("Add", ["product", "qkv_bias"], ["all"]),
        node("Reshape", ["all", "of_heads"], ["heads"]),
        node("Transpose", ["heads"], ["three"], perm=[2, 0, 3, 1, 4]),
        node("Split", ["three"], ["q1", "k1", "v1"], axis=0),
        *(node("Squeeze", [f"{one}1", "zero"], [one]) for one in "qkv"),
        node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
        node("MatMul", ["q", "kt"], ["scores"]),
        node(scaled, ["scores", "factor"], ["scaled"]),
        node("Add", ["scaled", "mask"], ["masked"]),
        node("Softmax", ["masked"], ["shares"], axis=-1),
        node("MatMul", ["shares", "v"], ["mixed"]),
        node("Transpose", ["mixed"], ["back"], perm=[0, 2, 1, 3]),
        node("Reshape", ["back", "of_rows"], ["joined"]),
        node("MatMul", ["joined", "proj"], ["projected"]),
        node("Add", ["proj_bias", "projected"], ["y"]),
        node("Slice", ["y", "one", "far", "one"], ["features"]),
        node("Slice", ["x", "zero", "one", "one"], ["cls"]),
        node("Erf", ["y"], ["never_wanted"]),
    ]
    info = helper.make_tensor_value_info
    outputs = [
        info("features", 1, ["b", 4, DIM]),
        info("cls", 1, ["b", 1, DIM]),
        info("never_wanted", 1, None),
    ]
    graph = helper.make_graph(
        nodes,
        "block",
        [info("image", TensorProto.FLOAT, ["b", 3, SIDE, SIDE])],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def images(batch: int) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, 3, SIDE, SIDE)).astype(np.float32)


def reference(model: Any, values: np.ndarray, outputs: Sequence[str]) -> list[np.ndarray]:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(list(outputs), {"image": values}))


def run(program: OnnxProgram, values: np.ndarray) -> list[np.ndarray]:
    with torch.inference_mode():
        plan = program.prepare(values.shape)
        made = plan(torch.from_numpy(values).to(program.dtype))
    return [one.float().numpy() for one in made]


def operators(program: OnnxProgram) -> list[str]:
    return [node.operator for node in program.nodes()]


@pytest.mark.parametrize("scaled", ["Mul", "Div"])
@pytest.mark.parametrize("batch", [1, 3])
def test_attention_and_linear_layers_are_one_call_each(scaled: str, batch: int) -> None:
    model, wanted = made_model(scaled=scaled), ("features", "cls")
    program = OnnxProgram(model, {}, wanted, device=CPU)
    assert operators(program).count("patchcut.attention") == 1
    assert operators(program).count("patchcut.linear") == 2
    assert not {"Softmax", "MatMul", "Mul", "Div", "Erf"} & set(operators(program))
    for got, want in zip(run(program, images(batch)), reference(model, images(batch), wanted), strict=True):
        assert want.std() > 0.05
        np.testing.assert_allclose(got, want, atol=2e-6)


def test_what_someone_else_reads_is_not_fused() -> None:
    model = made_model()
    model.graph.output.append(helper.make_tensor_value_info("shares", TensorProto.FLOAT, None))
    program = OnnxProgram(model, {}, ["features", "shares"], device=CPU)
    assert "patchcut.attention" not in operators(program)
    for got, want in zip(
        run(program, images(2)), reference(model, images(2), ["features", "shares"]), strict=True
    ):
        np.testing.assert_allclose(got, want, atol=2e-6)


def test_only_what_is_wanted_is_computed() -> None:
    program = OnnxProgram(made_model(), {}, ["cls"], device=CPU)
    assert "patchcut.attention" not in operators(program)
    assert "Conv" in operators(program), "the token lies in front of the patches"


@pytest.mark.parametrize(("name", "atol"), [("float16", 5e-3), ("bfloat16", 4e-2)])
def test_fewer_bits_are_used_throughout(name: str, atol: float) -> None:
    model, dtype = made_model(), getattr(torch, name)
    program = OnnxProgram(model, {}, ["features"], device=CPU, dtype=dtype)
    with torch.inference_mode():
        plan = program.prepare((2, 3, SIDE, SIDE))
        (made,) = plan(torch.from_numpy(images(2)).to(dtype))
    assert made.dtype == dtype
    assert {v.dtype for v in plan._kept.values() if v.is_floating_point()} == {dtype}
    (want,) = reference(model, images(2), ["features"])
    error = np.abs(made.float().numpy() - want).max()
    assert 1e-5 < error < atol


def test_a_plan_is_called_again_and_again() -> None:
    program = OnnxProgram(made_model(), {}, ["features"], device=CPU)
    with torch.inference_mode():
        plan = program.prepare((2, 3, SIDE, SIDE))
        first = plan(torch.from_numpy(images(2)))[0].clone()
        other = plan(torch.from_numpy(images(2)[::-1].copy()))[0].clone()
        again = plan(torch.from_numpy(images(2)))[0]
    assert torch.equal(first, again)
    torch.testing.assert_close(first, other.flip(0))  # torch may round by where in a batch an image is


def test_weights_come_from_outside() -> None:
    model = made_model()
    weights = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer if one.name == "proj"}
    doubled = {name: 2 * value for name, value in weights.items()}
    plain, other = (OnnxProgram(model, given, ["features"], device=CPU) for given in (weights, doubled))
    assert not np.allclose(run(plain, images(1))[0], run(other, images(1))[0])


def test_what_cannot_be_run_is_told() -> None:
    model = made_model()
    with pytest.raises(GraphError, match="no output other"):
        OnnxProgram(model, {}, ["other"], device=CPU)
    with pytest.raises(GraphError, match="opset 12"):
        OnnxProgram(made_model(opset=12), {}, ["features"], device=CPU)
    model.graph.node[0].op_type = "Einsum"
    with pytest.raises(GraphError, match="an operator Einsum"):
        OnnxProgram(model, {}, ["features"], device=CPU)
    model = made_model()
    model.graph.node[-3].input[0] = "nobody"
    with pytest.raises(GraphError, match="nobody"):
        OnnxProgram(model, {}, ["features"], device=CPU).prepare((1, 3, SIDE, SIDE))
