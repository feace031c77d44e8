from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from patchcut.bundle.graph_check import check_graph
from patchcut.bundle.graph_weights import inline_weights
from patchcut.bundle.tensors import load_tensors

from tests.runtime import toy_bundle as toy


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_graph_with_its_weights_is_valid_and_computes_the_same(precision: str) -> None:
    files = toy.members()
    graph = files[f"backbone-112-{precision}.onnx"]
    tensors = load_tensors(files["backbone.safetensors"])
    whole = inline_weights(graph, tensors)
    check_graph(whole, (), None)
    model = onnx.load_from_string(whole)
    onnx.checker.check_model(model)
    (weights,) = (one for one in model.graph.initializer if one.name == f"embed.{precision}")
    np.testing.assert_array_equal(numpy_helper.to_array(weights), tensors[weights.name])
    image = np.random.default_rng(0).standard_normal((1, 3, 112, 112)).astype(np.float32)
    (made,) = onnxruntime.InferenceSession(whole).run(None, {"image": image})
    np.testing.assert_allclose(made[0], toy.reference_features(image[0], precision), rtol=1e-4, atol=1e-3)


def test_all_else_stays_as_it_is() -> None:
    files = toy.members(tokens=True)
    graph = files["backbone-112-fp32.onnx"]
    before, after = (
        onnx.load_from_string(data)
        for data in (graph, inline_weights(graph, load_tensors(files["backbone.safetensors"])))
    )
    del before.graph.initializer[:], after.graph.initializer[:]
    assert before == after


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.float16, np.int64, np.float32])
@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (2, 70_000)])
def test_tensors_of_every_type_and_size(dtype: type, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    tensor = numpy_helper.from_array(array, "w")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="x")
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor]))
    whole = onnx.load_from_string(inline_weights(model.SerializeToString(), {"w": array}))
    (found,) = whole.graph.initializer
    assert not found.external_data and found.data_location == onnx.TensorProto.DEFAULT
    np.testing.assert_array_equal(numpy_helper.to_array(found), array)
