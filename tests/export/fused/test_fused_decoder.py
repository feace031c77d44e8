"""A mask decoder in one ONNX file: the graph has its assignment already, and labels are of the finer grid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs patchcut[export]")
ort = pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

import patchcut
from patchcut import Frame, Settings, open_bundle
from patchcut.cells import patch_means
from patchcut.concepts.shown import look
from patchcut.heads import open_head
from patchcut.heads.prototypes import PrototypesHead
from patchcut.stages import Canvas, Extractor
from patchcut_export.fused.check import compare
from patchcut_export.fused.model import fuse
from patchcut_export.fused.plan import FusedPlan, describe
from safetensors.numpy import save
from tests.runtime import toy_bundle as toy
from tests.runtime import toy_decoder

SMALL, _ = toy.SIZES


def frames_of(size_hw: tuple[int, int]) -> np.ndarray:
    """[2, H, W, 3] uint8: bright and dark areas under noise."""
    rng = np.random.default_rng(4)
    coarse = rng.integers(0, 200, (2, 5, 5, 3))
    rows, columns = (np.arange(side) * 5 // side for side in size_hw)
    return (coarse[:, rows][:, :, columns] + rng.integers(0, 55, (2, *size_hw, 3))).astype(np.uint8)


def run(data: bytes, frames: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, {"image": frames})
    return found


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize(("cells", "labels"), [(1, 2), (2, 3), (7, 2)])
def test_label_maps_are_those_of_the_segmenter(tmp_path: Path, fit: str, cells: int, labels: int) -> None:
    path = toy_decoder.write(tmp_path / "x.patchcut", cells, labels, fit=fit)
    frames = frames_of((75, 130))
    plan = FusedPlan(frame_hw=(75, 130), color="bgr", label_map=True)
    with open_bundle(path) as bundle:
        assignment, label_maps = run(fuse(bundle, plan), frames)
    segmenter = patchcut.load(path, engine="onnxruntime", precision="fp32", size=SMALL)
    for i, frame in enumerate(frames):
        result = segmenter(frame)
        np.testing.assert_allclose(assignment[i], result.assignment, atol=2e-5)
        own, _ = segmenter._work.canvas(Frame(frame)).upsample(result.assignment)
        assert len(np.unique(own)) == labels
        assert (label_maps[i] == own).mean() > 0.999, "but for ties of two columns"


def test_no_head_is_added(tmp_path: Path) -> None:
    with open_bundle(toy_decoder.write(tmp_path / "x.patchcut")) as bundle:
        plan = FusedPlan()
        made = fuse(bundle, plan)
        assert compare(made, bundle, plan).largest < 1e-4
        assert describe(bundle, plan).endswith("to assignment [batch, 256, 2] float32")
        gnn = fuse(bundle, FusedPlan(head="gnn"))
    model = onnx.load_model_from_string(made)
    own = [node.op_type for node in model.graph.node if node.name.startswith(("decoder/", "assignment"))]
    assert own == ["Identity"]
    assert not any("embed" in tensor.name for tensor in model.graph.initializer), "the features are cut off"
    said = {entry.key.removeprefix("patchcut."): entry.value for entry in model.metadata_props}
    assert (json.loads(said["grid_hw"]), json.loads(said["min_area_patches"])) == ([16, 16], 2.0)
    props = onnx.load_model_from_string(gnn).metadata_props
    others = {entry.key.removeprefix("patchcut."): entry.value for entry in props}
    assert (json.loads(others["grid_hw"]), json.loads(others["min_area_patches"])) == ([8, 8], 0.5)


def test_openvino_runs_it(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="needs patchcut[openvino]")
    frames = frames_of((75, 130))
    with open_bundle(toy_decoder.write(tmp_path / "x.patchcut", 7)) as bundle:
        data = fuse(bundle, FusedPlan(frame_hw=(75, 130), label_map=True))
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assignment, labels = compiled(frames).values()
    wanted = run(data, frames)
    np.testing.assert_allclose(assignment, wanted[0], atol=2e-5)
    assert (labels == wanted[1]).mean() > 0.999


def named(path: Path, cells: int) -> Path:
    """A bundle whose concepts are looked for where the decoder says foreground."""
    rng = np.random.default_rng(0)
    weights = {
        "prototypes": rng.standard_normal((3, toy.DIM)).astype(np.float32),
        "mean": np.zeros(toy.DIM, np.float32),
        "owners": np.array([1, 2, 1], np.int32),
        "thresholds": np.array([0, -0.3, -0.3], np.float32),
    }
    files = toy_decoder.members(cells) | {"concepts.safetensors": save(weights)}
    spec: dict[str, Any] = toy_decoder.manifest(files, cells)
    spec["heads"].append(
        {
            "name": "concepts",
            "kind": "prototypes",
            "role": "names",
            "backbone": "toy",
            "features": ["key", "mask"],
            "labels": ["background", "mug", "bowl"],
            "concepts": {"foreground": "decoder"},
            "files": {"weights": "concepts.safetensors"},
        }
    )
    return toy.write(path, files, spec)


@pytest.mark.parametrize("cells", [1, 2])
def test_concepts_look_where_the_patches_are_foreground_on_average(tmp_path: Path, cells: int) -> None:
    path = named(tmp_path / "x.patchcut", cells)
    plan = FusedPlan(head="concepts", color="bgr", label_map=True)
    with open_bundle(path) as bundle:
        assert compare(fuse(bundle, plan), bundle, plan).largest < 1e-3
        spec = bundle.spec.heads[-1]
        head = open_head(bundle, spec)
        extractor = Extractor.open(bundle, Settings(precision="fp32"), needs=spec.features)
    features = extractor([Frame(frame) for frame in frames_of((SMALL, SMALL))])
    assert isinstance(head, PrototypesHead)
    side = patch_means(np.array(features["mask"]), (8, 8))[:, :, 1]
    assert side.std() > 0.1
    for named_by in (head(features), head.per_patch(features)):
        assert named_by.shape == (2, 64, 3)
        named_any = named_by[:, :, 1:].sum(axis=2)
        np.testing.assert_allclose(named_any[named_any > 0], side[named_any > 0], atol=1e-5)
        assert (named_any > 0).mean() > 0.1


def test_a_concept_is_shown_by_the_patches_that_are_foreground(tmp_path: Path) -> None:
    """Without a box it is the largest piece of the foreground, by the means of the patches' cells."""
    image = np.full((SMALL, SMALL, 3), 15, np.uint8)
    image[28:84, 42:93] = 230  # of the last patches, 9 of 14 columns
    with open_bundle(named(tmp_path / "x.patchcut", 2)) as bundle:
        decoder = open_head(bundle, bundle.spec.heads[0])
        extractor = Extractor.open(bundle, Settings(precision="fp32"), needs=("key", "mask"))
    canvas = Canvas.of((SMALL, SMALL), extractor.backbone, extractor.graph)
    shown = look(extractor([Frame(image)]), "key", canvas, None, decoder)
    assert np.argwhere(shown.inside.reshape(8, 8)).min(axis=0).tolist() == [2, 3]
    assert shown.inside.sum() == 16 and shown.seen == 1
    assert shown.foreground is not None and shown.foreground.shape == (64,)


def test_the_command_writes_it(
    run_cli: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, out = toy_decoder.write(tmp_path / "x.patchcut", 7), tmp_path / "m.onnx"
    assert run_cli("export", "fused", path, "--out", out, "--frame", "60x80", "--label-map") == 0
    said = capfd.readouterr().err
    assert "to assignment [batch, 3136, 2] float32 and label_map [batch, 60, 80] int32" in said
    assert "100.00% of the patches alike" in said
