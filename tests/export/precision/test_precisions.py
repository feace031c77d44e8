from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import patchcut
import pytest
from patchcut.bundle import open_bundle
from patchcut.errors import OptionError
from patchcut_export.errors import ExportError

onnx = pytest.importorskip("onnx", reason="needs patchcut[export]")
pytest.importorskip("onnxruntime", reason="needs patchcut[export]")
torch = pytest.importorskip("torch", reason="needs patchcut[export]")

from onnx import TensorProto, numpy_helper
from patchcut_export.precision import convert
from patchcut_export.precision.bf16 import rounded_to_bf16
from patchcut_export.precision.int8_qdq import quantize_int8_qdq

SIDE, PATCH, WIDTH = 32, 8, 32


class TinyViT(torch.nn.Module):
    """One block, with an activation in which single numbers are far larger than the rest."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = torch.nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.norm1, self.norm2 = torch.nn.LayerNorm(WIDTH), torch.nn.LayerNorm(WIDTH)
        self.qkv = torch.nn.Linear(WIDTH, 3 * WIDTH)
        self.fc1, self.fc2 = torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.Linear(4 * WIDTH, WIDTH)
        self.key = torch.nn.Linear(WIDTH, WIDTH, bias=False)
        with torch.no_grad():
            self.norm2.weight[3] = 60.0

    def forward(self, image: Any) -> Any:
        tokens = self.patches(image).flatten(2).transpose(1, 2)
        query, key, value = self.qkv(self.norm1(tokens)).chunk(3, -1)
        tokens = tokens + (query @ key.transpose(1, 2) / WIDTH**0.5).softmax(-1) @ value
        tokens = tokens + self.fc2(torch.nn.functional.gelu(self.fc1(self.norm2(tokens))))
        return self.key(tokens)


@pytest.fixture(scope="module")
def vit() -> TinyViT:
    return TinyViT().eval()


@pytest.fixture(scope="module")
def exact(vit: TinyViT) -> Any:
    pytest.importorskip("onnxscript", reason="needs patchcut[export]")
    pytest.importorskip("onnxslim", reason="needs patchcut[export]")
    import onnxslim
    from patchcut_export.backbones.onnx_export import OPSET, _name_linear_weights

    program = torch.onnx.export(
        vit,
        (torch.zeros(2, 3, SIDE, SIDE),),
        dynamo=True,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["key"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    return _name_linear_weights(onnxslim.slim(program.model_proto))


def pictures(count: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(1, 3, SIDE, SIDE)).astype(np.float32) for _ in range(count)]


def run(model: Any, images: Sequence[np.ndarray]) -> np.ndarray:
    import onnxruntime
    from patchcut.engines.onnxruntime import session_options

    options = session_options(onnxruntime, 1, "fp32")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.concatenate([session.run(None, {"image": image})[0] for image in images])


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1))


def types(model: Any) -> dict[str, int]:
    """TensorProto.DataType of what nodes compute, by name."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    return {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}


@pytest.mark.parametrize(
    ("precision", "kind", "worst"),
    [("fp16", TensorProto.FLOAT16, 0.9999), ("bf16", TensorProto.BFLOAT16, 0.999)],
)
def test_half_floats_stay_near_and_keep_what_they_cannot_do(
    exact: Any, vit: TinyViT, precision: Any, kind: int, worst: float
) -> None:
    before = exact.SerializeToString()
    model = convert(exact, precision)
    assert exact.SerializeToString() == before
    onnx.checker.check_model(model, full_check=True)
    kinds = types(model)
    by_operator: dict[str, set[int]] = {}
    for node in model.graph.node:
        if node.output[0] in kinds:
            by_operator.setdefault(node.op_type, set()).add(kinds[node.output[0]])
    assert by_operator["MatMul"] == {kind}
    assert by_operator["LayerNormalization"] == by_operator["Softmax"] == {TensorProto.FLOAT}
    ends = [*model.graph.input, *model.graph.output]
    assert {value.type.tensor_type.elem_type for value in ends} == {TensorProto.FLOAT}
    images = pictures(8, 1)
    with torch.inference_mode():
        expected = vit(torch.from_numpy(np.concatenate(images))).numpy()
    got = run(rounded_to_bf16(model) if precision == "bf16" else model, images)
    assert cosines(expected, got).min() > worst
    assert np.abs(expected - got).max() > 1e-5, "nothing was rounded"


def test_bf16_weights_are_rounded_once(exact: Any) -> None:
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in exact.graph.initializer}
    model = convert(exact, "bf16")
    brain = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.BFLOAT16]
    assert len(brain) > 3
    for tensor in brain:
        expected = torch.from_numpy(held[tensor.name].copy()).to(torch.bfloat16).float().numpy()
        np.testing.assert_array_equal(numpy_helper.to_array(tensor).astype(np.float32), expected)


@pytest.fixture(scope="module")
def qdq(exact: Any) -> Any:
    pytest.importorskip("nncf", reason="needs patchcut[export]")
    return quantize_int8_qdq(exact, pictures(8, 2))


def test_static_int8_is_symmetric_on_the_weights_of_dynamic_int8(exact: Any, qdq: Any) -> None:
    onnx.checker.check_model(qdq, full_check=True)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in qdq.graph.initializer}
    rounding = [node for node in qdq.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {node.op_type for node in rounding} == {"QuantizeLinear", "DequantizeLinear"}
    for node in rounding:
        assert tensors[node.input[2]].dtype == np.int8
        assert not tensors[node.input[2]].any(), "a zero point is not 0"
    dynamic = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in convert(exact, "int8").graph.initializer
    }
    shared = [name for name in dynamic if name.endswith("_quantized")]
    assert len(shared) == 4
    for name in shared:
        np.testing.assert_array_equal(tensors[name], dynamic[name])


def test_static_int8_stays_near_and_leaves_the_worst_linear_in_floats(
    exact: Any, qdq: Any, vit: TinyViT
) -> None:
    images = pictures(16, 3)
    with torch.inference_mode():
        expected = vit(torch.from_numpy(np.concatenate(images))).numpy()
    assert cosines(expected, run(qdq, images)).mean() > 0.995


def test_static_int8_needs_pictures(exact: Any) -> None:
    with pytest.raises(OptionError, match="int8-qdq needs photos to be fitted to; pass --calibrate DIR"):
        convert(exact, "int8-qdq")


def test_nncf_is_imported_without_its_telemetry() -> None:
    pytest.importorskip("nncf", reason="needs patchcut[export]")
    code = (
        "from patchcut_export.precision.int8_qdq import import_nncf; import sys; import_nncf()\n"
        "from nncf.telemetry.wrapper import NNCFTelemetry, telemetry\n"
        "assert not isinstance(telemetry, NNCFTelemetry); assert 'openvino_telemetry' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def both(build: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle in fp16 and exact fp32, measured on random pictures."""
    return build(tmp_path_factory.mktemp("fp16") / "x.patchcut", sizes=(64,), precision="fp16,fp32")


def test_the_gate_writes_what_it_measured(both: Path) -> None:
    with open_bundle(both) as bundle:
        bundle.verify()
        rows = {row.precision: row for row in bundle.spec.backbone.agreement if "onnx" in row.engine}
    assert rows["fp16"].accepted
    assert rows["fp16"].cosine_worst > 0.995
    assert rows["fp16"].data == "smooth random pictures"
    assert rows["fp32"].cosine_mean == pytest.approx(1, abs=1e-5)
    assert patchcut.load(both, engine="onnxruntime", precision="fp16", head="kmeans:k=2") is not None


def test_what_is_too_far_from_fp32_is_refused_or_marked_for_ever(
    build: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from patchcut_export.bundles import rewriting
    from patchcut_export.precision import gate

    never = gate.Least(2.0, -1, -1, 0, 1)
    monkeypatch.setattr(gate, "LEAST", {**gate.LEAST, "fp16": never})
    path = tmp_path / "x.patchcut"
    with pytest.raises(ExportError) as raised:
        build(path, sizes=(64,), precision="fp16,fp32")
    text = str(raised.value)
    assert text.startswith("[gate] fp16 at 64 is too far from fp32: key in onnxruntime ")
    assert "at least 2.0 needed; export another precision, or pass --allow-inaccurate" in text
    assert "\n" not in text
    assert list(tmp_path.iterdir()) == []
    build(path, sizes=(64,), precision="fp16,fp32", allow_inaccurate=True)
    with open_bundle(path) as bundle:
        accepted = {row.precision: row.accepted for row in bundle.spec.backbone.agreement}
        rewriting.rewrite_bundle(bundle, path, rewriting.with_report(bundle.spec, ()))
    assert accepted["fp16"] is False
    with open_bundle(path) as bundle:
        assert {row.precision: row.accepted for row in bundle.spec.backbone.agreement} == accepted
