"""Scores that are probabilities, and the answer that there is nothing, fitted without labels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest

pytest.importorskip("torch", reason="needs patchcut[export]")
pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

from patchcut.bundle import open_bundle
from patchcut.stages.regions import calibrated_scores
from patchcut_export.bundles.archive import safetensors_bytes
from patchcut_export.bundles.rewriting import gnn_head, rewrite_bundle, with_head
from patchcut_export.errors import TrainingError
from patchcut_export.training import calibration as module
from patchcut_export.training.calibration import (
    CalibrationPlan,
    Sample,
    calibrate_bundle,
    fit_calibration,
    fit_logistic,
)
from patchcut_export.training.gnn import GraphHead

Patchcut = Callable[..., int]


def quiet(title: str, done: int, total: int) -> None:
    pass


def two_kinds(seed: int, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    objects = random.normal([2, -1, 1, 0.7], [1, 0.7, 1, 0.1], (count, 4))
    others = random.normal([0.5, -2.5, 2.5, 0.8], [1, 0.7, 1, 0.1], (count // 4, 4))
    return objects, others


def test_the_fit_is_scikit_learns() -> None:
    linear = pytest.importorskip("sklearn.linear_model", reason="needs scikit-learn")
    objects, others = two_kinds(0)
    rows = np.concatenate([objects, others])
    truth = np.repeat([1.0, 0.0], [len(objects), len(others)])
    counts = np.random.default_rng(1).uniform(0.5, 2, len(rows))
    expected = linear.LogisticRegression(C=1 / module._RIDGE, tol=1e-10, max_iter=10_000)
    expected.fit(rows, truth, sample_weight=counts)
    found = fit_logistic(rows, truth, counts)
    np.testing.assert_allclose(found, [*expected.coef_[0], *expected.intercept_], rtol=1e-3)


def test_kinds_that_can_be_told_apart_have_finite_weights() -> None:
    rows = np.concatenate([np.ones((30, 4)), -np.ones((3, 4))])
    weights = fit_logistic(rows, np.repeat([1.0, 0.0], [30, 3]), np.ones(33))
    assert np.isfinite(weights).all() and np.abs(weights).max() < 100


def test_both_kinds_count_for_as_much() -> None:
    objects, others = two_kinds(2)
    once = fit_calibration([Sample(objects, others, 400)], 0.95)
    thrice = fit_calibration([Sample(objects, np.repeat(others, 3, axis=0), 400)], 0.95)
    np.testing.assert_allclose(once.weights, thrice.weights, rtol=0.02)
    scores = [calibrated_scores(rows, once).mean() for rows in (objects, others)]
    assert scores[0] > 0.85 and scores[1] < 0.25


@pytest.mark.parametrize("keep", [0.5, 0.9, 0.95])
def test_the_limit_keeps_a_share_of_the_photographs_of_each_size(keep: float) -> None:
    samples = [Sample(*two_kinds(seed), 400) for seed in (3, 4)]
    samples[1] = Sample(samples[1].objects - 0.3, samples[1].others, 410)  # ten without a region
    made = fit_calibration(samples, keep)
    shares = [
        (calibrated_scores(sample.objects, made) >= made.nothing_below).sum() / sample.photographs
        for sample in samples
    ]
    assert min(shares) == pytest.approx(keep, abs=0.005) and max(shares) > keep


@pytest.mark.parametrize("missing", ["objects", "others"])
def test_both_kinds_are_needed(missing: str) -> None:
    objects, others = two_kinds(5)
    none = np.zeros((0, 4))
    sample = Sample(none, others, 9) if missing == "objects" else Sample(objects, none, 400)
    with pytest.raises(TrainingError, match=r"\[calibrate\] needs regions of both kinds, got "):
        fit_calibration([sample], 0.9)


@pytest.fixture
def bundle(headed_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(headed_bundle, tmp_path / "tiny.patchcut"))


def test_a_bundle_is_calibrated(bundle: Path, photos: Path, tmp_path: Path, run_cli: Patchcut) -> None:
    plain = patchcut.load(bundle)
    image = cv2.imread(str(next(photos.rglob("*.png"))))
    out = tmp_path / "calibrated.patchcut"
    before = bundle.read_bytes()
    assert run_cli("export", "calibrate", "--bundle", bundle, "--images", photos, "--out", out) == 0
    assert bundle.read_bytes() == before
    with open_bundle(out) as opened, open_bundle(bundle) as old:
        opened.verify()
        (head,) = opened.spec.heads
        calibration = head.calibration
        assert calibration is not None and 0 <= calibration.nothing_below <= 1
        assert calibration.fitted_on.startswith("6 photographs of photos at 96 and 64, of which 95% keep")
        assert "- Scores: probability" in opened.read("card.md").decode()
        assert (head.model_copy(update={"calibration": None}),) == old.spec.heads
    assert patchcut.load(out).describe().calibrated
    probable = patchcut.load(out, nothing_below=0.0)(image)
    assert sorted(probable.areas) == sorted(plain(image).areas)


def test_the_same_seed_gives_the_same_bytes(bundle: Path, photos: Path, tmp_path: Path) -> None:
    outs = [tmp_path / "a.patchcut", tmp_path / "b.patchcut"]
    for out in outs:
        calibrate_bundle(bundle, out, CalibrationPlan(images=photos, blanks=20), quiet)
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_what_is_looked_at_is_what_the_segmenter_sees(bundle: Path, photos: Path) -> None:
    segmenter = patchcut.load(bundle, size=96, refine="none")
    for path in photos.rglob("*.png"):
        image = cv2.imread(str(path))
        found = module.find_regions(segmenter, image)
        features, result = found.features, segmenter(image)
        assert len(features) == len(result) and features.shape[1] == 4
        shares = np.exp(features[:, 1]) * image.shape[0] * image.shape[1]
        np.testing.assert_allclose(sorted(shares), sorted(result.areas), rtol=1e-6)
        if len(result):
            np.testing.assert_allclose(shares[found.best], result.areas[:1], rtol=1e-6)
        assert found.foreground.shape == result.grid_hw


def test_photographs_give_their_best_regions_and_backgrounds_give_all(photos: Path) -> None:
    shapes = []

    def find(image: np.ndarray) -> module.Found:
        shapes.append(image.shape)
        foreground = np.zeros((8, 8), np.float32)
        foreground[:, :4] = 1
        return module.Found(np.array([[1.0] * 4, [2.0] * 4]), slice(1, 2), foreground)

    plan = CalibrationPlan(images=photos, blanks=3)
    (sample,) = module._collect([find], plan, quiet)
    assert sample.photographs == 6
    np.testing.assert_array_equal(sample.objects, np.full((6, 4), 2.0))
    np.testing.assert_array_equal(sample.others[:, 0], [1, 2] * (6 + 3))
    height, width, _ = shapes[0]
    assert shapes[1] == (height, width // 2, 3), "the half without foreground"


def test_few_photographs_are_spread_over_the_folder(photos: Path) -> None:
    seen: list[Any] = []
    plan = CalibrationPlan(images=photos, limit=3)
    images = list(module._photographs(plan, lambda done, total: seen.append((done, total))))
    assert len(images) == 3 and seen == [(1, 3), (2, 3), (3, 3)]


def test_what_cannot_be_read_is_named_once(
    bundle: Path, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "some"))
    (folder / "broken.jpg").write_bytes(b"no picture")
    plan = CalibrationPlan(images=folder, blanks=20)
    made = calibrate_bundle(bundle, bundle, plan, quiet)
    assert made.fitted_on.startswith("6 photographs")
    assert sum("broken.jpg" in message for message in caplog.messages) == 1


def test_a_new_head_has_no_calibration(bundle: Path, photos: Path, tmp_path: Path) -> None:
    calibrate_bundle(bundle, bundle, CalibrationPlan(images=photos, blanks=20), quiet)
    with open_bundle(bundle) as opened:
        head = GraphHead(64, (6,), 4, 2, dropout=0)
        made = gnn_head(opened.spec, "objects", labels=opened.spec.heads[0].labels)
        weights = {made.files["weights"]: safetensors_bytes(head.tensors())}
        rewrite_bundle(opened, tmp_path / "new.patchcut", with_head(opened.spec, made), weights)
        rewrite_bundle(opened, tmp_path / "named.patchcut", opened.spec.model_copy(update={"name": "named"}))
    with open_bundle(tmp_path / "new.patchcut") as new, open_bundle(tmp_path / "named.patchcut") as named:
        assert [head.calibration for head in new.spec.heads] == [None]
        assert named.spec.heads[0].calibration is not None


def test_a_calibration_is_of_the_first_head_for_objects_alone(bundle: Path, photos: Path) -> None:
    with open_bundle(bundle) as opened:
        (head,) = opened.spec.heads
        before = head.model_copy(update={"name": "some-parts", "role": "parts"})
        after = head.model_copy(update={"name": "second"})
        several = opened.spec.model_copy(update={"heads": (before, head, after)})
        rewrite_bundle(opened, bundle, several)
    made = calibrate_bundle(bundle, bundle, CalibrationPlan(images=photos, blanks=20), quiet)
    with open_bundle(bundle) as opened:
        assert [it.calibration for it in opened.spec.heads] == [None, made, None]


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--keep", 1.0), 2, "[keep] must be between 0 and 1, got 1.0"),
        (("--images", "EMPTY"), 1, "EMPTY"),
        (("--bundle", "BACKBONE"), 1, "holds a backbone and no head"),
        (("--out", "no/x.patchcut"), 1, "no is not a folder; make it first"),
        (("--limit", 0), 2, ""),
    ],
)
def test_a_mistake_is_one_line(
    run_cli: Patchcut,
    bundle: Path,
    backbone_bundle: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    options: tuple[object, ...],
    status: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("EMPTY").mkdir()
    Path("BACKBONE").write_bytes(backbone_bundle.read_bytes())
    arguments = {"--bundle": bundle, "--images": photos, "--out": tmp_path / "o.patchcut"}
    arguments[str(options[0])] = options[1]  # type: ignore[assignment]
    line = [word for pair in arguments.items() for word in pair]
    assert run_cli("export", "calibrate", *line) == status
    errors = capfd.readouterr().err
    assert said in errors
    assert not (tmp_path / "o.patchcut").exists()
