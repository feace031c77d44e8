"""Heads that name patches, in one ONNX file with the backbone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs patchcut[export]")
ort = pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")
cv2 = pytest.importorskip("cv2", reason="needs patchcut[cpu]")

import patchcut
from patchcut import Frame, Settings, open_bundle
from patchcut.cli.demo import SAMPLES
from patchcut.heads import open_head
from patchcut.heads.levels import LevelsHead
from patchcut.heads.prototypes import PrototypesHead
from patchcut.sources.photos import read_photo
from patchcut.stages import Extractor
from patchcut_export.fused.check import compare
from patchcut_export.fused.model import fuse
from patchcut_export.fused.plan import FusedPlan
from tests.runtime import toy_bundle as toy
from tests.runtime.heads import test_levels, test_prototypes

PROTOTYPES = {"prototypes": np.eye(3, toy.DIM, dtype=np.float32), "mean": np.full(toy.DIM, 0.1, np.float32)}


def test_prototypes_are_a_part_of_one_file(tmp_path: Path) -> None:
    with open_bundle(test_prototypes.bundle_of(tmp_path / "x.patchcut", PROTOTYPES)) as bundle:
        plan = FusedPlan(head="clusters")
        assert compare(fuse(bundle, plan), bundle, plan).largest < 1e-3


def test_of_levels_the_file_has_the_dataset_level(tmp_path: Path) -> None:
    path = test_levels.bundle_of(tmp_path / "x.patchcut", test_levels.tensors())
    with open_bundle(path) as bundle:
        plan, spec = FusedPlan(head="levels", color="bgr"), bundle.spec.head("names")
        assert spec is not None
        made = fuse(bundle, plan)
        assert compare(made, bundle, plan).largest < 1e-3
        head = open_head(bundle, spec)
        extractor = Extractor.open(bundle, Settings(precision="fp32"), needs=spec.features)
        side = extractor.graph.size_hw[0]
        frame = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
        features = extractor([Frame(frame)])
        assert isinstance(head, LevelsHead)
        votes = head.vote(features).votes[0, 0]
    session = ort.InferenceSession(made, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": frame[None]})
    np.testing.assert_allclose(1 - found[0, :, 0], votes, atol=1e-3)


@pytest.mark.parametrize("by_region", [True, False])
def test_concepts_are_class_maps_of_one_file(tmp_path: Path, by_region: bool) -> None:
    """Against the runtime's own patches; where the foreground is looked at, its head is in the file, too."""
    seg = patchcut.load(head="concepts", engine="onnxruntime", precision="fp32")
    for name in ("astronaut", "chelsea"):
        box = None if by_region else [(60, 40, 220, 260)]
        seg.concepts.add(name, [SAMPLES / f"{name}.jpg"], boxes=box)
    path = tmp_path / "mine.patchcut"
    seg.concepts.save(path)
    with open_bundle(path) as bundle:
        plan = FusedPlan(head="concepts", color="bgr", label_map=True)
        made = fuse(bundle, plan)
        assert compare(made, bundle, plan).same > 0.999
        (spec,) = (one for one in bundle.spec.heads if one.name == "concepts")
        head = open_head(bundle, spec)
    assert isinstance(head, PrototypesHead) and (head.foreground is not None) == by_region
    session = ort.InferenceSession(made, providers=["CPUExecutionProvider"])
    for column, name in enumerate(("astronaut", "chelsea"), start=1):
        frame = cv2.resize(read_photo(SAMPLES / f"{name}.jpg"), (224, 224), interpolation=cv2.INTER_AREA)
        assignment, label_map = session.run(None, {"image": frame[None]})
        own = head.per_patch(seg.extractor([Frame(frame)]))
        np.testing.assert_allclose(assignment, own, atol=1e-3)
        assert (label_map == column).mean() > 0.01
