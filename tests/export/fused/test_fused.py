"""One ONNX file from frame to assignment, held to the numpy references and to patchcut itself."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs patchcut[export]")
ort = pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

from patchcut.bundle import EMBEDDED, Bundle, open_bundle
from patchcut.frames import Frame
from patchcut.settings import Settings
from patchcut.stages import Canvas, Extractor
from patchcut_export.errors import ExportError
from patchcut_export.fused import check, heads
from patchcut_export.fused.check import compare
from patchcut_export.fused.model import fuse
from patchcut_export.fused.plan import FusedPlan
from patchcut_kernels import reference
from tests.runtime import toy_bundle as toy

Patchcut = Callable[..., int]

CLOSE = {"rtol": 0, "atol": 2e-5}
SMALL, LARGE = toy.SIZES


def open_toy(path: Path, *, fit: str = "stretch", tokens: bool = False, **head: Any) -> Bundle:
    files = toy.members(tokens=tokens)
    spec = toy.manifest(files, tokens=tokens)
    spec["backbones"]["toy"]["fit"] = fit
    spec["heads"][0] |= head
    return open_bundle(toy.write(path, files, spec))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return open_toy(tmp_path / "toy.patchcut")


def frames_of(size_hw: tuple[int, int], count: int = 3) -> np.ndarray:
    """[count, H, W, 3] uint8: bright and dark areas under noise."""
    rng = np.random.default_rng(9)
    coarse = rng.integers(0, 200, (count, 4, 4, 3))
    rows, columns = (np.arange(side) * 4 // side for side in size_hw)
    noise = rng.integers(0, 55, (count, *size_hw, 3))
    return (coarse[:, rows][:, :, columns] + noise).astype(np.uint8)


def expected(
    frame: np.ndarray, size: int, *, color: str, fit: str = "stretch", **affinity: Any
) -> np.ndarray:
    """[n, k] by the numpy references."""
    backbone = toy.manifest({})["backbones"]["toy"]
    image = reference.preprocess(frame, (size, size), backbone["mean"], backbone["std"], color=color, fit=fit)
    features = toy.reference_features(image, "fp32")
    edges = reference.affinity(features, **affinity)
    return reference.gcn_forward(features, edges, toy.toy_weights())


def run(data: bytes, frames: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, {"image": frames})
    return found


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("size", toy.SIZES)
@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_a_batch_of_frames_becomes_its_assignments(
    bundle: Bundle, precision: str, size: int, color: Any
) -> None:
    frames = frames_of((size, size))
    (found,) = run(fuse(bundle, FusedPlan(size=size, precision=precision, color=color)), frames)
    wanted = np.stack([expected(frame, size, color=color) for frame in frames])
    assert wanted.std(axis=(0, 1)).min() > 0.05, "the reference tells nothing"
    np.testing.assert_allclose(found, wanted, **CLOSE)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("frame_hw", [(75, 300), (240, 130), (SMALL, SMALL)])
def test_frames_are_resized_inside_as_patchcut_does(
    tmp_path: Path, frame_hw: tuple[int, int], fit: str
) -> None:
    opened = open_toy(tmp_path / "toy.patchcut", fit=fit)
    frames = frames_of(frame_hw, 2)
    plan = FusedPlan(frame_hw=frame_hw, color="bgr", label_map=True)
    found, labels = run(fuse(opened, plan), frames)
    canvas = Canvas.of(frame_hw, opened.spec.backbone, opened.spec.backbone.graphs[0])
    for i, frame in enumerate(frames):
        np.testing.assert_allclose(found[i], expected(frame, SMALL, color="bgr", fit=fit), **CLOSE)
        own, _ = canvas.upsample(found[i])
        assert labels[i].dtype == np.int32 and len(np.unique(own)) > 1
        assert (labels[i] == own).mean() > 0.999, "but for ties of two columns"


@pytest.mark.parametrize(
    "affinity", [{"kind": "dot", "threshold": 0.5}, {"kind": "cosine", "threshold": 0.4}]
)
@pytest.mark.parametrize(("normalize", "temperature"), [(True, 0.2), (False, 1000.0)])
def test_settings_of_the_head_are_in_the_graph(
    tmp_path: Path,
    affinity: dict[str, Any],
    normalize: bool,
    temperature: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"normalize": normalize, "temperature": temperature}
    weights = dataclasses.replace(toy.toy_weights(), **settings)
    monkeypatch.setattr(toy, "toy_weights", lambda: weights)
    opened = open_toy(tmp_path / "toy.patchcut", affinity=affinity, **settings)
    frames = frames_of((SMALL, SMALL), 1)
    (found,) = run(fuse(opened, FusedPlan()), frames)
    wanted = expected(frames[0], SMALL, color="rgb", **affinity)
    assert wanted.std(axis=0).max() > 0.05
    np.testing.assert_allclose(found[0], wanted, rtol=0, atol=2e-4)


def test_a_black_frame_gives_no_nan(bundle: Bundle) -> None:
    (found,) = run(fuse(bundle, FusedPlan()), np.zeros((1, SMALL, SMALL, 3), np.uint8))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize("label_map", [False, True])
def test_features_are_those_of_the_backbone(tmp_path: Path, label_map: bool) -> None:
    opened = open_toy(tmp_path / "toy.patchcut", tokens=True)
    plan = FusedPlan(frame_hw=(75, 130), color="bgr", features=True, label_map=label_map)
    frames = frames_of((75, 130), 2)
    *_, found = run(fuse(opened, plan), frames)
    own = Extractor.open(opened, Settings(precision="fp32", device="cpu"), backbone="toy", needs=("key",))
    for frame, rows in zip(frames, found, strict=True):
        np.testing.assert_allclose(rows, own([Frame(frame)]).of(("key",))[0], atol=1e-3)
    assert found.std(axis=1).min() > 0.01


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_planes_of_floats_give_what_pixels_do(bundle: Bundle, color: Any) -> None:
    frames = frames_of((75, 130), 2)
    plan = FusedPlan(frame_hw=(75, 130), color=color)
    planes = np.ascontiguousarray(frames.transpose(0, 3, 1, 2).astype(np.float32))
    data = fuse(bundle, dataclasses.replace(plan, planar=True))
    np.testing.assert_array_equal(run(data, planes)[0], run(fuse(bundle, plan), frames)[0])


def test_the_file_stands_alone_and_says_what_it_is(tmp_path: Path) -> None:
    opened = open_toy(tmp_path / "toy.patchcut", tokens=True)
    data = fuse(opened, FusedPlan(frame_hw=(48, 64), color="bgr"))
    model = onnx.load_model_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)
    assert [value.name for value in model.graph.output] == ["assignment"]
    assert "Concat" not in {node.op_type for node in model.graph.node}, "feature sets that no head needs stay"
    read = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= read
    said = {entry.key.removeprefix("patchcut."): entry.value for entry in model.metadata_props}
    assert json.loads(said["labels"]) == list(toy.LABELS)
    assert (json.loads(said["size_hw"]), json.loads(said["grid_hw"])) == ([48, 64], [8, 8])
    assert (said["color"], said["licence"], said["precision"]) == ("bgr", "Apache-2.0", "fp32")
    assert str(tmp_path) not in str(model.metadata_props)
    assert data == fuse(opened, FusedPlan(frame_hw=(48, 64), color="bgr"))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_embedded_bundle_gives_its_own_answers(precision: str) -> None:
    with open_bundle(EMBEDDED) as opened:
        plan = FusedPlan(precision=precision, frame_hw=(300, 400))
        data = fuse(opened, plan)
        found = compare(data, opened, plan)
    least, most = (0.9999, 1e-4) if precision == "fp32" else (0.98, 0.4)  # 8 bits round to another step
    assert found.photos == 4 and found.same > least and found.largest < most
    operators = {node.op_type for node in onnx.load_model_from_string(data).graph.node}
    assert ("MatMulInteger" in operators) == (precision == "int8")
    assert "DequantizeLinear" not in operators, "weights in 8 bits let an engine round activations, too"


def test_openvino_runs_it(bundle: Bundle, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="needs patchcut[openvino]")
    plan = FusedPlan(frame_hw=(75, 300), label_map=True)
    data = fuse(bundle, plan)
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    frames = frames_of((75, 300))
    assignment, labels = compiled(frames).values()
    wanted = run(data, frames)
    np.testing.assert_allclose(assignment, wanted[0], **CLOSE)
    assert (labels == wanted[1]).mean() > 0.999


def test_the_program_of_the_docs_runs_it(tmp_path: Path, docs_block: Callable[[str, str], str]) -> None:
    openvino = pytest.importorskip("openvino", reason="needs patchcut[openvino]")
    compiler, package = shutil.which("g++"), Path(openvino.__file__).parent
    if compiler is None or not (package / "include/openvino/openvino.hpp").is_file():
        pytest.skip("needs g++ and OpenVINO's headers")
    (tmp_path / "m.cpp").write_text(docs_block("one-file.md", "cpp"))
    (library,) = (package / "libs").glob("libopenvino.so.*")
    libraries = [str(library), f"-Wl,-rpath,{package / 'libs'}"]
    command = [compiler, "-std=c++17", "-Wall", f"-I{package / 'include'}", "m.cpp", *libraries, "-o", "m"]
    subprocess.run(command, cwd=tmp_path, check=True)
    plan = FusedPlan(frame_hw=(224, 224))
    frames = frames_of((224, 224), 1)
    with open_toy(tmp_path / "toy.patchcut") as opened:
        data = fuse(opened, plan)
    (tmp_path / "m.onnx").write_bytes(data)
    done = subprocess.run(
        ["./m", "m.onnx"], input=frames.tobytes(), cwd=tmp_path, check=True, capture_output=True
    )
    (wanted,) = run(data, frames)
    found = np.frombuffer(done.stdout, np.uint8)
    assert 0 < found.sum() < len(found)
    np.testing.assert_array_equal(found, wanted[0, :, 1] > wanted[0, :, 0])


@pytest.mark.parametrize("planar", [False, True])
def test_tensorrt_builds_it(bundle: Bundle, planar: bool) -> None:
    tensorrt = pytest.importorskip("tensorrt_rtx", reason="needs patchcut[tensorrt-rtx]")
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, logger)
    plan = FusedPlan(frame_hw=(75, 300), color="bgr", label_map=True, planar=planar)
    assert parser.parse(fuse(bundle, plan)), [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    shape = (3, 75, 300) if planar else (75, 300, 3)
    profile.set_shape("image", (1, *shape), (1, *shape), (8, *shape))
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None


def test_a_file_that_differs_is_not_written(
    run_cli: Patchcut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def hotter(nodes: Any, features: Any, bundle: Any, head: Any, grid_hw: Any, output: str) -> None:
        changed = head.model_copy(update={"temperature": 2 * head.temperature})
        heads.add_gnn(nodes, features, bundle, changed, grid_hw, output)

    monkeypatch.setitem(heads.FUSED, "gnn", hotter)
    path = toy.write(tmp_path / "toy.patchcut")
    assert run_cli("export", "fused", path, "--out", tmp_path / "m.onnx") == 1
    assert "[fused] the file's assignment differs from patchcut's" in capfd.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["toy.patchcut"]


def test_the_command_writes_the_file(
    run_cli: Patchcut, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, out = toy.write(tmp_path / "toy.patchcut"), tmp_path / "m.onnx"
    options = ["--size", LARGE, "--frame", "60x80", "--color", "bgr", "--label-map", "--precision", "int8"]
    options.append("--features")
    assert run_cli("export", "fused", path, "--out", out, *options) == 0
    said = capfd.readouterr().err
    assert "image [batch, 60, 80, 3] uint8 bgr to assignment [batch, 144, 3] float32" in said
    assert "100.00% of the patches alike" in said
    assert "and label_map [batch, 60, 80] int32 and features [batch, 144, 8] float32" in said
    found, labels, features = run(out.read_bytes(), frames_of((60, 80)))
    assert found.shape == (3, 144, 3) and labels.shape == (3, 60, 80) and features.shape == (3, 144, 8)
    assert run_cli("export", "fused", path, "--out", out, "--planar") == 0
    assert "image [batch, 3, 112, 112] float32 rgb to assignment [batch, 64, 3]" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--head", "cc"], '[head] must be one of "auto", "gnn", got'),
        (["--size", 100], "[size] must be one of the bundle's sizes (112, 168), got 100"),
        (["--precision", "fp16"], "[precision] the bundle has int8, fp32 at this size, got 'fp16'"),
        (["--precision", "fp8"], "[precision] must be one of"),
        (["--frame", "640"], "[frame] must be a height and a width, such as 480x640, got '640'"),
        (["--frame", "0x640"], "[frame] must have sides of 1 to 8192 pixels, got 0x640"),
    ],
)
def test_bad_options_are_one_line(
    run_cli: Patchcut,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    options: list[object],
    said: str,
) -> None:
    path = toy.write(tmp_path / "toy.patchcut")
    assert run_cli("export", "fused", path, "--out", tmp_path / "m.onnx", *options) == 2
    errors = capfd.readouterr().err
    assert said in errors and len(errors.splitlines()) == 1
    assert not (tmp_path / "m.onnx").exists()


def test_a_bundle_without_a_head_says_what_makes_one(tmp_path: Path) -> None:
    files = toy.members()
    path = toy.write(tmp_path / "x.patchcut", files, toy.manifest(files) | {"heads": []})
    remedy = "make one with `patchcut export train`"
    with open_bundle(path) as opened, pytest.raises(ExportError, match=f"has no trained head .*; {remedy}"):
        fuse(opened, FusedPlan())


def test_more_than_one_file_can_hold_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchcut_export.fused.model._MAX_BYTES", 10_000)
    with pytest.raises(ExportError, match="one ONNX file has at most 10,000; export fewer bits"):
        fuse(bundle, FusedPlan())


def test_the_samples_are_what_is_compared() -> None:
    assert len(list(check.SAMPLES.glob("*.jpg"))) == 4


@pytest.mark.parametrize("precision", ["fp16", "int8-qdq"])
def test_every_precision_of_a_vit_is_fused(
    build: Callable[..., Path], tmp_path: Path, precision: str, paint: Callable[..., Any]
) -> None:
    from patchcut_export.precision.pictures import Pictures
    from tests.export.conftest import add_head

    options = {"sizes": (64,), "precision": precision, "allow_inaccurate": True}
    if precision == "int8-qdq":
        photos = [paint(seed)[0] for seed in range(4)]
        options["pictures"] = Pictures(photos, photos, "tests", are_photos=False)
    backbone = build(tmp_path / "backbone.patchcut", **options)
    path = add_head(backbone, tmp_path / "headed.patchcut", ("background", "foreground"))
    with open_bundle(path) as opened:
        plan = FusedPlan(precision=precision, frame_hw=(48, 80))
        assert compare(fuse(opened, plan), opened, plan).same > 0.95
