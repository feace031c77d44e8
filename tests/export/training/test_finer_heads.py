"""Making and measuring bundles whose head answers on a finer grid: patches have the mean of their cells."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import patchcut
import pytest

pytest.importorskip("torch", reason="needs patchcut[export]")
pytest.importorskip("onnx", reason="needs patchcut[export]")
pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

from patchcut import Features, OptionError, open_bundle
from patchcut.cells import patch_means
from patchcut.heads import open_head
from patchcut_export.concepts.archives import foreground_sides
from patchcut_export.concepts.recipe import semantic_set
from patchcut_export.errors import ExportError
from patchcut_export.levels.plan import feature_sets
from patchcut_export.measuring.separability import measure as separability
from patchcut_export.precision import gate
from patchcut_export.precision.pictures import random_pictures
from patchcut_export.training.adaptation import PseudoLabels
from patchcut_export.training.calibration import find_regions
from patchcut_export.training.feature_cache import CachedFeatures
from tests.runtime import toy_bundle as toy
from tests.runtime import toy_decoder

Patchcut = Callable[..., int]
GRID = (8, 8)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return toy_decoder.write(tmp_path / "decoder.patchcut", 2, 2)


@pytest.fixture
def data(tmp_path: Path, paint: Callable[..., tuple[np.ndarray, np.ndarray]]) -> Path:
    """Photos of bright blobs, and masks of them."""
    for seed in range(6):
        for folder, picture in zip(("images", "masks"), paint(seed), strict=True):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(tmp_path / "data" / folder / f"{seed}.png"), picture)
    return tmp_path / "data"


def cached(count: int = 3) -> tuple[CachedFeatures, np.ndarray]:
    """Features and assignments of images on a grid twice as fine, and the patches' means of these."""
    rng = np.random.default_rng(0)
    side = rng.random((count, 256))
    masks = np.stack([1 - side, side], axis=2).astype(np.float16)
    keys = rng.standard_normal((count, 64, toy.DIM)).astype(np.float16)
    names = tuple(f"{i}.png" for i in range(count))
    made = CachedFeatures(keys, names, GRID, (), ("",) * count, {"key": keys, "mask": masks})
    return made, patch_means(masks.astype(np.float32), GRID)


def test_pseudo_labels_are_of_patches(bundle: Path) -> None:
    made, means = cached()
    with open_bundle(bundle) as opened:
        head = open_head(opened, opened.spec.heads[0])
    labels = PseudoLabels.of(head, made, lambda done, total: None)
    np.testing.assert_array_equal(labels.columns, means.argmax(axis=2))
    np.testing.assert_allclose(labels.confidences, np.abs(means[..., 1] - means[..., 0]), atol=1e-3)


def test_sides_of_concepts_photos_are_of_patches(bundle: Path) -> None:
    made, means = cached()
    with open_bundle(bundle) as opened:
        head = open_head(opened, opened.spec.heads[0])
    np.testing.assert_allclose(foreground_sides(head, made.sets, GRID), 1 - means[..., 0], atol=1e-6)


def test_what_a_calibration_looks_at(bundle: Path, data: Path) -> None:
    segmenter = patchcut.load(bundle, refine="none", nothing_below=0)
    image = cv2.imread(str(data / "images/0.png"))
    found, result = find_regions(segmenter, image), segmenter(image)
    assert len(found.features) == len(result) > 0
    means = patch_means(result.assignment, GRID)
    np.testing.assert_array_equal(found.foreground, (1 - means[:, 0]).reshape(GRID))


def test_it_is_calibrated_and_measured(
    bundle: Path, data: Path, tmp_path: Path, run_cli: Patchcut, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "calibrated.patchcut"
    words = ["--bundle", bundle, "--images", data / "images", "--out", out]
    assert run_cli("export", "calibrate", *words) == 0
    with open_bundle(out) as opened:
        opened.verify()
        decoder, gnn = opened.spec.heads
        assert decoder.calibration is not None and gnn.calibration is None
        card = opened.read("card.md").decode()
    assert "an assignment of 2 x 2 cells of each patch to 2 columns" in card
    assert "Kind: decoder, finds objects, columns: background, bright" in card
    assert card.count("- Affinity:") == 1, "the decoder has none"
    result = patchcut.load(out)(cv2.imread(str(data / "images/0.png")))
    assert len(result) == 1 and result.scores[0] > 0.5
    assert run_cli("export", "eval", "masks", "--root", data, "--bundle", out, "--record") == 0
    capfd.readouterr()
    with open_bundle(out) as opened:
        values = {row.metric: row.value for row in opened.spec.heads[0].report}
    assert values["mean foreground IoU"] > 0.8


def test_parts_are_trained_beside_a_decoder(
    bundle: Path, data: Path, tmp_path: Path, run_cli: Patchcut
) -> None:
    out = tmp_path / "parts.patchcut"
    words = ["--images", data / "images", "--backbone", bundle, "--work", tmp_path / "work"]
    short = ["--parts", "-k", 2, "--epochs", 2, "--batch", 4, "--threads", 1]
    assert run_cli("export", "train", *words, "--bundle", out, *short) == 0
    with open_bundle(out) as opened:
        parts = opened.spec.head("parts")
        assert parts is not None and parts.features == ("key",)
        assert [head.name for head in opened.spec.heads] == ["decoder", "gnn", "parts"]
    result = patchcut.load(out, mode="parts")(cv2.imread(str(data / "images/0.png")))
    assert result.labels == ("background", "part-1", "part-2") and result.assignment_hw == (16, 16)


def test_the_gate_judges_a_decoder_by_its_labels(bundle: Path) -> None:
    rows = gate.measure(bundle, bundle, random_pictures())
    assert {row.features for row in rows} == {"key"}
    assert all(row.label_agreement is not None and row.label_agreement > 0.99 for row in rows)


def test_an_assignment_is_no_feature_set_to_work_with(bundle: Path) -> None:
    with open_bundle(bundle) as opened:
        assert feature_sets(opened, None, dataset_only=True) == ("key",)
        with pytest.raises(OptionError, match="must be of patches: key, got mask"):
            feature_sets(opened, ["mask"], dataset_only=True)
        with pytest.raises(OptionError, match="must be of patches: key, got mask"):
            semantic_set(opened, "mask")
    assert separability._sets_of(str(bundle), ()) == ["key"]
    with pytest.raises(OptionError, match=r"mask of .* is an assignment, and no features; choose among key"):
        separability._sets_of(str(bundle), ("mask",))


def test_a_decoder_does_not_move_to_another_backbone(bundle: Path, tmp_path: Path) -> None:
    from patchcut_export.bundles.builder import heads_of

    files = toy_decoder.members()
    del files["head.safetensors"]
    spec = toy_decoder.manifest(files)
    del spec["heads"][1]
    said = "has no head but a decoder, which is a part of its graphs"
    path = toy.write(tmp_path / "alone.patchcut", files, spec)
    with open_bundle(path) as donor, pytest.raises(ExportError, match=said):
        heads_of(donor, cast("Any", None), cast("Any", None))


def test_engines_agree(bundle: Path, tmp_path: Path, run_cli: Patchcut, data: Path) -> None:
    words = [bundle, "--images", data / "images", "--engine", "onnxruntime", "--rounds", 1]
    assert run_cli("export", "parity", *words, "--json", tmp_path / "parity.json") == 0
    rows = json.loads((tmp_path / "parity.json").read_text())["rows"]
    assert len(rows) == 4 and all(row["agreement"]["labels"] > 0.98 for row in rows)


def test_features_of_a_cache_have_a_row_a_cell(bundle: Path, data: Path, tmp_path: Path) -> None:
    from patchcut import Settings
    from patchcut.stages import Extractor
    from patchcut_export.training.feature_cache import cache_features

    with open_bundle(bundle) as opened:
        extractor = Extractor.open(opened, Settings(bundle=bundle), needs=("key", "mask"))
        made = cache_features(
            data / "images", opened, extractor, tmp_path / "cache", lambda *_: None, sets=["key", "mask"]
        )
        head = open_head(opened, opened.spec.heads[0])
    rows = {name: made.take(slice(0, 1), name).astype(np.float32) for name in ("key", "mask")}
    assert {name: one.shape for name, one in rows.items()} == {"key": (1, 64, 8), "mask": (1, 256, 2)}
    assert head(Features(rows, made.grid_hw)).shape == (1, 256, 2)
