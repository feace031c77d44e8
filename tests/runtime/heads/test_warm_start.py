"""Fitted heads that start from what they found on the frame before: in one stream, within a scene."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import patchcut
import patchcut_kernels as kernels
import pytest
from patchcut import Frame
from patchcut.heads import CcHead, FittedHead, Following, GnnFitHead, KMeansHead, NcutHead
from patchcut.sources.arrays import FrameSource

from tests.runtime.patches import DIM, GRID, features_of, planted
from tests.runtime.results import same

WARM = [NcutHead(), NcutHead(rule="seed"), GnnFitHead(), GnnFitHead(k=4)]
COLD = [GnnFitHead(k=4, loss="cc"), CcHead(solver="gnn"), CcHead(), KMeansHead(k=2)]


def frame_rows(step: int, objects: tuple[int, int] = (0, 1)) -> np.ndarray:
    """[80, DIM] float32 of an object that moves, a patch each frame; others look like nothing of it."""
    regions = np.full(GRID, objects[0])
    regions[2:6, 1 + step % 4 : 5 + step % 4] = objects[1]
    noise = 0.25 * np.random.default_rng(step).standard_normal((regions.size, DIM))
    return (planted(regions, noise=0.0) + noise).astype(np.float32)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any], Any]]:
    """What the heads ask of the kernels, and what they get."""
    made: list[tuple[str, dict[str, Any], Any]] = []

    def watch(name: str) -> None:
        op: Callable[..., Any] = getattr(kernels, name)

        def watched(*inputs: Any, **options: Any) -> Any:
            result = op(*inputs, **options)
            made.append((name, options, result))
            return result

        monkeypatch.setattr(kernels, name, watched)

    for name in ("ncut", "bipartition", "gnn_fit"):
        watch(name)
    return made


@pytest.mark.parametrize("head", WARM, ids=str)
def test_the_first_frame_of_a_scene_is_that_of_a_photo(head: FittedHead) -> None:
    rows = frame_rows(0)
    np.testing.assert_array_equal(head.cluster_after(rows, None)[0], head.cluster(rows))
    np.testing.assert_array_equal(head.assign_after(rows, GRID, None)[0], head.assign(rows, GRID))
    following = Following(head)
    first = following(features_of(rows, GRID))
    following(features_of(frame_rows(1), GRID))
    following.begin_scene()
    np.testing.assert_array_equal(following(features_of(rows, GRID)), first)


@pytest.mark.parametrize("head", [NcutHead(), NcutHead(rule="seed")], ids=str)
def test_a_cut_starts_from_that_of_the_frame_before(
    head: NcutHead, calls: list[tuple[str, dict[str, Any], Any]]
) -> None:
    following = Following(head)
    for step in range(6):
        rows = frame_rows(step // 3)
        got = following(features_of(rows, GRID))[0]
        want = head(features_of(rows, GRID))[0]
        np.testing.assert_array_equal(got.argmax(axis=1), want.argmax(axis=1))
        np.testing.assert_allclose(got, want, atol=5e-3)
    streamed = calls[::2]
    assert [one[1]["start"] is not None for one in streamed] == [False] + [True] * 5
    assert all(one[1]["start"] is None and one[1]["tolerance"] == 0 for one in calls[1::2])


def test_warm_cuts_take_fewer_products(calls: list[tuple[str, dict[str, Any], Any]]) -> None:
    following = Following(NcutHead(binary=False, threshold=0.0))
    for step in range(5):
        following(features_of(frame_rows(step), GRID))
    products = [int(one[2].products) for one in calls]
    assert products[0] == 10
    assert max(products[1:]) < 10


@pytest.mark.parametrize("head", COLD, ids=str)
def test_other_heads_keep_nothing_to_start_from(head: FittedHead) -> None:
    rows = frame_rows(0)
    assignment, after = head.assign_after(rows, GRID, None)
    assert after is None
    np.testing.assert_array_equal(assignment, head.assign(rows, GRID))


def test_a_network_serves_five_frames(calls: list[tuple[str, dict[str, Any], Any]]) -> None:
    following = Following(GnnFitHead())
    rows = features_of(frame_rows(0), GRID)
    first = following(rows)
    for _ in range(10):
        again = following(rows)
    steps = [one[1]["steps"] for one in calls]
    assert steps == ([10] + [1] * 4) * 2 + [10]
    np.testing.assert_array_equal(again, first)


def test_a_network_that_does_not_fit_is_fitted_afresh(calls: list[tuple[str, dict[str, Any], Any]]) -> None:
    head = GnnFitHead(steps=40, learning_rate=1e-2)
    following = Following(head)
    following(features_of(frame_rows(0), GRID))
    other = features_of(np.random.default_rng(0).permutation(frame_rows(0, (2, 3))), GRID)
    got = following(other)
    assert [one[1]["steps"] for one in calls] == [40, 1, 40]
    np.testing.assert_array_equal(np.sort(got[0].max(axis=1)), np.sort(head(other)[0].max(axis=1)))


@pytest.mark.parametrize("head", WARM, ids=str)
def test_streams_that_share_a_head_do_not_mix(head: FittedHead) -> None:
    frames = [features_of(frame_rows(step), GRID) for step in range(4)]
    others = [features_of(frame_rows(step, (5, 6)), GRID) for step in range(4)]
    alone, one, other = Following(head), Following(head), Following(head)
    want = [alone(each) for each in frames]
    for each, another, expected in zip(frames, others, want, strict=True):
        other(another)
        np.testing.assert_array_equal(one(each), expected)


def test_without_warm_each_frame_is_found_afresh(calls: list[tuple[str, dict[str, Any], Any]]) -> None:
    for head in (NcutHead(), GnnFitHead()):
        following, parts = Following(head, warm=False), Following(head, warm=False)
        for step in range(3):
            following(features_of(frame_rows(step), GRID))
            parts.number(frame_rows(step))
    assert all(options.get("start", options.get("init")) is None for _, options, _ in calls)


def test_another_grid_is_found_afresh(calls: list[tuple[str, dict[str, Any], Any]]) -> None:
    following = Following(NcutHead())
    for grid in (GRID, GRID[::-1], GRID[::-1]):
        following(features_of(frame_rows(0), grid))
    assert [one[1]["start"] is not None for one in calls] == [False, False, True]


def test_patches_that_come_and_go_are_cut_afresh(calls: list[tuple[str, dict[str, Any], Any]]) -> None:
    """Parts of an object: a vector is of as many patches as there were, a network of any."""
    for head in (NcutHead(), GnnFitHead()):
        following = Following(head)
        for count in (40, 40, 35):
            assert following.number(frame_rows(0)[:count]).shape == (count,)
    starts = [options.get("start", options.get("init")) is not None for _, options, _ in calls]
    assert starts == [False, True, False, False, True, True]


@pytest.mark.parametrize("head", [GnnFitHead(), NcutHead(), KMeansHead(k=2)], ids=str)
def test_a_cut_of_the_scene_begins_afresh(toy_bundle: Path, head: FittedHead) -> None:
    """A frame of another scene is what it is alone; `steady` would carry the ones before into it."""
    segmenter = patchcut.load(toy_bundle, head=head)
    stages = segmenter._stages.of_video("none", track=True)
    for step in range(3):
        stages._assign(features_of(frame_rows(step), GRID))
    after = features_of(frame_rows(0, (7, 8)), GRID)
    np.testing.assert_array_equal(stages._assign(after)[0], head(after)[0])


def test_columns_of_a_network_keep_their_meaning() -> None:
    """Its own columns do not change places until the next fit, before any frame is matched with others."""
    head, before = GnnFitHead(steps=60, learning_rate=1e-2, dropout=0.0), None
    columns = []
    for step in range(5):
        clusters, before = head.cluster_after(frame_rows(step), before)
        columns.append(int(clusters.argmax(axis=1).reshape(GRID)[3, 2 + step % 4]))
    assert columns == [columns[0]] * 5


def test_streams_of_a_segmenter_begin_cold_and_track_false_stays_cold(
    toy_bundle: Path, photo: np.ndarray, calls: list[tuple[str, dict[str, Any], Any]]
) -> None:
    segmenter = patchcut.load(toy_bundle, head="gnn-fit", refine="none")
    images = [np.ascontiguousarray(photo[:, :320])] * 3

    def stream(**options: Any) -> list[patchcut.Result]:
        frames = (Frame(image, index=i) for i, image in enumerate(images))
        return list(segmenter.stream(FrameSource(frames, kind="video", name="clip"), **options))

    first = stream()
    assert [one[1]["init"] is not None for one in calls] == [False, True, True]
    for again, result in zip(stream(), first, strict=True):
        same(again, result)
    del calls[:]
    stream(track=False)
    segmenter(images[1])
    segmenter.batch(images)
    assert len(calls) == 7
    assert all(one[1]["init"] is None for one in calls)
