"""A head that learns what another calls patches: it agrees with it, goes on, and says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest

torch = pytest.importorskip("torch", reason="needs patchcut[export]")

from patchcut.errors import OptionError
from patchcut_export.errors import TrainingError
from patchcut_export.training.adaptation import Adapted, AdaptPlan, PseudoLabels, adapt
from patchcut_export.training.feature_cache import CachedFeatures
from patchcut_export.training.loop import Hooks
from tests.export.training.runs import Interruption, same_bits
from tests.runtime.concepts import semantic_toy as toy

IMAGES, SIDE, DIM = 30, 6, 16
PLAN = AdaptPlan(seed=1, hidden=(16,), mlp_hidden=8, batch=8, epochs=25, patience=25, learning_rate=1e-2)


def planted(wrong: float = 0.0) -> tuple[CachedFeatures, PseudoLabels, np.ndarray]:
    """Features of three kinds of patches, labels some of which are wrong and unsure, and what is true."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, (IMAGES, SIDE * SIDE))
    features = 2 * np.eye(3, DIM)[kinds] + 0.4 * rng.standard_normal((IMAGES, SIDE * SIDE, DIM)) + 0.3
    mistaken = rng.random(kinds.shape) < wrong
    columns = np.where(mistaken, (kinds + 1) % 3, kinds).astype(np.uint16)
    confidences = np.where(mistaken, 0.02, 0.9).astype(np.float16)
    names = tuple(f"{i:02}.png" for i in range(IMAGES))
    cached = CachedFeatures(features.astype(np.float16), names, (SIDE, SIDE), (), ("",) * IMAGES)
    return cached, PseudoLabels(columns, confidences, 3), kinds


def called(adapted: Adapted, cached: CachedFeatures) -> np.ndarray:
    from patchcut_export.training.gnn import cosine_affinity

    features = torch.from_numpy(cached.features.astype(np.float32))
    with torch.no_grad():
        logits = adapted.head(features, cosine_affinity(features, PLAN.threshold))
    return np.asarray(logits.argmax(-1).numpy())


def test_what_is_sure_counts_more(tmp_path: Path) -> None:
    cached, labels, kinds = planted(wrong=0.6)
    made = adapt(cached, labels, tmp_path / "run", PLAN, Hooks())
    assert (called(made, cached) == kinds).mean() > 0.95
    even = PseudoLabels(labels.columns, np.ones_like(labels.confidences), 3)
    misled = adapt(cached, even, tmp_path / "even", PLAN, Hooks())
    assert (called(misled, cached) == kinds).mean() < 0.5
    assert made.agreement > 0.9 and made.passes <= PLAN.epochs


def test_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    cached, labels, _ = planted()
    plan = replace(PLAN, epochs=4)
    whole = adapt(cached, labels, tmp_path / "whole", plan, Hooks())
    for _ in range(2):
        with pytest.raises(Interruption):
            adapt(cached, labels, tmp_path / "torn", plan, Hooks(epoch=_stop))
    resumed = adapt(cached, labels, tmp_path / "torn", plan, Hooks())
    assert same_bits(whole.head, resumed.head)
    other = PseudoLabels(np.roll(labels.columns, 1), labels.confidences, 3)
    with pytest.raises(TrainingError, match="another"):
        adapt(cached, other, tmp_path / "torn", plan, Hooks())


def _stop(log: object) -> None:
    raise Interruption


def test_what_cannot_be_learned_is_told(tmp_path: Path) -> None:
    cached, labels, _ = planted()
    one = replace(cached, features=cached.features[:1], images=cached.images[:1])
    with pytest.raises(TrainingError, match="needs at least 2 images, got 1"):
        adapt(one, labels, tmp_path, PLAN, Hooks())
    same = PseudoLabels(np.zeros_like(labels.columns), labels.confidences, 3)
    with pytest.raises(TrainingError, match="calls every patch of these images the same"):
        adapt(cached, same, tmp_path, PLAN, Hooks())
    with pytest.raises(OptionError, match="epochs"):
        AdaptPlan(epochs=0)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with two concepts."""
    folder = tmp_path_factory.mktemp("shown")
    seg = patchcut.load(toy.bundle(folder / "toy.patchcut"), head="concepts")
    for name in ("mug", "bowl"):
        seg.concepts.add(name, [toy.scene(name, seed=i) for i in range(3)], boxes=[toy.BOX] * 3)
    seg.concepts.save(folder / "shown.patchcut")
    return folder / "shown.patchcut"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of mugs, bowls, leaves and nothing, with their classes."""
    root = tmp_path_factory.mktemp("data")
    x0, y0, x1, y1 = toy.BOX
    (root / "images").mkdir()
    (root / "masks").mkdir()
    (root / "classes.txt").write_text("background\nmug\nbowl\n")
    for seed in range(16):
        name = ("mug", "bowl", "leaf", "none")[seed % 4]
        mask = np.zeros((toy.SIDE, toy.SIDE), np.uint8)
        mask[y0:y1, x0:x1] = {"mug": 1, "bowl": 2}.get(name, 0)
        cv2.imwrite(str(root / "images" / f"{seed:02}.png"), toy.scene(name, seed=seed))
        cv2.imwrite(str(root / "masks" / f"{seed:02}.png"), mask)
    return root


def test_a_bundle_gets_a_head_that_was_adapted(
    run_cli: Callable[..., int], shown: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "adapted.patchcut"
    words: list[Any] = ["export", "adapt", "--images", data / "images", "--bundle", shown, "--out", out]
    words += ["--work", tmp_path / "work", "--epochs", 40, "--learning-rate", 0.02, "--root", data]
    assert run_cli(*words) == 0
    table = capfd.readouterr().out.splitlines()
    assert " ".join(table[0].split()) == "head agrees with it ms a frame mIoU pixel accuracy (set)"
    before, after = (line.split() for line in table[1:])
    assert before[:2] == ["concepts", "-"] and after[0] == "adapted" and float(after[1]) > 0.8
    assert float(after[3]) > 0.6 * float(before[3]) > 0
    seg = patchcut.load(out, head="adapted")
    result = seg(toy.scene("mug", "bowl", seed=40))
    assert result.labels == ("background", "mug", "bowl")
    assert {"mug", "bowl"} >= set(result.label_names) != set()
    with patchcut.open_bundle(out) as bundle:
        assert [spec.name for spec in bundle.spec.heads] == ["gnn", "concepts", "adapted"]
        assert bundle.spec.heads[-1].role == "names" and "ReCo+" in bundle.spec.heads[-1].method
    assert run_cli(*words, "--head", "adapted") == 2
    assert "[head] must be one of concepts, got adapted" in capfd.readouterr().err


def test_a_bundle_without_names(
    run_cli: Callable[..., int], data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = toy.bundle(tmp_path / "toy.patchcut")
    words = [
        "export",
        "adapt",
        "--images",
        data / "images",
        "--bundle",
        bundle,
        "--out",
        tmp_path / "x.patchcut",
    ]
    assert run_cli(*words) == 2
    assert "has no head that names things; make one with" in capfd.readouterr().err
    assert run_cli(*words, "--root", data, "--dataset", "ecssd") == 2
    assert "[dataset] must have a class for each pixel" in capfd.readouterr().err
    assert not (tmp_path / "x.patchcut").exists()
