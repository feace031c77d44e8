"""The ensemble's masks, and how a student sees an image."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs patchcut[export]")
pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

from patchcut.bundle import open_bundle
from patchcut.errors import BundleError
from patchcut.features import to_host
from patchcut.frames import Frame
from patchcut.heads import NcutHead, open_head
from patchcut.settings import Settings
from patchcut.sources.photos import read_photo
from patchcut.stages import Extractor
from patchcut_export.distillation.decoder import CELLS
from patchcut_export.distillation.targets import TARGET_SIDE, Ensemble, MaskTargets, cache_masks
from patchcut_export.distillation.views import View, Views
from patchcut_export.errors import TrainingError
from patchcut_export.training.feature_cache import CachedFeatures, cache_features
from tests.export.training.runs import Interruption

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def nothing(*_: object) -> None:
    pass


@pytest.fixture
def teacher(headed_bundle: Path, photos: Path, tmp_path: Path) -> Any:
    """The ensemble of a small bundle, and the cached features of the photos."""
    settings = Settings(bundle=headed_bundle)
    with open_bundle(headed_bundle) as bundle:
        extractor = Extractor.open(bundle, settings)
        cached = cache_features(photos, bundle, extractor, tmp_path / "features", nothing)
        return Ensemble(bundle, settings, extractor), cached


def test_the_ensemble_is_the_mean_of_both_heads_at_all_sizes(
    teacher: Any, headed_bundle: Path, photos: Path
) -> None:
    ensemble, cached = teacher
    image = read_photo(photos / cached.images[0])
    expected = np.zeros((TARGET_SIDE, TARGET_SIDE))
    with open_bundle(headed_bundle) as bundle:
        heads = [open_head(bundle, bundle.spec.heads[0]), NcutHead()]
        for size in (96, 64):
            features = Extractor.open(bundle, Settings(bundle=headed_bundle, size=size))([Frame(image)])
            for head in heads:
                soft = to_host(head(features))[0, :, 1].reshape(size // 16, size // 16)
                expected += cv2.resize(soft, (TARGET_SIDE, TARGET_SIDE)) / 4
    rows = {name: np.asarray(cached.take(slice(0, 1), name), np.float32) for name in cached.sets}
    from patchcut.features import Features

    found = ensemble(Features(rows, cached.grid_hw), image)
    np.testing.assert_allclose(found, expected, atol=5e-3)  # the cache holds half floats


def test_masks_that_were_interrupted_are_those_that_were_not(
    teacher: Any, photos: Path, tmp_path: Path
) -> None:
    ensemble, cached = teacher
    whole = cache_masks(photos, cached, ensemble, tmp_path / "whole", nothing)
    made: list[int] = []

    def stop(title: str, done: int, total: int) -> None:
        made.append(done)
        if len(made) == 3:
            raise Interruption

    with pytest.raises(Interruption):
        cache_masks(photos, cached, ensemble, tmp_path / "cut", stop)
    cut = cache_masks(photos, cached, ensemble, tmp_path / "cut", nothing)
    np.testing.assert_array_equal(whole.masks, cut.masks)
    np.testing.assert_array_equal(whole.weights, cut.weights)
    assert whole.masks.shape == (6, TARGET_SIDE, TARGET_SIDE)
    assert ((whole.weights >= 0) & (whole.weights <= 1)).all()
    again: list[int] = []
    cache_masks(photos, cached, ensemble, tmp_path / "cut", lambda title, done, total: again.append(done))
    assert again == []


@pytest.mark.parametrize(
    "text", ["", "{}", '{"key": [], "weights": ["x"]}', '{"key": [], "weights": [0, 0, 0, 0, 0, 0, 0]}']
)
def test_a_damaged_folder_is_one_line(teacher: Any, photos: Path, tmp_path: Path, text: str) -> None:
    ensemble, cached = teacher
    folder = tmp_path / "masks"
    cache_masks(photos, cached, ensemble, folder, nothing)
    (folder / "masks.json").write_text(text)
    with pytest.raises(TrainingError, match=r"masks.npy is damaged: .*; delete"):
        cache_masks(photos, cached, ensemble, folder, nothing)


def test_a_teacher_without_a_head_is_refused(backbone_bundle: Path) -> None:
    settings = Settings(bundle=backbone_bundle)
    with open_bundle(backbone_bundle) as bundle, pytest.raises(BundleError, match="no head for objects"):
        Ensemble(bundle, settings, Extractor.open(bundle, settings))


@pytest.fixture
def ramps(tmp_path: Path) -> Callable[..., Views]:
    """Views of one grey image, whose features and mask are the numbers of their own places."""

    def make(image_size: int = 64, side: int = 4) -> Views:
        y, x = np.meshgrid((np.arange(64) + 0.5) / 64, (np.arange(64) + 0.5) / 64, indexing="ij")
        cv2.imwrite(str(tmp_path / "a.png"), np.uint8(np.round(255 * np.stack([y, x, y], axis=-1))))
        coarse = (np.arange(8) + 0.5) / 8
        grid = np.stack(np.meshgrid(coarse, coarse, indexing="ij"), axis=-1).reshape(1, 64, 2)
        features = grid.astype(np.float16)
        whole = np.float16([[[0.25, 0.75]]])
        cached = CachedFeatures(features, ("a.png",), (8, 8), (), ("",), {"key": features, "cls": whole})
        targets = MaskTargets(np.round(255 * x[None]).astype(np.uint8), np.float32([0.5]))
        return Views(tmp_path, cached, targets, image_size, side, MEAN, STD)

    return make


def pixels(batch: Any) -> np.ndarray:
    shown = batch.images[0].numpy().transpose(1, 2, 0) * STD + MEAN
    return np.asarray(shown)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("begin", "side"), [((0.0, 0.0), 1.0), ((0.125, 0.25), 0.75)])
def test_all_that_a_view_shows_is_of_one_place(
    ramps: Callable[..., Views], begin: tuple[float, float], side: float, mirrored: bool
) -> None:
    batch = ramps().batch(np.array([0]), [View(begin, side, mirrored)])
    middles = (np.arange(4) + 0.5) / 4
    ys, xs = begin[0] + middles * side, begin[1] + (middles[::-1] if mirrored else middles) * side
    key = batch.sets["key"][0].numpy().reshape(4, 4, 2)
    np.testing.assert_allclose(key[..., 0], np.repeat(ys[:, None], 4, 1), atol=0.01)
    np.testing.assert_allclose(key[..., 1], np.repeat(xs[None], 4, 0), atol=0.01)
    assert batch.sets["cls"].tolist() == [[[0.25, 0.75]]]
    fine = (np.arange(CELLS * 4) + 0.5) / (CELLS * 4)
    wanted = begin[1] + (fine[::-1] if mirrored else fine) * side
    np.testing.assert_allclose(batch.masks[0].numpy(), np.repeat(wanted[None], CELLS * 4, 0), atol=0.01)
    shown = pixels(batch)  # RGB of what was written as BGR: y, x, y
    np.testing.assert_allclose(
        shown[::16, 0, 0], begin[0] + (np.arange(0, 64, 16) + 0.5) / 64 * side, atol=0.02
    )
    across = begin[1] + (np.arange(64)[::-1] + 0.5 if mirrored else np.arange(64) + 0.5) / 64 * side
    np.testing.assert_allclose(shown[0, :, 1], across, atol=0.02)
    assert batch.weights.tolist() == [0.5]


def test_light_changes_pixels_and_no_target(ramps: Callable[..., Views]) -> None:
    views = ramps()
    plain = views.batch(np.array([0]), [View()])
    bright = views.batch(np.array([0]), [View(contrast=0.9, brightness=10.0)])
    np.testing.assert_allclose(pixels(bright), pixels(plain) * 0.9 + 10 / 255, atol=1e-5)
    assert torch.equal(plain.masks, bright.masks)
    assert torch.equal(plain.sets["key"], bright.sets["key"])


@pytest.fixture
def objects(tmp_path: Path) -> Callable[..., Views]:
    """Views of grey noise with a red object in its left half, and how sure its mask is."""

    def make(sure: float) -> Views:
        image = np.random.default_rng(0).integers(90, 110, (64, 64, 1)).repeat(3, 2).astype(np.uint8)
        image[:, :32] = 0, 0, 255
        cv2.imwrite(str(tmp_path / "red.png"), image)
        features = np.ones((1, 64, 2), np.float16)
        cached = CachedFeatures(features, ("red.png",), (8, 8), (), ("",), {"key": features})
        mask = np.zeros((1, 64, 64), np.uint8)
        mask[..., :32] = 255
        return Views(tmp_path, cached, MaskTargets(mask, np.float32([sure])), 64, 4, MEAN, STD)

    return make


def test_pictures_of_nothing_show_the_background_or_are_blank(objects: Callable[..., Views]) -> None:
    rows = np.zeros(40, np.int64)
    batch = objects(0.9).batch(rows, [View(nothing=number) for number in range(40)])
    assert not batch.masks.any() and not batch.known.any()
    assert batch.weights.tolist() == [1.0] * 40  # that there is nothing is sure
    shown = batch.images.numpy().transpose(0, 2, 3, 1) * STD + MEAN
    reds = (shown[..., 0] - shown[..., 2] > 0.9).mean((1, 2))
    assert (reds == 0).mean() > 0.9  # nowhere the object; a blank picture may be red by chance
    grey = (abs(shown - 100 / 255) < 0.06).all((1, 2, 3))
    assert 20 <= grey.sum() <= 36
    assert len(np.unique(shown[~grey].mean((1, 2)).round(3), axis=0)) > 4


def test_beside_a_mask_that_is_not_sure_there_may_be_something(objects: Callable[..., Views]) -> None:
    batch = objects(0.4).batch(np.zeros(20, np.int64), [View(nothing=number) for number in range(20)])
    shown = batch.images.numpy().transpose(0, 2, 3, 1) * STD + MEAN
    assert not (abs(shown - 100 / 255) < 0.06).all((1, 2, 3)).any()


def test_a_share_of_the_views_shows_nothing() -> None:
    random = np.random.default_rng(0)
    drawn = [View.drawn(random, 0.25).nothing for _ in range(400)]
    assert 70 < sum(number is not None for number in drawn) < 130
    assert all(View.drawn(random).nothing is None for _ in range(50))


def test_views_that_are_drawn_lie_on_the_image() -> None:
    drawn = [View.drawn(np.random.default_rng(seed)) for seed in range(200)]
    assert all(0.75 <= one.side <= 1 and min(one.begin_yx) >= 0 for one in drawn)
    assert all(max(one.begin_yx) + one.side <= 1 + 1e-9 for one in drawn)
    assert 60 < sum(one.mirrored for one in drawn) < 140


def test_the_state_says_how_many_masks_there_are(teacher: Any, photos: Path, tmp_path: Path) -> None:
    ensemble, cached = teacher
    cache_masks(photos, cached, ensemble, tmp_path / "masks", nothing)
    assert len(json.loads((tmp_path / "masks" / "masks.json").read_text())["weights"]) == 6
