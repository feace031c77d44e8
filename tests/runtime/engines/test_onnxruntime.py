from __future__ import annotations

import gc
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import patchcut
import patchcut_kernels as kernels
import pytest
from onnx import TensorProto, helper, numpy_helper
from patchcut import Bundle, BundleError, EngineError, OptionError, Settings, open_bundle
from patchcut.engines import Engine, choice, engine_names, open_engine
from patchcut.engines import onnxruntime as adapter
from patchcut.engines.onnxruntime import sessions
from patchcut.heads import CcHead, KMeansHead
from patchcut_kernels import cuda

from tests.runtime import toy_bundle as toy
from tests.runtime.engines.fake_onnxruntime import fake_runtime
from tests.runtime.toy_bundle import reference_features


def opened(bundle: Bundle, **settings: Any) -> Engine:
    return open_engine(bundle, bundle.spec.backbone, Settings(**settings))


@pytest.mark.parametrize("size", toy.SIZES)
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_features_are_those_of_the_graph(toy_bundle: Path, size: int, precision: Any) -> None:
    with open_bundle(toy_bundle) as bundle:
        engine = opened(bundle, precision=precision, size=size)
    graph = engine.facts.graph
    assert (graph.precision, graph.size_hw) == (precision, (size, size))
    for batch in (1, 3, 2):
        images = np.random.default_rng(batch).standard_normal((batch, 3, size, size)).astype(np.float32)
        np.copyto(engine.images(batch), images)
        features = engine.run(batch)["key"]
        assert features.shape == (batch, (size // toy.PATCH) ** 2, toy.DIM)
        for image, rows in zip(images, features, strict=True):
            expected = reference_features(image, precision)
            assert expected.std() > 1
            np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-3)


def test_memory_is_kept_from_run_to_run(toy_bundle: Path) -> None:
    with open_bundle(toy_bundle) as bundle:
        engine = opened(bundle)
    images = engine.images(1)
    first = engine.run(1)["key"]
    images[:] = 1
    second = engine.run(1)["key"]
    assert second is first and engine.images(1) is images
    np.testing.assert_allclose(second[0], reference_features(images[0], "int8"), rtol=1e-4, atol=1e-3)


def test_auto_is_onnxruntime_with_int8_on_a_cpu(toy_bundle: Path) -> None:
    described = patchcut.load(toy_bundle, device="cpu").describe()
    assert (described.engine, described.device, described.precision) == ("onnxruntime", "cpu", "int8")
    assert described.provider == "CPUExecutionProvider"
    assert described.threads == kernels.default_threads()
    assert described.size_hw == (112, 112)


def test_threads_of_the_kernels_are_told_as_they_are(toy_bundle: Path) -> None:
    before = kernels.get_threads()
    try:
        segmenter = patchcut.load(toy_bundle, threads=3)
        assert (segmenter.describe().threads, segmenter.describe().kernel_threads) == (3, 3)
        kernels.set_threads(2)
        assert (segmenter.describe().threads, segmenter.describe().kernel_threads) == (3, 2)
    finally:
        kernels.set_threads(before)


def test_a_float_graph_on_8_bit_weights_says_so(toy_bundle: Path, tmp_path: Path) -> None:
    for precision in ("int8", "fp32"):
        described = patchcut.load(toy_bundle, precision=precision).describe()
        assert (described.precision, described.weights) == (precision, precision)
    files = toy.members()
    spec = toy.manifest(files)
    spec["backbones"]["toy"]["graphs"] = spec["backbones"]["toy"]["graphs"][:1]
    spec["backbones"]["toy"]["graphs"][0]["precision"] = "fp32"  # the graph dequantizes its weights
    described = patchcut.load(toy.write(tmp_path / "x.patchcut", files, spec)).describe()
    assert (described.precision, described.weights) == ("fp32", "int8")
    assert "int8" in str(described)


def test_auto_takes_the_best_there_is_without_int8(tmp_path: Path) -> None:
    files = toy.members()
    spec = toy.manifest(files)
    backbone = spec["backbones"]["toy"]
    backbone["graphs"] = [graph for graph in backbone["graphs"] if graph["precision"] == "fp32"]
    path = toy.write(tmp_path / "x.patchcut", files, spec)
    assert patchcut.load(path).describe().precision == "fp32"
    with pytest.raises(OptionError, match=r"\[precision\] the bundle has fp32 at this size, got 'int8'"):
        patchcut.load(path, precision="int8")


WHOLE_SIZE = r"\[size\] must be a whole number from 1 to 65536, got "
BAD_OPTIONS = [
    ({"engine": "tensorflow"}, r'\[engine\] must be one of "auto", .*"onnxruntime".*, got \'tensorflow\''),
    ({"engine": None}, r"\[engine\] must be a text, got None"),
    ({"device": "tpu"}, r'\[device\] must be one of "auto", "cpu", "cuda", "gpu", "npu", got \'tpu\''),
    ({"device": 0}, r"\[device\] must be one of"),
    ({"precision": "int4"}, r'\[precision\] must be one of "auto", "int8", .*"fp32", got \'int4\''),
    ({"precision": "fp16"}, r"\[precision\] the bundle has int8, fp32 at this size, got 'fp16'"),
    ({"size": 224}, r"\[size\] must be one of the bundle's sizes \(112, 168\), got 224"),
    ({"size": "112"}, WHOLE_SIZE),
    ({"size": True}, WHOLE_SIZE),
    ({"size": (112, 112)}, WHOLE_SIZE),
    ({"size": np.array([112, 168])}, WHOLE_SIZE),
    ({"size": 10**400}, WHOLE_SIZE),
    ({"engine": np.array(["a", "b"])}, r"\[engine\] must be a text, got array"),
    ({"precision": np.zeros(3)}, r"\[precision\] must be one of"),
    ({"head": "magic"}, r'\[head\] must be one of "auto", "gnn", .*, "kmeans", got \'magic\''),
    ({"head": None}, r"\[head\] must be one of"),
    ({"head": 3}, r"\[head\] must be one of"),
    ({"head": KMeansHead}, r"\[head\] must be one of .*, got <class "),
    ({"mode": "panoptic"}, r'\[mode\] must be one of "foreground", "parts", "scene", got \'panoptic\''),
    ({"mode": "parts", "parts": "gnn"}, r'\[parts\] must be one of "auto", "gnn-fit", .*, got \'gnn\''),
    ({"refine": "sharp"}, r'\[refine\] must be one of "auto", "none", "guided", .*got \'sharp\''),
    ({"nothing_below": 1.5}, r"\[nothing_below\] must be a number from 0 to 1, got 1.5"),
    ({"single": "yes"}, r"\[single\] must be True or False, got 'yes'"),
    ({"min_score": -0.1}, r"\[min_score\] must be a number from 0 to 1, got -0.1"),
    ({"min_score": float("nan")}, r"\[min_score\] must be"),
    ({"min_score": "0.5"}, r"\[min_score\] must be"),
    ({"min_score": True}, r"\[min_score\] must be"),
    ({"color": "hsv"}, r'\[color\] must be one of "bgr", "rgb", got \'hsv\''),
    ({"threads": 0}, r"\[threads\] must be a whole number from 1 to 256, got 0"),
    ({"threads": 257}, r"\[threads\] must be"),
    ({"threads": 1.5}, r"\[threads\] must be"),
    ({"threads": True}, r"\[threads\] must be"),
]


@pytest.mark.parametrize(
    ("options", "said"), BAD_OPTIONS, ids=[str(options)[:40] for options, _ in BAD_OPTIONS]
)
def test_a_wrong_option_lists_what_is_allowed(toy_bundle: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        patchcut.load(toy_bundle, **options)
    assert "\n" not in str(caught.value) and isinstance(caught.value, ValueError)


def test_every_option_has_a_right_value(toy_bundle: Path) -> None:
    segmenter = patchcut.load(
        toy_bundle,
        engine="onnxruntime",
        device="cpu",
        precision="fp32",
        size=168,
        head="gnn",
        mode="parts",
        parts="cc",
        refine="guided",
        min_score=0.25,
        nothing_below=0.5,
        single=True,
        color="rgb",
        threads=1,
    )
    described = segmenter.describe()
    assert (described.precision, described.size_hw, described.threads) == ("fp32", (168, 168), 1)
    assert (described.head, described.refine, described.color) == ("gnn", "guided", "rgb")
    assert (described.mode, described.parts) == ("parts", CcHead())
    assert (described.min_score, described.nothing_below, described.single) == (0.25, 0.5, True)
    assert f"toy ({toy_bundle})" in str(described) and "168x168" in str(described)


CPU, CUDA = adapter.CPU_PROVIDER, adapter.CUDA_PROVIDER


def test_cuda_without_its_provider_says_what_to_install(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "import_onnxruntime", lambda: fake_runtime([CPU], [CPU]))
    with pytest.raises(
        EngineError,
        match=r"no CUDAExecutionProvider, only CPU.*pip uninstall onnxruntime && pip install .*\[gpu\]'",
    ):
        patchcut.load(toy_bundle, device="cuda")


def test_cuda_that_does_not_really_run_is_an_error(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "import_onnxruntime", lambda: fake_runtime([CUDA, CPU], [CPU]))
    with pytest.raises(
        EngineError, match=r"has CUDAExecutionProvider but runs on CPUExecutionProvider; .*cpu"
    ):
        patchcut.load(toy_bundle, device="cuda")


def test_auto_tells_what_really_runs(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "import_onnxruntime", lambda: fake_runtime([CUDA, CPU], [CPU]))
    monkeypatch.setattr(choice, "_has_cuda_wheel", lambda: True)  # which leaves the precision to the GPU
    for kind, precision in (("x86-avx512-vnni", "int8"), ("x86-avx2", "fp32")):
        monkeypatch.setattr(choice, "cpu_kind", lambda kind=kind: kind)
        described = patchcut.load(toy_bundle).describe()
        assert (described.device, described.provider, described.precision) == ("cpu", CPU, precision)


def test_cuda_that_cannot_load_is_not_the_bundles_fault(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "import_onnxruntime", lambda: fake_runtime([CUDA, CPU], [CPU], fails=True))
    with pytest.raises(EngineError, match=r"\[device\] .* with CUDAExecutionProvider: CUDA failure 100"):
        patchcut.load(toy_bundle, device="cuda")
    described = patchcut.load(toy_bundle).describe()
    assert (described.device, described.precision) == ("cpu", "int8")


def test_a_session_that_fails_prints_nothing(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from onnxruntime import InferenceSession

    def fail(*_: object) -> None:
        raise RuntimeError("no such provider")

    monkeypatch.setattr(InferenceSession, "_create_inference_session", fail)
    with pytest.raises(BundleError, match=r"onnxruntime cannot load .*: no such provider"):
        patchcut.load(toy_bundle)
    assert capfd.readouterr().out == ""


def test_auto_takes_cuda_where_it_runs(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "import_onnxruntime", lambda: fake_runtime([CUDA, CPU], [CUDA, CPU]))
    described = patchcut.load(toy_bundle).describe()
    assert (described.device, described.provider, described.precision) == ("cuda", CUDA, "fp32")


def test_kernels_without_cuda_have_the_features_on_the_host(
    toy_bundle: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "import_onnxruntime", lambda: fake_runtime([CUDA, CPU], [CUDA, CPU]))
    monkeypatch.setattr(cuda, "is_available", lambda: False)
    segmenter = patchcut.load(toy_bundle)
    described = segmenter.describe()
    assert (described.device, described.head_device) == ("cuda", "cpu")
    assert segmenter.extractor([patchcut.Frame(photo)]).device == segmenter.extractor.device == "cpu"


def test_a_missing_onnxruntime_names_the_extra(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match=r"onnxruntime cannot be imported.*pip install .*\[cpu\]'"):
        patchcut.load(toy_bundle, engine="onnxruntime")


def test_a_failing_run_keeps_the_cause(toy_bundle: Path) -> None:
    with open_bundle(toy_bundle) as bundle:
        engine = opened(bundle)

    class Broken:
        def run_with_iobinding(self, *_: object) -> None:
            raise RuntimeError("out of\nmemory")

    engine._session = Broken()  # type: ignore[attr-defined]
    with pytest.raises(EngineError, match=r"failed to run backbone-112-int8\.onnx: out of memory; try"):
        engine.run(1)


def test_onnxruntime_is_a_registered_engine() -> None:
    assert "onnxruntime" in engine_names()


@pytest.mark.parametrize(
    ("version", "key"),
    [
        ("1.20.1", "session.intra_op.allow_spinning"),
        ("1.26.0", "session.intra_op.allow_spinning"),
        ("1.27.0", "session.intra_op.spin_duration_us"),
        ("2.0.0rc1", "session.intra_op.spin_duration_us"),
        ("unknown", "session.intra_op.allow_spinning"),
    ],
)
def test_idle_threads_spin_briefly_where_that_can_be_said(version: str, key: str) -> None:
    assert sessions.spinning(version)[0] == key


@pytest.mark.parametrize(
    ("machine", "flags", "saturates"),
    [
        ("x86_64", "flags : sse2 avx2", True),
        ("AMD64", "", True),
        ("x86_64", "flags : avx2 avx_vnni", False),
        ("x86_64", "flags : avx512f avx512_vnni", False),
        ("aarch64", "", False),
    ],
)
def test_products_are_widened_only_where_they_saturate(machine: str, flags: str, saturates: bool) -> None:
    assert sessions.saturates(machine, flags) is saturates


@pytest.mark.parametrize(
    ("flags", "precision", "floats"),
    [
        ("flags : avx2", "int8-qdq", True),
        ("flags : avx2 avx_vnni", "int8-qdq", False),
        ("flags : avx2", "int8", False),
        ("flags : avx2 avx_vnni", "fp32", True),
    ],
)
def test_products_that_nothing_widens_are_computed_in_floats(
    monkeypatch: pytest.MonkeyPatch, flags: str, precision: Any, floats: bool
) -> None:
    import onnxruntime

    monkeypatch.setattr(sessions, "cpu_flags", lambda: flags)
    monkeypatch.setattr(sessions.platform, "machine", lambda: "x86_64")
    options = sessions.session_options(onnxruntime, 1, precision)
    key = "session.disable_quant_qdq"
    if floats:
        assert options.get_session_config_entry(key) == "1"
    else:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry(key)


def typed_bundle(path: Path, precision: str) -> Path:
    """The toy with one graph, whose features go through a product with the identity in a precision."""
    product = {"fp16": half_product, "bf16": half_product, "int8-qdq": qdq_product}[precision]
    weights = toy.members()["backbone.safetensors"]
    model = onnx.load_from_string(toy.graph(toy.SIZES[0], "fp32", weights))
    graph = model.graph
    graph.node[-1].output[0] = "exact"
    nodes, tensors = product(precision)
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    files = {**toy.members(), "backbone-112-fp32.onnx": model.SerializeToString()}
    spec = toy.manifest(files)
    backbone = spec["backbones"]["toy"]
    backbone["graphs"] = [{**backbone["graphs"][1], "precision": precision}]
    return toy.write(path / f"{precision}.patchcut", files, spec)


def half_product(precision: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    kind = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    identity = helper.make_tensor("identity", kind, (toy.DIM, toy.DIM), np.eye(toy.DIM).ravel().tolist())
    nodes = [
        helper.make_node("Cast", ["exact"], ["half"], to=kind),
        helper.make_node("MatMul", ["half", "identity"], ["product"]),
        helper.make_node("Cast", ["product"], ["features"], to=TensorProto.FLOAT),
    ]
    return nodes, [identity]


QDQ_STEP = 0.5


def qdq_product(_: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Rounds features to QDQ_STEP in 8 bits, and sums them twice with weights of 127 in 8 bits."""
    tensors = {
        "step": np.float32(QDQ_STEP),
        "zero": np.int8(0),
        "weights": 127 * np.concatenate([np.eye(toy.DIM)] * 2).astype(np.int8),
        "weight_step": np.full(toy.DIM, 0.5 / 127, np.float32),
        "weight_zeros": np.zeros(toy.DIM, np.int8),
    }
    nodes = [
        helper.make_node("Concat", ["exact", "exact"], ["twice"], axis=2),
        helper.make_node("QuantizeLinear", ["twice", "step", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "step", "zero"], ["steps"]),
        helper.make_node("DequantizeLinear", ["weights", "weight_step", "weight_zeros"], ["halves"], axis=1),
        helper.make_node("MatMul", ["steps", "halves"], ["features"]),
    ]
    return nodes, [numpy_helper.from_array(np.asarray(one), name) for name, one in tensors.items()]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 0.05), ("int8-qdq", 1e-4)])
def test_graphs_of_few_bits_are_computed_right(tmp_path: Path, precision: str, tolerance: float) -> None:
    with open_bundle(typed_bundle(tmp_path, precision)) as bundle:
        engine = opened(bundle)
    assert engine.facts.precision == precision
    image = np.random.default_rng(0).standard_normal((3, 112, 112)).astype(np.float32)
    np.copyto(engine.images(1)[0], image)  # type: ignore[arg-type]
    expected = reference_features(image, "fp32")
    made = np.asarray(engine.run(1)["key"][0])
    if precision == "int8-qdq":
        steps = np.clip(np.rint(expected / QDQ_STEP), -128, 127)
        assert (np.abs(steps) == 127).any() or np.abs(steps).max() > 60, "near the ends"
        near = np.abs(expected / QDQ_STEP % 1 - 0.5) > 0.01  # those between two steps may round either way
        np.testing.assert_allclose(made[near], (QDQ_STEP * steps)[near], atol=tolerance)
    else:
        np.testing.assert_allclose(made, expected, atol=tolerance)


def test_a_precision_without_kernels_is_not_the_bundles_fault(tmp_path: Path) -> None:
    said = r"\[precision\] onnxruntime cannot load .*: it does not compute bf16 on a CPU: .*; choose another"
    with pytest.raises(EngineError, match=said):
        patchcut.load(typed_bundle(tmp_path, "bf16"))


def test_int8_features_do_not_depend_on_the_frames_beside(embedded_bundle: Path) -> None:
    rng = np.random.default_rng(0)
    images = (
        rng.standard_normal((3, 3, 224, 224)).astype(np.float32)
        * np.float32([1, 5, 0.2])[:, None, None, None]
    )
    with open_bundle(embedded_bundle) as bundle:
        engine: Any = opened(bundle, precision="int8", throughput=True, threads=2)
        np.copyto(engine.images(3), images)
        together = engine.run(3)["key"].copy()
        alone: Any = opened(bundle, precision="int8", threads=2)
    for image, rows in zip(images, together, strict=True):
        np.copyto(alone.images(1)[0], image)
        np.testing.assert_array_equal(alone.run(1)["key"][0], rows)


def test_a_failure_beside_others_is_told_after_their_end(toy_bundle: Path) -> None:
    with open_bundle(toy_bundle) as bundle:
        engine: Any = opened(bundle, throughput=True, threads=2)
    real, ended = engine._session, []

    class Broken:
        def io_binding(self) -> Any:
            return real.io_binding()

        def run_with_iobinding(self, binding: Any, options: Any) -> None:
            ended.append(binding)
            if len(ended) == 2:
                raise RuntimeError("out of memory")

    engine._session = Broken()
    with pytest.raises(EngineError, match="out of memory; allow this process more memory"):
        engine.run(5)
    assert len(ended) == 5


def test_threads_of_throughput_end_with_the_engine(toy_bundle: Path) -> None:
    before = threading.active_count()
    with open_bundle(toy_bundle) as bundle:
        for _ in range(5):
            opened(bundle, throughput=True, threads=3).run(4)
    gc.collect()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_outputs_that_nobody_wants_are_not_computed(tmp_path: Path) -> None:
    files = toy.members(tokens=True)
    path = toy.write(tmp_path / "rich.patchcut", files, toy.manifest(files, tokens=True))
    with open_bundle(path) as bundle:
        backbone = bundle.spec.backbone
        only = backbone.model_copy(update={"features": {"key": backbone.features["key"]}})
        engine: Any = open_engine(bundle, only, Settings(engine="onnxruntime"))
    assert [value.name for value in engine._session.get_outputs()] == ["features"]
