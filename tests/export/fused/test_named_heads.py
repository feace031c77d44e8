"""Heads that name patches, in one ONNX file with the backbone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs patchcut[export]")
ort = pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

from patchcut import Frame, Settings, open_bundle
from patchcut.heads import open_head
from patchcut.heads.levels import LevelsHead
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
