"""Bundles with several backbones, feature sets and heads, as they run."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import patchcut
import pytest
from patchcut import OptionError
from patchcut.bundle import open_bundle
from patchcut.features import Features
from patchcut.frames import as_frame
from patchcut.heads import CcHead
from patchcut.settings import Settings
from patchcut.stages import Extractor
from safetensors.numpy import save

from tests.runtime import toy_bundle as toy

PARTS = ("left", "right", "rest")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy with a second backbone of two feature sets, and beside its head two that use them."""
    files, second = toy.members(), toy.members(tokens=True)
    files |= {f"other-{name}": data for name, data in second.items() if name.endswith(".onnx")}
    files |= {f"{name}.safetensors": save(wide_tensors(seed)) for name, seed in (("wide", 5), ("parts", 6))}
    spec, other = toy.manifest(files), toy.manifest(files, tokens=True)["backbones"]["toy"]
    for graph in other["graphs"]:
        graph["file"] = f"other-{graph['file']}"
    spec["backbones"]["other"] = other
    for name, role, labels in (("wide", "objects", toy.LABELS), ("parts", "parts", PARTS)):
        head: dict[str, Any] = deepcopy(spec["heads"][0])
        head |= {"name": name, "role": role, "labels": list(labels), "backbone": "other"}
        spec["heads"].append({**head, "features": ["token"], "files": {"weights": f"{name}.safetensors"}})
    calibration = {"weights": [1.0, 0.0, 0.0, 0.0], "bias": 0.0, "nothing_below": 0.25}
    spec["heads"][1]["calibration"] = calibration
    return toy.write(tmp_path_factory.mktemp("several") / "several.patchcut", files, spec)


def wide_tensors(seed: int) -> dict[str, np.ndarray]:
    """A head for the features and what of them is positive."""
    tensors, random = toy.head_tensors(seed), np.random.default_rng(seed)
    for name in ("shift", "scale"):
        tensors[name] = np.concatenate([tensors[name], tensors[name]])
    for name in ("gcn.0.theta", "gcn.0.root"):
        tensors[name] = random.standard_normal((2 * toy.DIM, 6)).astype(np.float32)
    return tensors


def test_every_feature_set_that_is_needed_is_made(path: Path, photo: np.ndarray) -> None:
    with open_bundle(path) as bundle:
        extractor = Extractor.open(bundle, Settings(), backbone="other", needs=("token", "key"))
    features = extractor([as_frame(photo, "bgr")])
    key, token = features["key"], features["token"]
    assert (key.shape, token.shape) == ((1, 64, toy.DIM), (1, 64, 2 * toy.DIM))
    assert features.default is token
    np.testing.assert_array_equal(token, np.concatenate([key, np.maximum(key, 0)], axis=2))


def test_a_head_runs_on_its_own_features(path: Path, toy_bundle: Path, photo: np.ndarray) -> None:
    first, wide = (patchcut.load(path, head=name)(photo) for name in ("auto", "wide"))
    np.testing.assert_array_equal(first.assignment, patchcut.load(toy_bundle)(photo).assignment)
    assert np.abs(wide.assignment - first.assignment).max() > 0.05


def test_a_calibration_is_of_its_head_alone(path: Path) -> None:
    """Both heads are of the kind "gnn"."""
    described = [patchcut.load(path, head=name).describe() for name in ("gnn", "wide")]
    assert [(it.calibrated, it.nothing_below) for it in described] == [(False, 0.0), (True, 0.25)]


def test_features_that_there_are_not_are_told(path: Path) -> None:
    class Own:
        name, labels, needs, devices = "own", ("background", "thing"), ("value",), ("cpu",)

        def __call__(self, features: Features) -> np.ndarray:
            raise AssertionError

    with pytest.raises(OptionError, match=r"\[head\] needs the features value, the backbone has key"):
        patchcut.load(path, head=Own())


def test_parts_are_of_the_same_backbone(path: Path, photo: np.ndarray) -> None:
    result = patchcut.load(path, head="wide", mode="parts", nothing_below=0.0)(photo)
    assert set(result.labels) >= set(PARTS)
    with pytest.raises(OptionError, match=r'\[parts\] must be of the backbone of "gnn", toy, not of other'):
        patchcut.load(path, head="gnn", mode="parts")
    assert len(patchcut.load(path, head="gnn", mode="parts", parts="kmeans:k=2")(photo).labels) == 3


def test_trained_parts_choose_the_backbone_of_a_fitted_head(path: Path) -> None:
    segmenter = patchcut.load(path, head="kmeans", mode="parts", parts="parts")
    assert list(segmenter.extractor.backbone.features) == ["key", "token"], "kmeans is fitted to the first"


def test_a_head_is_chosen_by_its_name_before_its_kind(path: Path, tmp_path: Path) -> None:
    with open_bundle(path) as bundle:
        spec = bundle.spec.model_dump(mode="json")
        files = {name: bundle.read(name) for name in bundle.spec.files}
    for head, name in zip(spec["heads"], ("first", "gnn"), strict=False):
        head["name"] = name
    renamed = toy.write(tmp_path / "renamed.patchcut", files, spec)
    told = {name: patchcut.load(renamed, head=name).describe().head for name in ("auto", "first", "gnn")}
    assert told == {"auto": "first", "first": "first", "gnn": "gnn"}
    spec["heads"][1]["name"] = "cc"
    renamed = toy.write(tmp_path / "cc.patchcut", files, spec)
    assert patchcut.load(renamed, head="cc").describe().head == "cc", "the bundle's own"
    assert patchcut.load(renamed, head="cc:").describe().head == CcHead()
