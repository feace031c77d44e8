"""Pixels between two labels: steady where nothing changes, and never behind what moves."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import patchcut
import pytest
from patchcut.cells import on_cells
from patchcut.sources.arrays import FrameSource
from patchcut.stages import Canvas
from patchcut.video import PointedObjects, Prompt, SteadyLabels
from patchcut.video.steady_labels import CHANGED, MARGIN

GRID = (12, 16)
CANVAS = Canvas((120, 160), (0, 0), (120, 160), GRID)
SAME = np.ones(GRID[0] * GRID[1], np.float32)


def disc_of(x: float, columns: int = 2, radius: float = 3.5) -> np.ndarray:
    """[n, columns] float32: the last column is a disc with a soft border around patch (6, x)."""
    rows, at = np.mgrid[: GRID[0], : GRID[1]]
    inside = np.clip(0.5 + (radius - np.hypot(rows - 6, at - x)) / 2, 0, 1).ravel()
    assignment = np.zeros((inside.size, columns), np.float32)
    assignment[:, 0], assignment[:, -1] = 1 - inside, inside
    return assignment


def noisy(assignment: np.ndarray, seed: int, noise: float = 0.02) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = np.abs(assignment + rng.normal(0, noise, assignment.shape))
    return (values / values.sum(axis=1, keepdims=True)).astype(np.float32)


def labels_of(steady: SteadyLabels, assignment: np.ndarray, cosines: np.ndarray | None = SAME) -> np.ndarray:
    label_map, confidence = CANVAS.upsample(assignment)
    steady(label_map, confidence, assignment, CANVAS, cosines)
    return label_map


@pytest.mark.parametrize("columns", [2, 5])
def test_noise_does_not_move_a_still_border(columns: int) -> None:
    steady = SteadyLabels()
    frames = [noisy(disc_of(8, columns), seed) for seed in range(8)]
    plain = [CANVAS.upsample(one)[0] for one in frames]
    held = [labels_of(steady, one) for one in frames]
    plain_changes, changes = (np.mean([(a != b).mean() for a, b in pairwise(maps)]) for maps in (plain, held))
    assert plain_changes > 0.002, "the noise must be able to fail this"
    assert changes < 0.1 * plain_changes


@pytest.mark.parametrize(("columns", "cells"), [(2, 1), (5, 1), (2, 3), (5, 3)])
def test_a_held_pixel_is_never_further_behind_than_the_margin(columns: int, cells: int) -> None:
    steady = SteadyLabels()
    for step in range(40):  # slowly, as if its features never changed
        assignment = on_cells(disc_of(3 + 0.2 * step, columns), GRID, cells)
        label_map, confidence = CANVAS.upsample(assignment)
        best = label_map.copy()
        lead = 2 * confidence - 1
        steady(label_map, confidence, assignment, CANVAS, SAME)
        held = label_map != best
        assert (lead[held] < 2 * MARGIN + 1e-5).all()
        assert not held.all() and (step == 0 or held.any())


def test_what_moves_is_followed_at_once() -> None:
    steady = SteadyLabels()
    for step in range(10):
        assignment = disc_of(3 + step)
        before = disc_of(2 + step)
        changed = np.abs(assignment - before).max(axis=1) > 0.05
        cosines = np.where(changed, 0.6, 1).astype(np.float32)
        # a patch that has not changed lends its neighbours its margin at their common side
        label_map = labels_of(steady, assignment, cosines)
        assert (label_map != CANVAS.upsample(assignment)[0]).mean() < 0.001


@pytest.mark.parametrize(("cosine", "held"), [(1.0, True), (CHANGED, False), (0.2, False)])
def test_the_margin_ends_where_features_have_changed(cosine: float, held: bool) -> None:
    steady = SteadyLabels()
    flat = np.tile(np.float32([0.49, 0.51]), (SAME.size, 1))
    assert (labels_of(steady, flat) == 1).all()
    now = labels_of(steady, flat[:, ::-1].copy(), cosine * SAME)
    assert (now == held).all()


def test_a_kept_label_has_what_the_other_leaves() -> None:
    steady = SteadyLabels()
    for foreground in (0.51, 0.48):
        assignment = np.tile(np.float32([1 - foreground, foreground]), (SAME.size, 1))
        label_map, confidence = CANVAS.upsample(assignment)
        steady(label_map, confidence, assignment, CANVAS, SAME)
    assert (label_map == 1).all()
    np.testing.assert_allclose(confidence, 0.48, atol=1e-5)


def test_nothing_is_kept_over_a_cut_another_size_or_without_a_comparison() -> None:
    first, second = (np.tile(np.float32(row), (SAME.size, 1)) for row in ([0.49, 0.51], [0.51, 0.49]))
    steady = SteadyLabels()
    labels_of(steady, first)
    steady.clear()
    assert (labels_of(steady, second) == 0).all()
    labels_of(steady, first)
    assert (labels_of(steady, second, None) == 0).all()
    labels_of(steady, first)
    other = Canvas((60, 80), (0, 0), (60, 80), GRID)
    label_map, confidence = other.upsample(second)
    steady(label_map, confidence, second, other, SAME)
    assert (label_map == 0).all()


def test_a_label_of_a_refiner_that_its_patches_do_not_have_stays() -> None:
    """Of several labels, one that an edge of the frame moved there is no tie."""
    steady = SteadyLabels()
    assignment = np.tile(np.float32([0.1, 0.8, 0.1]), (SAME.size, 1))
    labels_of(steady, assignment)
    label_map = np.full(CANVAS.frame_hw, 2, np.int32)
    steady(label_map, np.full(CANVAS.frame_hw, 0.2, np.float32), assignment, CANVAS, SAME)
    assert (label_map == 2).all()


def test_memory_is_one_label_map() -> None:
    canvas = Canvas((1080, 1920), (0, 0), (1080, 1920), GRID)
    maps = [canvas.upsample(noisy(disc_of(8), seed)) for seed in range(6)]
    steady = SteadyLabels()
    tracemalloc.start()
    try:
        for label_map, confidence in maps:
            steady(label_map, confidence, disc_of(8), canvas, SAME)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    size = maps[0][0].nbytes
    assert now < 1.1 * size and peak < 2 * size


@pytest.mark.parametrize("corner", [(0, 0), (-20, 0), (30, -15)])
def test_neighbours_are_what_upsample_goes_by(corner: tuple[int, int]) -> None:
    canvas = Canvas((97, 131), corner, (70, 140), (5, 7))
    values = np.random.default_rng(0).random((35, 1)).astype(np.float32)
    patches, weights = canvas.neighbours(np.arange(70 * 140))
    found = (values[patches, 0] * weights).sum(axis=1).reshape(70, 140)
    np.testing.assert_allclose(found, canvas.upsample(values)[1], atol=1e-5)
    assert np.ptp(found) > 0.5
    alone = Canvas((4, 4), (0, 0), (4, 4), (1, 1))
    patches, weights = alone.neighbours(np.arange(16))
    assert (patches == 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1)


def still_frames(photo: np.ndarray, count: int = 8) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    image = photo[40:280, 120:440]
    return [np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8) for _ in range(count)]


def stream_of(segmenter: patchcut.Segmenter, images: list[np.ndarray]) -> list[patchcut.Result]:
    source = FrameSource(
        (patchcut.Frame(image, index=i) for i, image in enumerate(images)), kind="video", name="clip"
    )
    return list(segmenter.stream(source))


def changes_of(results: list[patchcut.Result]) -> float:
    return float(np.mean([(a.label_map != b.label_map).mean() for a, b in pairwise(results)]))


def test_a_still_photo_with_noise_keeps_its_labels(
    photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = patchcut.load(engine="onnxruntime", precision="int8", nothing_below=0.0)
    frames = still_frames(photo)
    held = changes_of(stream_of(segmenter, frames)[3:])
    monkeypatch.setattr("patchcut.video.steady_labels.MARGIN", 0.0)
    plain = changes_of(stream_of(segmenter, frames)[3:])
    assert plain > 0.0005, "the noise must be able to fail this"
    assert held < 0.5 * plain


def test_what_is_pointed_at_holds_still_too(photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = patchcut.load(engine="onnxruntime", precision="int8")
    frames = still_frames(photo)

    def tracked() -> list[patchcut.Result]:
        return list(segmenter.track(frames, boxes=[(60, 30, 260, 220)]))

    held = changes_of(tracked()[3:])
    monkeypatch.setattr("patchcut.video.steady_labels.MARGIN", 0.0)
    plain = changes_of(tracked()[3:])
    assert plain > 0.0002, "the noise must be able to fail this"
    assert held < 0.6 * plain


def test_objects_that_are_added_take_their_pixels_at_once() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((SAME.size, 8)).astype(np.float32)
    objects = PointedObjects()
    objects.add(Prompt(box=(0, 0, 80, 120)))
    for _ in range(2):
        assignment = objects(features, CANVAS)
        label_map, confidence = CANVAS.upsample(assignment)
        objects.keep_labels(label_map, confidence, assignment, CANVAS)
    objects.add(Prompt(box=(80, 0, 160, 120)))
    assignment = objects(features, CANVAS)
    label_map, confidence = CANVAS.upsample(assignment)
    expected = label_map.copy()
    objects.keep_labels(label_map, confidence, assignment, CANVAS)
    np.testing.assert_array_equal(label_map, expected)
