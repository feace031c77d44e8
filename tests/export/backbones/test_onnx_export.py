"""Graphs against torch, and the weights that they share."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs patchcut[export]")
onnx = pytest.importorskip("onnx", reason="needs patchcut[export]")
pytest.importorskip("onnxscript", reason="needs patchcut[export]")
ort = pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

from onnx import numpy_helper
from patchcut.bundle import Precision, open_bundle
from patchcut.engines.onnxruntime import session_options
from patchcut_export.backbones.onnx_export import OPSET, export_fp32, share_weights
from patchcut_export.backbones.spec import Component, FeatureSpec, ViTSpec
from patchcut_export.backbones.vit import FeatureExtractor, build_extractor
from patchcut_export.precision.int8 import dequantize_weights, quantize_int8

SIZES = (64, 96)


@pytest.fixture(scope="module")
def extractors(random_state: Callable[..., dict[str, Any]]) -> dict[int, FeatureExtractor]:
    return {
        s: build_extractor(
            ViTSpec("test_vit", {"key": FeatureSpec((Component("key", 1),))}), random_state(), s
        )
        for s in SIZES
    }


@pytest.fixture(scope="module")
def graphs(extractors: dict[int, FeatureExtractor]) -> dict[int, Any]:
    return {size: export_fp32(extractor, size) for size, extractor in extractors.items()}


@pytest.fixture(scope="module")
def quantized(graphs: dict[int, Any]) -> Any:
    return quantize_int8(graphs[96])


def run(model: Any, image: np.ndarray, precision: Precision = "fp32") -> np.ndarray:
    """The features of a graph, given itself or its file, with the options that the runtime has for it."""
    data = model if isinstance(model, str) else model.SerializeToString()
    options = session_options(ort, 2, precision)
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


def images(batch: int, size: int) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, 3, size, size)).astype(np.float32)


def reference(extractor: FeatureExtractor, image: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        features = extractor(torch.from_numpy(image))[0].numpy()
    assert features.std() > 1e-2, "the reference is near-constant"
    return features


def mean_cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(torch.cosine_similarity(torch.from_numpy(a), torch.from_numpy(b), dim=-1).mean())


def initializers(model: Any) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_float_graph_is_the_extractor(
    extractors: dict[int, FeatureExtractor], graphs: dict[int, Any], size: int, batch: int
) -> None:
    image = images(batch, size)
    np.testing.assert_allclose(run(graphs[size], image), reference(extractors[size], image), atol=1e-4)


def test_the_float_graph_is_plain_onnx(graphs: dict[int, Any]) -> None:
    model = graphs[96]
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["key"]


def test_eight_bits_agree(
    extractors: dict[int, FeatureExtractor], graphs: dict[int, Any], quantized: Any
) -> None:
    image = images(2, 96)
    expected = reference(extractors[96], image)
    assert mean_cosine(run(quantized, image, "int8"), expected) > 0.998
    assert mean_cosine(run(dequantize_weights(graphs[96], quantized), image), expected) > 0.999
    assert {"MatMulInteger"} <= {node.op_type for node in quantized.graph.node}


def test_the_float_graph_holds_the_same_eight_bits(graphs: dict[int, Any], quantized: Any) -> None:
    before = graphs[96].SerializeToString()
    stored = initializers(dequantize_weights(graphs[96], quantized))
    eight_bit = initializers(quantized)
    names = [name for name in stored if name.startswith("linear.")]
    assert sum(name.endswith("_quantized") for name in names) == 5  # one whole block, and the keys
    for name in names:
        np.testing.assert_array_equal(stored[name], eight_bit[name])
    assert {stored[n].dtype for n in names if n.endswith("_quantized")} == {np.dtype(np.int8)}
    assert graphs[96].SerializeToString() == before


# One that has everything at once: each alone is checked against its oracle in torch.
CHOICES = ViTSpec(
    "test_vit",
    {
        "both": FeatureSpec(
            (Component("key", 1, 3.0), Component("token", 0)), scales=(1.0, 0.5), join="concat", log_bins=1
        )
    },
    stride=12,
)


def test_choices_of_features_are_in_the_graph(random_state: Callable[..., dict[str, Any]]) -> None:
    extractor = build_extractor(CHOICES, random_state(), 64)
    assert (extractor.grid_hw, extractor.dims) == ((5, 5), {"both": 64 * 2 * 2 * 9})
    exact = export_fp32(extractor, 64)
    onnx.checker.check_model(exact, full_check=True)
    for batch in (1, 3):
        image = images(batch, 64)
        expected = reference(extractor, image)
        assert expected.shape == (batch, 25, extractor.dims["both"])
        np.testing.assert_allclose(run(exact, image), expected, atol=1e-4)
    quantized = quantize_int8(exact)
    assert mean_cosine(run(quantized, image, "int8"), expected) > 0.998
    assert mean_cosine(run(dequantize_weights(exact, quantized), image), expected) > 0.999
    big = [array.tobytes() for array in initializers(exact).values() if array.nbytes >= 1024]
    assert len(set(big)) == len(big), "the scales do not share their weights"
    assert "Resize" not in {node.op_type for node in exact.graph.node}
    resizes = {name for name in initializers(exact) if name.startswith(("resizes.", "to_grid."))}
    assert resizes and resizes < set(initializers(quantized)), "resizing is not for 8 bits"


def test_attention_is_in_the_graph(random_state: Callable[..., dict[str, Any]]) -> None:
    sets = {
        "key": FeatureSpec((Component("key", 2),)),
        "attention": FeatureSpec((Component("attention", 2),)),
    }
    extractor = build_extractor(ViTSpec("test_vit", sets), random_state(), 64)
    exact = export_fp32(extractor, 64)
    image = images(3, 64)
    options = session_options(ort, 2, "fp32")
    session = ort.InferenceSession(exact.SerializeToString(), options, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = extractor(torch.from_numpy(image))[1].numpy()
    (got,) = session.run(["attention"], {"image": image})
    assert got.shape == (3, 16, extractor.dims["attention"])
    assert expected.std() > 0.1 * expected.mean(), "the reference is near-constant"
    np.testing.assert_allclose(got, expected, atol=1e-5)
    eight = ort.InferenceSession(
        quantize_int8(exact).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    assert mean_cosine(eight.run(["attention"], {"image": image})[0], expected) > 0.998


def copies(graphs: dict[int, Any]) -> dict[str, Any]:
    return {f"{size}": onnx.ModelProto.FromString(g.SerializeToString()) for size, g in graphs.items()}


def test_equal_weights_are_stored_once_and_others_apart(graphs: dict[int, Any]) -> None:
    single = {name: share_weights({name: model}, "w") for name, model in copies(graphs).items()}
    both = share_weights(copies(graphs), "w")
    sizes = {name: sum(a.nbytes for a in shared.weights.values()) for name, shared in single.items()}
    positions = [a for a in both.weights.values() if a.shape in ((1, 17, 64), (1, 37, 64), (1, 16, 64))]
    assert sum(a.nbytes for a in both.weights.values()) < 1.2 * max(sizes.values())
    assert len(positions) >= 1
    for name, model in copies(graphs).items():  # each graph's tensors are its own, whatever they are called
        big = sorted(a.tobytes() for a in initializers(model).values() if a.nbytes >= 1024)
        assert sorted(both.weights[n].tobytes() for n in both.initializers[name]) == big


def test_one_name_for_two_arrays_is_told_apart() -> None:
    def graph(value: float) -> Any:
        tensor = numpy_helper.from_array(np.full(512, value, np.float32), "position")
        node = onnx.helper.make_node("Add", ["x", "position"], ["y"])
        values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [512]) for n in "xy"]
        return onnx.helper.make_model(onnx.helper.make_graph([node], "g", values[:1], values[1:], [tensor]))

    shared = share_weights({"a": graph(1), "b": graph(2), "c": graph(1), "d": graph(3)}, "w")
    assert shared.initializers == {
        "a": ["position"],
        "b": ["position.1"],
        "c": ["position"],
        "d": ["position.2"],
    }
    assert {name: array[0] for name, array in shared.weights.items()} == {
        "position": 1,
        "position.1": 2,
        "position.2": 3,
    }
    assert shared.graphs["b"].graph.node[0].input[1] == "position.1"


def test_an_unzipped_bundle_is_plain_onnx(
    backbone_bundle: Path, extractors: dict[int, FeatureExtractor], tmp_path: Path
) -> None:
    with zipfile.ZipFile(backbone_bundle) as archive:
        archive.extractall(tmp_path)
    with open_bundle(backbone_bundle) as bundle:
        graphs = bundle.spec.backbone.graphs
    assert [(g.size_hw[0], g.precision) for g in graphs] == [
        (96, "int8"),
        (96, "fp32"),
        (64, "int8"),
        (64, "fp32"),
    ]
    for graph in graphs:
        image = images(2, graph.size_hw[0])
        onnx.checker.check_model(str(tmp_path / graph.file), full_check=True)
        plain = onnx.load(tmp_path / graph.file)
        assert {one.domain: one.version for one in plain.opset_import}[""] == OPSET
        assert plain.doc_string.startswith(f"test_vit in {graph.precision}, ONNX opset {OPSET}, by patchcut.")
        assert f"key [batch, {graph.grid_hw[0] ** 2}, 64] float32" in plain.doc_string
        assert plain.graph.input[0].type.tensor_type.shape.dim[0].dim_param, "the batch is not free"
        got = run(str(tmp_path / graph.file), image, graph.precision)
        assert mean_cosine(got, reference(extractors[graph.size_hw[0]], image)) > 0.998
        assert graph.initializers, "no weights are shared"
