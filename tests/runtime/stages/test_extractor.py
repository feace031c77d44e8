"""Frames to features: several at once, several sets, from the backbone that a head was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import patchcut
import patchcut_kernels as kernels
import pytest
from patchcut import EngineError, Features, Frame, OptionError, Settings, open_bundle
from patchcut.stages import Extractor
from safetensors.numpy import save

from tests.runtime import toy_bundle as toy

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def rich_bundle(tmp_path: Path) -> Path:
    """Two feature sets, a second backbone with another mean, heads of each, and one for parts."""
    files = toy.members(tokens=True)
    spec = toy.manifest(files, tokens=True)
    spec["backbones"]["bright"] = {**spec["backbones"]["toy"], "mean": [0.2, 0.2, 0.2]}
    tensors = toy.head_tensors()
    for name in ("shift", "scale"):
        tensors[name] = np.concatenate([tensors[name], tensors[name]])
    for name in ("gcn.0.theta", "gcn.0.root"):
        tensors[name] = np.concatenate([tensors[name], 0.5 * tensors[name]])
    files["tokens.safetensors"] = save(tensors)
    (head,) = spec["heads"]
    on_tokens = {"features": ["token"], "files": {"weights": "tokens.safetensors"}}
    spec["heads"] += [
        {**head, "name": "bright-gnn", "backbone": "bright"},
        {**head, "name": "token-gnn", **on_tokens},
        {**head, "name": "token-parts", "role": "parts", "labels": ["a", "b", "c"], **on_tokens},
    ]
    spec["files"] = toy.manifest(files)["files"]
    return toy.write(tmp_path / "rich.patchcut", files, spec)


def extract(path: Path, frames: list[Frame], needs: tuple[str, ...] = (), **options: Any) -> Features:
    with open_bundle(path) as bundle:
        return Extractor.open(bundle, Settings(size=112, precision="fp32"), needs=needs, **options)(frames)


def test_frames_of_a_batch_are_as_each_by_itself(toy_bundle: Path, photo: np.ndarray) -> None:
    rgb = np.ascontiguousarray(photo[::3, ::2, ::-1])
    frames = [Frame(photo), Frame(rgb, "rgb"), Frame(photo[:50, 100:160])]
    together = extract(toy_bundle, frames)
    assert (together.batch, together.grid_hw, together.device) == (3, (8, 8), "cpu")
    for frame, rows in zip(frames, together.default, strict=True):
        alone = extract(toy_bundle, [frame]).default[0]
        np.testing.assert_allclose(rows, alone, rtol=1e-4, atol=1e-4)
        image = kernels.preprocess(frame.image, 112, MEAN, STD, color=frame.color)
        expected = toy.reference_features(image, "fp32")
        assert expected.std() > 1
        np.testing.assert_allclose(rows, expected, rtol=1e-3, atol=1e-2)


def test_only_the_sets_that_are_needed_are_made(rich_bundle: Path, photo: np.ndarray) -> None:
    frames = [Frame(photo)]
    assert list(extract(rich_bundle, frames).sets) == ["key"]
    both = extract(rich_bundle, frames, ("token", "key"))
    assert list(both.sets) == ["token", "key"]
    keys, tokens = both["key"], both["token"]
    assert (keys.shape, tokens.shape) == ((1, 64, toy.DIM), (1, 64, 2 * toy.DIM))
    np.testing.assert_allclose(tokens, np.concatenate([keys, np.maximum(keys, 0)], axis=2), atol=1e-5)
    assert both.of(("key",)) is keys and both.of(()) is both.default is tokens


def test_a_backbone_has_its_own_normalisation(rich_bundle: Path, photo: np.ndarray) -> None:
    frames = [Frame(photo)]
    first, bright = (extract(rich_bundle, frames, backbone=name)["key"] for name in (None, "bright"))
    image = kernels.preprocess(photo, 112, (0.2, 0.2, 0.2), STD)
    np.testing.assert_allclose(bright[0], toy.reference_features(image, "fp32"), rtol=1e-3, atol=1e-2)
    assert np.abs(bright - first).max() > 1


def test_a_head_is_chosen_by_name_and_gets_its_backbone_and_features(
    rich_bundle: Path, photo: np.ndarray
) -> None:
    results = {}
    for name, backbone, wanted in (
        ("gnn", "toy", ["key"]),
        ("bright-gnn", "bright", ["key"]),
        ("token-gnn", "toy", ["token"]),
    ):
        segmenter = patchcut.load(rich_bundle, head=name)
        assert segmenter.describe().head == name
        assert list(segmenter.extractor.backbone.features) == wanted
        assert segmenter.extractor.backbone.mean == segmenter.spec.backbones[backbone].mean
        results[name] = segmenter(photo).assignment
    assert np.abs(results["gnn"] - results["bright-gnn"]).max() > 0.1
    assert np.abs(results["gnn"] - results["token-gnn"]).max() > 0.1
    np.testing.assert_array_equal(patchcut.load(rich_bundle)(photo).assignment, results["gnn"])


def test_two_heads_may_need_two_sets_of_one_backbone(rich_bundle: Path, photo: np.ndarray) -> None:
    segmenter = patchcut.load(rich_bundle, mode="parts")
    assert segmenter.describe().parts == "token-parts"
    assert list(segmenter.extractor.backbone.features) == ["key", "token"]
    assert segmenter(photo).labels == ("background", "a", "b", "c")
    with pytest.raises(OptionError, match=r'\[parts\] must be one of "auto", "token-parts", "gnn-fit"'):
        patchcut.load(rich_bundle, mode="parts", parts="token-gnn")


@pytest.mark.parametrize("count", ["none", "too many"])
def test_the_number_of_frames_is_checked(toy_segmenter: patchcut.Segmenter, count: str) -> None:
    extractor = toy_segmenter.extractor
    largest = extractor.engine.facts.max_batch
    frames = [Frame(np.zeros((4, 6, 3), np.uint8))] * (0 if count == "none" else largest + 1)
    said = rf"\[extractor\] takes 1 to {largest} frames at once, got {len(frames)}"
    with pytest.raises(EngineError, match=said):
        extractor(frames)
