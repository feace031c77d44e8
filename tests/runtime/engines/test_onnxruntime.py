from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import patchcut
import patchcut_kernels as kernels
import pytest
from patchcut import Bundle, BundleError, EngineError, OptionError, Settings, open_bundle
from patchcut.engines import Engine, engine_names, open_engine
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
    ({"head": "magic"}, r'\[head\] must be one of "auto", "gnn", "gnn-fit", .*, got \'magic\''),
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
    described = patchcut.load(toy_bundle).describe()
    assert (described.device, described.provider, described.precision) == ("cpu", CPU, "int8")


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
