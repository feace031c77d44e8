"""Outputs cut out of a graph's bytes: what is left is checked by onnx and run by onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from patchcut import open_bundle
from patchcut.bundle.graph_outputs import keep_outputs
from patchcut.bundle.onnx_messages import GraphError

from tests.runtime import toy_bundle as toy


def three_steps() -> onnx.ModelProto:
    """x → a = x * two → b = a + three → c = (b, "unused" left out) clipped; outputs a, b and c."""

    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 4])

    nodes = [
        helper.make_node("Mul", ["image", "two"], ["a"], name="first"),
        helper.make_node("Add", ["a", "three"], ["inner"]),
        helper.make_node("Identity", ["inner"], ["b"]),
        helper.make_node("Clip", ["b", "", "five"], ["c"]),
    ]
    numbers = {"two": 2.0, "three": 3.0, "five": 5.0}
    tensors = [numpy_helper.from_array(np.float32(number), name) for name, number in numbers.items()]
    outputs = [value(name) for name in "abc"]
    graph = helper.make_graph(
        nodes, "steps", [value("image")], outputs, tensors, value_info=[value("inner")], doc_string="kept"
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"made": "here"})
    return model


@pytest.mark.parametrize(
    ("outputs", "nodes", "tensors", "inner"),
    [
        (["a"], ["Mul"], {"two"}, []),
        (["b"], ["Mul", "Add", "Identity"], {"two", "three"}, ["inner"]),
        (["c", "a"], ["Mul", "Add", "Identity", "Clip"], {"two", "three", "five"}, ["inner"]),
    ],
    ids=str,
)
def test_what_only_other_outputs_need_is_gone(
    outputs: list[str], nodes: list[str], tensors: set[str], inner: list[str]
) -> None:
    model = three_steps()
    data, names = keep_outputs(model.SerializeToString(), outputs)
    kept = onnx.load_from_string(data)
    onnx.checker.check_model(kept, full_check=True)
    assert [node.op_type for node in kept.graph.node] == nodes
    assert names == tensors == {tensor.name for tensor in kept.graph.initializer}
    assert [value.name for value in kept.graph.value_info] == inner
    assert {value.name for value in kept.graph.output} == set(outputs)
    assert kept.graph.doc_string == "kept" and kept.metadata_props == model.metadata_props
    image = np.float32([[-1, 0, 0.5, 2]])
    values = {"a": 2 * image, "b": 2 * image + 3, "c": np.minimum(2 * image + 3, 5)}
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for name, made in zip(outputs, session.run(outputs, {"image": image}), strict=True):
        np.testing.assert_array_equal(made, values[name])


def test_a_graph_that_makes_no_others_is_left_as_it_is() -> None:
    data = three_steps().SerializeToString()
    kept, names = keep_outputs(data, ("c", "b", "a"))
    assert kept is data and names == {"two", "three", "five"}


def test_embedded_graphs_keep_what_they_need() -> None:
    with open_bundle() as bundle:
        backbone = bundle.spec.backbone
        for graph in backbone.graphs:
            data = bundle.read(graph.file)
            names = keep_outputs(data, [one.output for one in backbone.features.values()])[1]
            assert set(graph.initializers) <= names


def test_an_output_that_is_not_there_is_named() -> None:
    with pytest.raises(GraphError, match="no output d, but a, b, c"):
        keep_outputs(three_steps().SerializeToString(), ["a", "d"])


@pytest.mark.parametrize("cut", [1, 7, 40, 100])
def test_a_graph_cut_short_is_refused(cut: int) -> None:
    weights = toy.members()["backbone.safetensors"]
    data = toy.graph(112, "fp32", weights, tokens=True)
    with pytest.raises(GraphError):
        keep_outputs(data[:-cut], ["tokens"])
