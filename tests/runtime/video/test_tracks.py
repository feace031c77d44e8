"""Tracks of streams: ids that stay through crossings and occlusion, and what begins and ends them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import patchcut
import pytest
from patchcut import Frame, Result
from patchcut.sources.arrays import FrameSource
from patchcut.video import SceneCuts, Seen, Tracker
from patchcut.video.tracker import CONFIRMED, MAX_TRACKS, PATIENCE, cosines, product

from tests.runtime.results import same
from tests.runtime.video.moving_discs import Shown, moving_discs


def stream(segmenter: patchcut.Segmenter, images: Sequence[np.ndarray], **how: object) -> Iterator[Result]:
    source = FrameSource((Frame(image, index=i) for i, image in enumerate(images)), kind="video", name="clip")
    return segmenter.stream(source, **how)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def embedded() -> patchcut.Segmenter:
    return patchcut.load(engine="onnxruntime", precision="int8", nothing_below=0.05)


@pytest.fixture(scope="module")
def discs() -> list[Shown]:
    return moving_discs()


@pytest.fixture(scope="module")
def tracked(embedded: patchcut.Segmenter, discs: list[Shown]) -> list[Result]:
    return list(stream(embedded, [one.image for one in discs]))


def ids_of(results: Sequence[Result], discs: Sequence[Shown], disc: int) -> list[int]:
    """The track id of the region that shows a disc, on each frame where one does."""
    found = []
    for result, shown in zip(results, discs, strict=True):
        assert result.track_ids is not None
        truth = shown.discs == disc
        for i, track_id in enumerate(result.track_ids.tolist()):
            region = result.region_ids == i + 1
            if (region & truth).sum() > 0.4 * (region | truth).sum():
                found.append(track_id)
    return found


@pytest.mark.parametrize(("disc", "least"), [(1, 55), (2, 50), (3, 25)])
def test_a_disc_keeps_its_id(tracked: list[Result], discs: list[Shown], disc: int, least: int) -> None:
    found = ids_of(tracked, discs, disc)
    assert len(found) >= least
    assert [(a, b) for a, b in pairwise(found) if a != b] == []


def test_discs_have_ids_of_their_own(tracked: list[Result], discs: list[Shown]) -> None:
    assert len({ids_of(tracked, discs, disc)[-1] for disc in (1, 2, 3)}) == 3
    for result in tracked:
        assert result.track_ids is not None and result.track_ids.dtype == np.int32
        assert len(set(result.track_ids.tolist())) == len(result) == len(result.track_ids)
        assert (result.track_ids >= 1).all()


def test_discs_that_touch_are_told_apart(tracked: list[Result], discs: list[Shown]) -> None:
    both = [
        sum(
            max(
                ((result.region_ids == i + 1) & (shown.discs == disc)).sum()
                / ((result.region_ids == i + 1) | (shown.discs == disc)).sum()
                for i in range(len(result))
            )
            > 0.7
            for disc in (1, 2)
        )
        for result, shown in list(zip(tracked, discs, strict=True))[37:53]
    ]
    assert np.mean(both) > 1.5, both


def test_regions_and_label_map_agree(tracked: list[Result]) -> None:
    for result in tracked[30:60]:
        np.testing.assert_array_equal(result.region_ids > 0, result.label_map > 0)
        for i in range(len(result)):
            rows, columns = np.nonzero(result.region_ids == i + 1)
            assert len(rows) == result.areas[i]
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_array_equal(result.boxes[i], box)


def test_a_cut_begins_afresh(embedded: patchcut.Segmenter, photo: np.ndarray) -> None:
    astronaut = patchcut.sources.photos.read_photo(Path(patchcut.__file__).parent / "samples/astronaut.jpg")
    other = astronaut[: photo.shape[0], : photo.shape[1]]
    frames = [np.ascontiguousarray(photo[i : i + 300, i : i + 400]) for i in range(0, 16, 2)]
    frames += [np.ascontiguousarray(other[i : i + 300, i : i + 400]) for i in range(0, 16, 2)]
    results = list(stream(embedded, frames))
    before, after = (
        {int(one) for result in half for one in result.track_ids if result.track_ids is not None}
        for half in (results[:8], results[8:])
    )
    assert before and after and not before & after
    assert min(after) > max(before)
    alone = next(iter(stream(embedded, frames[8:])))
    same(results[8], alone)


def test_a_cut_after_the_first_frame_is_one(embedded: patchcut.Segmenter, photo: np.ndarray) -> None:
    astronaut = patchcut.sources.photos.read_photo(Path(patchcut.__file__).parent / "samples/astronaut.jpg")
    frames = [photo[:400, :400].copy(), astronaut[:400, :400].copy()]
    same(list(stream(embedded, frames))[1], next(iter(stream(embedded, frames[1:]))))


def test_cuts_are_found_whatever_was_usual() -> None:
    rng = np.random.default_rng(0)

    def unit(rows: np.ndarray) -> np.ndarray:
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    scenes = [rng.standard_normal((64, 32)) for _ in range(3)]
    for noise in (0.0, 0.2):
        cuts = SceneCuts()
        frames = [
            unit(scene + noise * rng.standard_normal(scene.shape)) for scene in scenes for _ in range(5)
        ]
        assert [i for i, frame in enumerate(frames) if cuts(frame)] == [5, 10]
    cuts = SceneCuts()
    pan = [unit(np.roll(scenes[0], 7 * i, axis=0)) for i in range(6)]
    assert not any(cuts(frame) for frame in pan), "patches that move are of the same scene"


def test_an_object_continues_below_the_limit_that_begins_one(discs: list[Shown]) -> None:
    segmenter = patchcut.load(engine="onnxruntime", precision="int8")
    limit = segmenter.describe().nothing_below
    images = [one.image for one in discs[60:84]]  # all go towards the frame's edges, where they score less
    tracked, each = (list(stream(segmenter, images, track=track)) for track in (True, False))
    lost = [i for i, result in enumerate(each) if not len(result)]
    assert lost and lost[-1] == len(images) - 1
    assert tracked[-1].scores.max() < limit
    for i in lost:
        assert (
            len(tracked[i])
            and tracked[i].track_ids is not None
            and set(tracked[i].track_ids) <= set(tracked[i - 1].track_ids)
        )
    newborn = list(stream(segmenter, images[lost[0] :]))
    assert not len(newborn[0]), "what is seen for the first time has to score enough"


def test_flicker_is_carried_over(toy_bundle: Path, photo: np.ndarray) -> None:
    """Noise makes the toy's patches change sides; joined with the frames before they change less."""
    rng = np.random.default_rng(0)
    frames = [
        np.clip(photo[:160, :200] + rng.normal(0, 25, (160, 200, 3)), 0, 255).astype(np.uint8)
        for _ in range(12)
    ]
    segmenter = patchcut.load(toy_bundle, refine="none")
    changes = [
        np.mean(
            [
                (a.label_map != b.label_map).mean()
                for a, b in pairwise(list(stream(segmenter, frames, track=track))[2:])
            ]
        )
        for track in (True, False)
    ]
    assert changes[0] < 0.6 * changes[1]


@pytest.mark.parametrize("mode", ["parts", "scene"])
def test_parts_have_the_id_of_their_object(
    mode: str, embedded: patchcut.Segmenter, photo: np.ndarray
) -> None:
    frames = [np.ascontiguousarray(photo[i : i + 300, i : i + 400]) for i in range(0, 10, 2)]
    whole = list(stream(embedded, frames))
    divided = patchcut.load(
        engine="onnxruntime", precision="int8", nothing_below=0.05, mode=mode, parts="kmeans:k=3"
    )
    for result, objects in zip(stream(divided, frames), whole, strict=True):
        assert result.track_ids is not None and objects.track_ids is not None
        for i, track_id in enumerate(result.track_ids.tolist()):
            if result.region_labels[i] in result.background_columns:
                assert track_id == 0
                continue
            owner = np.bincount(objects.region_ids[result.region_ids == i + 1]).argmax()
            assert track_id == objects.track_ids[owner - 1]


def test_single_frames_and_untracked_streams_have_no_ids(
    toy_segmenter: patchcut.Segmenter, photo: np.ndarray
) -> None:
    assert toy_segmenter(photo).track_ids is None
    assert [one.track_ids for one in stream(toy_segmenter, [photo], track=False)] == [None]
    assert [one.track_ids for one in toy_segmenter.stream([photo])] == [None], "photos do not follow another"


def seen(*boxes: tuple[float, float, float, float], looks: Sequence[int] = (), side: int = 16) -> Seen:
    """Regions that fill boxes, in patches of a grid of 16x16; each looks as its number says."""
    features = np.zeros((side * side, 8), np.float32)
    features[:, 7] = 1
    cover = np.zeros((len(boxes), side, side), np.float32)
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        cover[i, round(y0) : round(y1), round(x0) : round(x1)] = 1
        look = (looks or range(len(boxes)))[i]
        features[cover[i].ravel() > 0] = np.eye(8, dtype=np.float32)[look]
    return Seen.of(
        cover.reshape(len(boxes), side * side), features, np.array(boxes, float).reshape(-1, 4) / side
    )


def follow(tracker: Tracker, regions: Seen) -> list[int]:
    """Ids of a frame to which nothing was carried: boxes and looks decide."""
    carried = np.zeros((256, len(tracker.tracks)), np.float32)
    for place, track in enumerate(tracker.tracks):
        track.column = place
    return tracker.update(regions, tracker.match(regions, carried)).tolist()


def test_a_track_is_found_again_by_its_look_and_ends_after_its_patience() -> None:
    tracker = Tracker()
    for _ in range(CONFIRMED):
        assert follow(tracker, seen((1, 1, 4, 4), looks=[2])) == [1]
    for _ in range(PATIENCE):
        follow(tracker, seen())
    assert follow(tracker, seen((11, 11, 14, 14), looks=[2])) == [1]
    for _ in range(PATIENCE + 1):
        follow(tracker, seen())
    assert tracker.tracks == []
    assert follow(tracker, seen((11, 11, 14, 14), looks=[2])) == [2], "ids are never given again"


def test_another_look_elsewhere_is_another_track() -> None:
    tracker = Tracker()
    for _ in range(CONFIRMED):
        follow(tracker, seen((1, 1, 4, 4), looks=[2]))
    assert follow(tracker, seen((11, 11, 14, 14), looks=[3])) == [2]


def test_what_was_seen_once_is_soon_forgotten() -> None:
    tracker = Tracker()
    follow(tracker, seen((1, 1, 4, 4)))
    for _ in range(3):
        follow(tracker, seen())
    assert follow(tracker, seen((1, 1, 4, 4))) == [2]


def test_tracks_that_change_places_keep_their_speed() -> None:
    tracker = Tracker()
    for i in range(8):
        ids = follow(tracker, seen((i, 1, i + 3, 4), (12 - i, 10, 15 - i, 13), looks=[1, 1]))
    assert ids == [1, 2]
    for _ in range(3):
        follow(tracker, seen())
    assert follow(tracker, seen((1, 10, 4, 13), (11, 1, 14, 4), looks=[1, 1])) == [2, 1]


@pytest.mark.parametrize("shape", [(0, 3, 2), (1, 1, 1), (7, 256, 384), (256, 384, 64)])
def test_products_are_those_of_blas_on_one_thread(shape: tuple[int, int, int]) -> None:
    a, n, b = shape
    random = np.random.default_rng(0)
    rows, others = random.normal(size=(a, n)).astype(np.float32), random.normal(size=(b, n))
    made = product(rows, others.astype(np.float32).T)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, rows @ others.T, rtol=1e-4, atol=1e-4)


def test_tracking_many_regions_leaves_no_thread_at_work() -> None:
    """Threads of BLAS would go on looking for work for tens of milliseconds."""
    random = np.random.default_rng(0)
    features = random.normal(size=(256, 384)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    cover, boxes = random.random((32, 256), np.float32), random.random((32, 4))
    time.sleep(0.3)  # what tests before have left at work
    begun, own = time.process_time(), time.thread_time()
    for _ in range(20):
        seen = Seen.of(cover, features, boxes)
        cosines(features, seen.prototypes)
    time.sleep(0.1)
    own = time.thread_time() - own
    assert time.process_time() - begun < 1.5 * own + 0.02


def test_the_number_of_tracks_is_bounded() -> None:
    tracker = Tracker()
    for _ in range(40):
        follow(
            tracker,
            seen(*[(x, y, x + 1, y + 1) for x in range(0, 16, 4) for y in range(0, 16, 4)], looks=[0] * 16),
        )
        tracker.tracks[0].missed = 1
        follow(tracker, seen())
    assert len(tracker.tracks) <= MAX_TRACKS
