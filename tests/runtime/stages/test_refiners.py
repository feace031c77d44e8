"""Refiners move borders onto edges, and no region away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import patchcut
import patchcut_kernels as kernels
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patchcut import Frame, OptionError, Segmenter
from patchcut.settings import REFINES
from patchcut.stages import refiners
from patchcut.stages.refiners import REFINERS, PatchLabels, Refined, refine

from tests.runtime import toy_bundle as toy
from tests.runtime.results import check_consistent, same

REAL = tuple(name for name in REFINERS if name != "none")
SIDE = 24  # pixels of a patch
GRID = (10, 12)


def scene(seed: int = 0, noise: float = 8.0) -> tuple[Frame, np.ndarray]:
    """A bright disc before a dark ground, and where it is."""
    height, width = GRID[0] * SIDE, GRID[1] * SIDE
    y, x = np.mgrid[:height, :width]
    disc = (y - 118) ** 2 + (x - 151) ** 2 < 63**2
    image = np.where(disc[..., None], (200, 170, 90), (50, 60, 80))
    image = image + np.random.default_rng(seed).normal(0, noise, image.shape)
    return Frame(image.clip(0, 255).astype(np.uint8)), disc


def as_patches(mask: np.ndarray) -> PatchLabels:
    """What patches make of a mask [H, W]: the share of each that it covers, upsampled."""
    share = cv2.resize(mask.astype(np.float32), GRID[::-1], interpolation=cv2.INTER_AREA).reshape(-1, 1)
    assignment = np.concatenate([1 - share, share], axis=1)
    room = np.empty(mask.shape, np.float32)
    labels, confidence = kernels.upsample_argmax(assignment, GRID, mask.shape, confidence=room)
    return PatchLabels(labels, confidence, True, SIDE)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("color", ["bgr", "rgb"])
def test_borders_move_onto_edges(name: str, color: str) -> None:
    frame, disc = scene()
    unrefined = as_patches(disc)
    before = iou(unrefined.label_map > 0, disc)
    labels, confidence = refine(name, unrefined, replace(frame, color=color), 1)
    assert before < 0.96
    assert iou(labels > 0, disc) > before + 0.5 * (1 - before)
    assert labels.dtype == np.int32 and confidence.dtype == np.float32
    assert confidence.min() >= 0.5 and confidence.max() <= 1


@pytest.mark.parametrize("name", REAL)
def test_borders_between_many_labels_move_onto_edges(name: str) -> None:
    frame, disc = scene()
    truth = disc.astype(np.int32)
    truth[:, 151:] *= 2  # the right half is another label, of another colour
    image = frame.image.copy()
    image[truth == 2] = image[truth == 2][:, ::-1]
    blocks = truth[SIDE // 2 :: SIDE, SIDE // 2 :: SIDE].repeat(SIDE, 0).repeat(SIDE, 1)
    unrefined = PatchLabels(blocks.copy(), np.full(truth.shape, 0.8, np.float32), False, SIDE)
    labels, confidence = refine(name, unrefined, Frame(image), 1)
    before, after = (np.mean(found == truth) for found in (blocks, labels))
    assert before < 0.97 and after > before + 0.4 * (1 - before)
    assert set(np.unique(labels)) == {0, 1, 2}
    np.testing.assert_allclose(confidence, np.where(labels == blocks, 0.8, 0.2), atol=1e-6)


def test_the_bilateral_solver_knows_the_order_of_channels() -> None:
    frame, disc = scene()
    bgr, rgb, wrong = (
        refine("bilateral", as_patches(disc), Frame(image, color), 1)
        for image, color in (
            (frame.image, "bgr"),
            (np.ascontiguousarray(frame.image[..., ::-1]), "rgb"),
            (frame.image, "rgb"),
        )
    )
    for ours, same_colours, other_colours in zip(bgr, rgb, wrong, strict=True):
        np.testing.assert_array_equal(ours, same_colours)
        assert np.any(ours != other_colours)


@pytest.mark.parametrize("name", REAL)
def test_a_flat_frame_moves_little(name: str) -> None:
    frame, disc = scene(noise=0)
    flat = Frame(np.full_like(frame.image, 128))
    unrefined = as_patches(disc)
    labels, _ = refine(name, unrefined, flat, 1)
    assert iou(labels > 0, unrefined.label_map > 0) > 0.8


def shifted(unrefined: PatchLabels, frame: Frame) -> Refined:
    return np.roll(
        unrefined.label_map, unrefined.label_map.shape[1] // 2, axis=1
    ), unrefined.confidence.copy()


def emptied(unrefined: PatchLabels, frame: Frame) -> Refined:
    return np.zeros_like(unrefined.label_map), np.ones_like(unrefined.confidence)


def filled(unrefined: PatchLabels, frame: Frame) -> Refined:
    return np.ones_like(unrefined.label_map), np.ones_like(unrefined.confidence)


def swapped(unrefined: PatchLabels, frame: Frame) -> Refined:
    return unrefined.label_map.max() - unrefined.label_map, unrefined.confidence.copy()


def swollen(unrefined: PatchLabels, frame: Frame) -> Refined:
    labels = cv2.dilate(unrefined.label_map.astype(np.uint8), np.ones((61, 61), np.uint8))
    return labels.astype(np.int32), unrefined.confidence.copy()


def in_specks(unrefined: PatchLabels, frame: Frame) -> Refined:
    """Each region keeps nine tenths of itself, none of it in one piece of more than nine pixels."""
    labels = unrefined.label_map.copy()
    labels[::4] = 0
    labels[:, ::4] = 0
    return labels, unrefined.confidence.copy()


def noisy(unrefined: PatchLabels, frame: Frame) -> Refined:
    random = np.random.default_rng(int(unrefined.label_map.sum()) % 1000)
    return random.integers(0, 3, unrefined.label_map.shape, np.int32), unrefined.confidence.copy()


BAD_REFINERS = [shifted, emptied, filled, swapped, swollen, in_specks, noisy]


def test_the_settings_name_every_refiner() -> None:
    assert ("auto", *REFINERS) == REFINES


@pytest.mark.parametrize("bad", BAD_REFINERS)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000),
    labels=st.integers(2, 4),
    min_area=st.sampled_from([1, 30]),
    strip=st.sampled_from([2**20, 500]),
)
def test_no_refiner_moves_a_majority_away(
    monkeypatch: pytest.MonkeyPatch,
    bad: Callable[[PatchLabels, Frame], Refined],
    seed: int,
    labels: int,
    min_area: int,
    strip: int,
) -> None:
    monkeypatch.setattr(refiners, "_STRIP_PIXELS", strip)
    unrefined = cv2.resize(
        np.random.default_rng(seed).integers(0, labels, (5, 6)).astype(np.uint8), (66, 50), interpolation=0
    ).astype(np.int32)
    before, frame = unrefined.copy(), Frame(np.zeros((50, 66, 3), np.uint8))
    monkeypatch.setattr(refiners, "REFINERS", {**REFINERS, "bad": bad})
    after, confidence = refine(
        "bad", PatchLabels(unrefined, np.full((50, 66), 0.7, np.float32), False, 11), frame, min_area
    )
    ids, count = kernels.connected_components(before, min_area=min_area)
    kept, _ = kernels.connected_components(after, min_area=min_area)
    for region in range(1, count + 1):
        own = ids == region
        stays = (after[own] == before[own]) & (kept[own] > 0)
        assert 2 * stays.sum() >= own.sum(), "what is left of a region is large enough to be one"
    for label in range(1, labels):
        assert 2 * ((after == label) & (before == label)).sum() >= (after == label).sum()
    background = ids == 0
    assert 2 * ((after == 0) & background).sum() >= background.sum()
    assert confidence.shape == after.shape


def test_what_is_given_back_has_the_confidence_that_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refiners, "REFINERS", {**REFINERS, "emptied": emptied})
    frame, disc = scene()
    unrefined = as_patches(disc)
    before = replace(unrefined, label_map=unrefined.label_map.copy())
    labels, confidence = refine("emptied", unrefined, frame, 1)
    np.testing.assert_array_equal(labels, before.label_map)
    np.testing.assert_array_equal(confidence, np.where(labels > 0, before.confidence, 1))


def test_a_background_may_become_larger_than_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def eroded(unrefined: PatchLabels, frame: Frame) -> Refined:
        labels = np.zeros_like(unrefined.label_map)
        labels[8:42, 8:42] = 1
        return labels, unrefined.confidence.copy()

    monkeypatch.setattr(refiners, "REFINERS", {**REFINERS, "eroded": eroded})
    label_map = np.pad(np.ones((46, 46), np.int32), 2)
    unrefined = PatchLabels(label_map, np.full((50, 50), 0.7, np.float32), True, 10)
    labels, _ = refine("eroded", unrefined, Frame(np.zeros((50, 50, 3), np.uint8)), 1)
    assert (labels > 0).sum() == 34**2


def test_what_a_refiner_may_do_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def nudged(unrefined: PatchLabels, frame: Frame) -> Refined:
        return np.roll(unrefined.label_map, 5, axis=1), unrefined.confidence.copy()

    monkeypatch.setattr(refiners, "REFINERS", {**REFINERS, "nudged": nudged})
    frame, disc = scene()
    unrefined = as_patches(disc)
    labels, _ = refine("nudged", replace(unrefined, label_map=unrefined.label_map.copy()), frame, 1)
    np.testing.assert_array_equal(labels, np.roll(unrefined.label_map, 5, axis=1))


def test_specks_are_gone_before_the_refiner_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watching(unrefined: PatchLabels, frame: Frame) -> Refined:
        seen.append(unrefined.label_map.copy())
        return unrefined.label_map.copy(), unrefined.confidence.copy()

    monkeypatch.setattr(refiners, "REFINERS", {**REFINERS, "watching": watching})
    label_map = np.zeros((20, 20), np.int32)
    label_map[2:4, 2:4] = label_map[8:18, 8:18] = 1
    unrefined = PatchLabels(label_map, np.ones((20, 20), np.float32), True, 4)
    refine("watching", unrefined, Frame(np.zeros((20, 20, 3), np.uint8)), 10)
    assert seen[0].sum() == 100


def test_auto_is_decided_by_the_stream(toy_bundle: Path, photo: np.ndarray) -> None:
    auto, guided, none = (patchcut.load(toy_bundle, refine=name) for name in ("auto", "guided", "none"))
    assert patchcut.load(toy_bundle).describe().refine == "auto"
    same(auto(photo), none(photo))
    same(auto(Frame(photo, time_s=0.0)), none(photo))  # one frame, whatever its time
    (of_frames,) = auto.stream([Frame(photo, time_s=0.0)])
    same(of_frames, none(photo))
    assert np.any(guided(photo).label_map != none(photo).label_map)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("size_hw", [(1, 1), (1, 900), (900, 1), (3, 2), (97, 131)])
def test_odd_frames_are_refined(toy_bundle: Path, name: str, size_hw: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8)
    check_consistent(patchcut.load(toy_bundle, refine=name)(frame), size_hw)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("head", ["gnn", "kmeans"])
def test_results_stay_consistent(toy_bundle: Path, photo: np.ndarray, name: str, head: str) -> None:
    segmenter = patchcut.load(toy_bundle, refine=name, head=head)
    for frame in (photo[::2, ::2], photo[::2, ::2, ::-1], photo[100:220, 50:200]):
        check_consistent(segmenter(frame), frame.shape[:2])


@pytest.mark.parametrize("name", REAL)
def test_a_letterboxed_frame_is_refined_where_it_lies(tmp_path: Path, photo: np.ndarray, name: str) -> None:
    """The refiner sees the frame and its own part of the label map, not the borders around it."""
    files = toy.members()
    spec = toy.manifest(files)
    spec["backbones"]["toy"]["fit"] = "letterbox"
    path = toy.write(tmp_path / "x.patchcut", files, spec)
    frame = np.ascontiguousarray(photo[60:260, 150:550])
    unrefined, refined = (patchcut.load(path, refine=option)(frame) for option in ("none", name))
    check_consistent(refined, (200, 400))
    assert 0.5 < np.mean(refined.label_map == unrefined.label_map) < 1
    raw, confidence = kernels.upsample_argmax(
        unrefined.assignment, unrefined.grid_hw, (400, 400), confidence=np.empty((400, 400), np.float32)
    )
    window = np.s_[100:300]
    given = PatchLabels(raw[window].copy(), confidence[window].copy(), False, 50.0)
    expected, _ = refine(name, given, Frame(frame), 1250)
    kernels.connected_components(expected, min_area=1250, labels_out=expected)
    np.testing.assert_array_equal(refined.label_map, expected)


def test_a_video_is_refined(
    toy_segmenter: Segmenter, toy_bundle: Path, photo: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, photo.shape[1::-1])
    writer.write(photo)
    writer.release()
    (result,) = toy_segmenter.stream(str(path))
    assert result.frame is not None
    same(result, patchcut.load(toy_bundle, refine="guided")(result.frame))
    unrefined = patchcut.load(toy_bundle, refine="none")
    (result,) = unrefined.stream(str(path))
    same(result, unrefined(result.frame))


def test_an_unknown_refiner_is_told(toy_bundle: Path) -> None:
    with pytest.raises(OptionError, match=r'\[refine\] must be one of "auto", "none", "guided"'):
        patchcut.load(toy_bundle, refine="sharp")


def test_patches_may_be_of_any_size() -> None:
    """Those of a picture of 16,384 x 16,384 have more than 1,024 pixels a side."""
    frame, disc = scene()
    unrefined = replace(as_patches(disc), patch_side=5000.0)
    labels, confidence = refine("guided", unrefined, frame, 1)
    assert labels.shape == confidence.shape == disc.shape


@pytest.mark.parametrize("columns", [2, 3])
def test_the_bilateral_solver_sees_samples_of_a_large_frame(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, disc = scene()
    patches = as_patches(disc)
    if columns > 2:
        left = np.arange(disc.shape[1]) < 151
        patches = replace(patches, label_map=patches.label_map * np.where(left, 1, 2).astype(np.int32))
        patches = replace(patches, two_columns=False)

    def refined() -> Refined:
        fresh = replace(patches, label_map=patches.label_map.copy(), confidence=patches.confidence.copy())
        return refine("bilateral", fresh, frame, 1)

    whole, _ = refined()
    monkeypatch.setattr(refiners, "BILATERAL_PIXELS", disc.size // 5)
    sampled, confidence = refined()
    assert sampled.shape == confidence.shape == disc.shape
    assert confidence.min() >= 0 and confidence.max() <= 1
    assert iou(sampled > 0, disc) > iou(as_patches(disc).label_map > 0, disc)
    assert (sampled == whole).mean() > 0.95
