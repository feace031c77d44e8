"""Clusters keep their number from frame to frame of a stream, and from nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import patchcut
import pytest
from patchcut import Frame, Result, Segmenter
from patchcut.heads import CcHead, FittedHead, Following, GnnFitHead, KMeansHead, NcutHead
from patchcut.heads.fitted import continued, in_reading_order
from patchcut.sources import Source
from patchcut.stages.parts import Parts

from tests.runtime.patches import GRID, features_of, planted
from tests.runtime.results import check_consistent, same

FRAMES = 12
HEADS = [
    KMeansHead(k=3),
    KMeansHead(k=3, metric="euclidean"),
    CcHead(),
]


def turning(count: int = 3, frames: int = FRAMES) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(regions [m], rows [m, DIM]) of an object whose parts are larger and smaller in turns."""
    random = np.random.default_rng(0)
    for frame in range(frames):
        sizes = 8 + np.roll(6 * np.arange(count), frame)
        regions = random.permutation(np.repeat(np.arange(count), sizes))
        rows = planted(regions, noise=0.0) + random.normal(0, 0.25, (len(regions), 16))
        yield regions, rows.astype(np.float32)


def numbers_of(regions: np.ndarray, labels: np.ndarray) -> list[int]:
    """The label of each region, which must be one."""
    found = [np.unique(labels[regions == region]) for region in np.unique(regions)]
    assert [len(one) for one in found] == [1] * len(found)
    return [int(one[0]) for one in found]


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_parts_keep_their_number_as_an_object_turns(head: FittedHead) -> None:
    following = Following(head)
    alone, followed = [], []
    for regions, rows in turning():
        alone.append(numbers_of(regions, in_reading_order(head.cluster(rows).argmax(axis=1))[0]))
        followed.append(numbers_of(regions, following.number(rows)))
    assert followed[0] == alone[0], "the first frame is numbered as a single one"
    assert len({tuple(one) for one in alone}) > 1, "by themselves they change places"
    assert all(one == followed[0] for one in followed)


@pytest.mark.parametrize("head", [NcutHead(), GnnFitHead(steps=60, dropout=0.0)], ids=str)
def test_two_halves_keep_their_number(head: FittedHead) -> None:
    following = Following(head)
    found = [numbers_of(regions, following.number(rows)) for regions, rows in turning(2)]
    assert all(one == found[0] for one in found)


def test_means_that_drift_are_followed() -> None:
    """Each frame turns all directions; after 40 frames a part looks like another one at the start."""
    regions = np.repeat([0, 1, 2], [9, 14, 20])
    angles = np.array([0.0, 2.0, 4.0])
    random = np.random.default_rng(0)
    following = Following(KMeansHead(k=3))
    for step in range(40):
        angle = angles[regions] + step * 2.0 / 40 + random.normal(0, 0.05, len(regions))
        rows = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
        assert numbers_of(regions, following.number(rows)) == [0, 1, 2]


def test_what_was_away_comes_back_and_what_is_new_is_new() -> None:
    following = Following(CcHead())
    shown = [[0, 1, 2], [0, 2], [2], [0, 1, 2], [0, 1, 2, 3]]
    regions = [np.repeat(which, [20 - 4 * one for one in which]) for which in shown]
    found = [numbers_of(one, following.number(planted(one))) for one in regions]
    assert found == shown


def test_there_are_never_more_numbers_than_columns() -> None:
    random = np.random.default_rng(0)
    for head in (CcHead(max_clusters=4, alpha=1.2), KMeansHead(k=3), NcutHead(), GnnFitHead(k=4)):
        following = Following(head)
        for count in (1, 2, 60, 3, 40, 1, 80):
            numbers = following.number(random.standard_normal((count, 16)).astype(np.float32))
            assert numbers.dtype == np.int32 and numbers.shape == (count,)
            assert numbers.min() >= 0 and numbers.max() < head.columns


def test_another_shot_is_clustered_anew() -> None:
    """Moved means would leave two of its parts together, and one part in two."""
    first, second = np.repeat([0, 1, 2], 20), np.repeat([3, 4, 5], 20)
    following = Following(KMeansHead(k=3))
    following.number(planted(first))
    found = following.number(planted(second, noise=0.05))
    assert sorted(numbers_of(second, found)) == [0, 1, 2]


def test_the_most_alike_continue_first() -> None:
    means = np.float32([[1, 0, 0], [0, 1, 0]])
    rows = np.float32([[1, 0.9, 0], [0.2, 1, 0], [0, 0, 1]])
    assert continued(np.array([0, 1, 2]), rows, means).tolist() == [0, 1, 2]
    assert continued(np.array([1, 0, 0]), rows, means).tolist() == [0, 1, 1]
    assert continued(np.array([4, 4, 7]), rows, means).tolist() == [1, 1, 0]


@pytest.mark.parametrize("head", [KMeansHead(k=3), CcHead()], ids=str)
def test_the_columns_of_a_scene_are_the_same_on_every_frame(head: FittedHead) -> None:
    parts = Parts(head, head).following()
    regions = np.repeat([0, 1], [5, 3])[:, None].repeat(10, axis=1)
    labels = []
    for left in range(0, 6):
        shown = regions.copy()
        if left < 4:  # then the object is gone
            shown[2:7, left : left + 5] = 2
            shown[2:4, left : left + 5] = 3
        sure = np.where((shown >= 2).ravel(), 0.9, 0.1)
        foreground = np.stack([1 - sure, sure], axis=1).astype(np.float32)
        division = parts(features_of(planted(shown, seed=left), GRID), foreground)
        labels.append((division.labels, division.background_columns))
        np.testing.assert_allclose(division.assignment.sum(axis=1), 1, atol=1e-6)
        assert division.assignment.shape[1] == len(division.labels)
    assert labels == [labels[0]] * 6
    assert len(labels[0][0]) == 1 + 2 * head.columns


class Clip(Source):
    """Frames as if they were a video's."""

    def __init__(self, frames: list[np.ndarray], kind: Literal["video", "images"] = "video") -> None:
        super().__init__(kind, "clip")
        self._frames = frames

    def __iter__(self) -> Iterator[Frame]:
        for index, frame in enumerate(self._frames):
            yield Frame(frame, index=index)


class Clips(Source):
    """Several of them."""

    def __init__(self, clips: list[Clip]) -> None:
        super().__init__("video", "clips")
        self._clips = clips

    def __iter__(self) -> Iterator[Frame]:
        for clip in self._clips:
            yield from clip

    def parts(self) -> Iterator[Source]:
        yield from self._clips


@pytest.fixture
def frames(photo: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(photo[20 * i : 20 * i + 240, 30 * i : 30 * i + 320]) for i in range(6)]


SETTINGS = [
    {"mode": "parts"},
    {"mode": "scene", "parts": "kmeans:k=3"},
    {"mode": "scene", "parts": "cc"},
    {"head": "kmeans:k=4"},
    {"head": "cc"},
    {"head": "ncut"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_first_frame_is_that_of_a_photo(
    toy_bundle: Path, frames: list[np.ndarray], settings: dict[str, str]
) -> None:
    segmenter = patchcut.load(toy_bundle, refine="none", **settings)  # type: ignore[arg-type]
    results = list(segmenter.results(Clip(frames)))
    alone = segmenter(frames[0])
    named = [np.array(result.labels)[result.label_map] for result in (results[0], alone)]
    np.testing.assert_array_equal(*named)
    assert len({result.labels for result in results}) == 1
    for result in results:
        np.testing.assert_allclose(result.assignment.sum(axis=1), 1, atol=1e-5)
        assert result.assignment.shape[1] == len(result.labels)
        if settings.get("mode") is None:
            check_consistent(result, frames[0].shape[:2])


def changes(results: list[Result]) -> float:
    """Share of the pixels that are foreground twice whose label is another one the second time."""
    pairs = list(pairwise(results))
    both = [a.foreground & b.foreground for a, b in pairs]
    other = [(a.label_map != b.label_map)[inside] for (a, b), inside in zip(pairs, both, strict=True)]
    return float(np.concatenate(other).mean())


def test_parts_of_a_video_hold_still(embedded_bundle: Path) -> None:
    """A sample photo that the camera slowly moves over: two pixels a frame."""
    from patchcut.cli.demo import SAMPLES
    from patchcut.sources.photos import read_photo

    photo = read_photo(SAMPLES / "astronaut.jpg")
    walk = [np.ascontiguousarray(photo[2 * i : 2 * i + 440, i : i + 440]) for i in range(16)]
    segmenter = patchcut.load(embedded_bundle, mode="parts", refine="none")
    moving = changes(list(segmenter.results(Clip(walk))))
    alone = changes([segmenter(frame) for frame in walk])
    assert moving < 0.1 < alone, (moving, alone)


def test_nothing_is_remembered_after_a_stream(toy_bundle: Path, frames: list[np.ndarray]) -> None:
    segmenter = patchcut.load(toy_bundle, mode="scene", refine="none")
    before = segmenter(frames[0])
    streamed = list(segmenter.results(Clip(frames)))
    same(segmenter(frames[0]), before)
    for again, result in zip(segmenter.results(Clip(frames)), streamed, strict=True):
        same(again, result)


def test_each_part_of_a_source_begins_anew(toy_bundle: Path, frames: list[np.ndarray]) -> None:
    segmenter = patchcut.load(toy_bundle, mode="parts", refine="none")
    clips = [frames, frames[::-1]]
    results = list(segmenter.results(Clips([Clip(one) for one in clips])))
    apart = [result for one in clips for result in segmenter.results(Clip(one))]
    for got, expected in zip(results, apart, strict=True):
        same(got, expected)


def test_streams_at_the_same_time_do_not_mix(toy_bundle: Path, frames: list[np.ndarray]) -> None:
    segmenter = patchcut.load(toy_bundle, mode="parts", refine="none")
    expected = list(segmenter.results(Clip(frames)))
    forth, back = segmenter.results(Clip(frames)), segmenter.results(Clip(frames[::-1]))
    for one, result in zip(zip(forth, back, strict=True), expected, strict=True):
        same(one[0], result)


def test_photos_do_not_follow_one_another(toy_bundle: Path, frames: list[np.ndarray]) -> None:
    segmenter: Segmenter = patchcut.load(toy_bundle, mode="parts")
    for result, frame in zip(segmenter.results(Clip(frames, "images")), frames, strict=True):
        same(result, segmenter(frame))
