"""Objects that are pointed at: split, followed, hidden, lost, found, added and removed."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import patchcut
import pytest
from patchcut import EngineError, OptionError, SourceError
from patchcut.sources.arrays import FrameSource
from patchcut.stages import Canvas
from patchcut.video import PointedObjects, Prompt, prompts_of
from patchcut.video.prompts import on_simplex, point_at, visible_patches

GRID = (24, 24)
CANVAS = Canvas((240, 240), (0, 0), (240, 240), GRID)
DIM = 24
Disc = tuple[float, float, float]  # row, column, radius, in patches


def disc(at: Disc) -> np.ndarray:
    """[24, 24] bool."""
    rows, columns = np.mgrid[: GRID[0], : GRID[1]]
    return (rows - at[0]) ** 2 + (columns - at[1]) ** 2 <= at[2] ** 2


def features_of(*discs: Disc | None, frame: int = 0) -> np.ndarray:
    """[n, 24] float32: a background of four kinds, and discs of a texture; the last is on top."""
    rng = np.random.default_rng(7)
    kinds, wholes = rng.standard_normal((4, DIM)), rng.standard_normal((3, DIM))
    textures = rng.standard_normal((3, 16, 16, DIM))
    rows, columns = np.mgrid[: GRID[0], : GRID[1]]
    features = kinds[2 * (rows >= 13) + (columns >= 9)] + 0.3 * rng.standard_normal((*GRID, DIM))
    for i, at in enumerate(discs):
        if at is not None:
            inside = disc(at)
            own = (rows - round(at[0])) % 16, (columns - round(at[1])) % 16
            features[inside] = (wholes[i] + 0.4 * textures[i][own])[inside]
    noise = np.random.default_rng(100 + frame).standard_normal(features.shape)
    return (3 + features + 0.1 * noise).reshape(-1, DIM).astype(np.float32)


def mask_of(at: Disc) -> np.ndarray:
    """[240, 240] bool, of the frame."""
    return disc(at).repeat(10, axis=0).repeat(10, axis=1)


def box_of(at: Disc, margin: int = 0) -> tuple[int, int, int, int]:
    y, x = np.nonzero(mask_of(at))
    return (
        int(x.min()) - margin,
        int(y.min()) - margin,
        int(x.max()) + 1 + margin,
        int(y.max()) + 1 + margin,
    )


def iou(assignment: np.ndarray, column: int, at: Disc, hidden_by: Disc | None = None) -> float:
    found, true = assignment.argmax(axis=1) == column, disc(at).ravel()
    if hidden_by is not None:
        true &= ~disc(hidden_by).ravel()
    return float((found & true).sum() / (found | true).sum())


@pytest.mark.parametrize("kind", ["point", "box", "mask"])
def test_an_object_is_split_from_its_surroundings(kind: str) -> None:
    at = (10.0, 12.0, 5.0)
    prompt = {
        "point": Prompt(point=(125, 105)),
        "box": Prompt(box=box_of(at, margin=10)),
        "mask": Prompt(mask=mask_of(at)),
    }[kind]
    values = point_at([prompt], features_of(at), CANVAS)
    assert values.shape == (576, 2) and values.dtype == np.float32
    np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-6)
    assert iou(values, 1, at) > 0.95


def test_prompts_leave_each_other_alone() -> None:
    one, two = (11.0, 8.0, 4.0), (11.0, 14.0, 4.0)
    features = features_of(one, two)
    both = (30, 60, 200, 170)
    alone = point_at([Prompt(box=both)], features, CANVAS)
    assert disc(two).ravel()[alone.argmax(axis=1) == 1].mean() > 0.2, "one box holds both"
    values = point_at([Prompt(mask=mask_of(two)), Prompt(box=both)], features, CANVAS)
    assert iou(values, 1, two) == 1 and iou(values, 2, one, hidden_by=two) > 0.9
    values = point_at([Prompt(point=(85, 115)), Prompt(point=(145, 115))], features, CANVAS)
    assert iou(values, 1, one, hidden_by=two) > 0.9 and iou(values, 2, two) > 0.9


@pytest.mark.parametrize(
    ("size_hw", "corner_yx", "frame_hw"),
    [((240, 240), (0, 0), (240, 240)), ((240, 240), (60, 0), (120, 240)), ((200, 220), (-8, -4), (216, 228))],
    ids=["frame", "letterbox", "overlap"],
)
def test_shares_of_patches_are_those_of_their_pixels(
    size_hw: tuple[int, int], corner_yx: tuple[int, int], frame_hw: tuple[int, int]
) -> None:
    canvas = Canvas(size_hw, corner_yx, frame_hw, (12, 10))
    mask = np.zeros(frame_hw, bool)
    mask[30:77, 41:130] = True
    covered = Prompt(mask=mask).covered(canvas).reshape(12, 10)
    rows = np.clip(((np.arange(frame_hw[0]) + 0.5 + corner_yx[0]) * 12 / size_hw[0]).astype(int), 0, 11)
    columns = np.clip(((np.arange(frame_hw[1]) + 0.5 + corner_yx[1]) * 10 / size_hw[1]).astype(int), 0, 9)
    for row in range(12):
        for column in range(10):
            pixels = mask[np.ix_(rows == row, columns == column)]
            expected = pixels.mean() if pixels.size else 0
            assert covered[row, column] == pytest.approx(expected, abs=0.1)
            if expected in (0, 1):
                assert covered[row, column] == pytest.approx(expected, abs=0.05)
    np.testing.assert_allclose(
        Prompt(box=(41, 30, 130, 77)).covered(canvas).ravel(), covered.ravel(), atol=1e-5
    )
    seen = visible_patches(canvas).reshape(12, 10)
    assert seen.any(axis=1).sum() == len(np.unique(rows)) and seen.any(axis=0).all()
    assert Prompt(mask=np.ones(frame_hw, bool)).covered(canvas).reshape(12, 10)[seen].min() == pytest.approx(
        1
    )


def test_an_object_of_one_patch_and_one_of_the_whole_frame() -> None:
    tiny = np.zeros((240, 240), np.uint8)
    tiny[103:106, 121:124] = 9
    values = point_at([Prompt(mask=tiny)], features_of(), CANVAS)
    assert np.flatnonzero(values.argmax(axis=1)).tolist() == [10 * 24 + 12]
    objects = PointedObjects()
    objects.add(Prompt(mask=tiny))
    for frame in range(4):
        where = (10.0, 12.0 + frame, 0.5)
        assert iou(objects(features_of(where, frame=frame), CANVAS, frame), 1, where) == 1
    whole = PointedObjects()
    whole.add(Prompt(mask=np.ones((240, 240), bool)))
    whole.add(Prompt(box=(-5, -5, 500, 500)))
    for frame in range(3):
        assert (whole(features_of(frame=frame), CANVAS, frame).argmax(axis=1) == 1).all()


def test_two_objects_cross_without_bleeding_into_each_other() -> None:
    """The second goes over the first, which is hidden in part, and then all of it, and comes back."""
    objects = PointedObjects()
    first, paths = (11.0, 12.0, 3.0), [(11.0, 2.0 + frame, 4.0) for frame in range(20)]
    objects.add(Prompt(mask=mask_of(first)))
    objects.add(Prompt(mask=mask_of(paths[0])))
    hidden = []
    for frame, second in enumerate(paths):
        values = objects(features_of(first, second, frame=frame), CANVAS, frame)
        np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-5)
        assert iou(values, 2, second) > 0.85, frame
        left = disc(first) & ~disc(second)
        if left.sum() > 6:
            found = values.argmax(axis=1) == 1
            assert found[left.ravel()].mean() > 0.7 and not found[disc(second).ravel()].any(), frame
        if not left.any():
            hidden.append(frame)
            assert objects.lost == (1,)
    assert hidden and objects.lost == ()


def test_what_goes_is_lost_and_found_elsewhere() -> None:
    objects = PointedObjects()
    at, back = (7.0, 6.0, 3.5), (15.0, 17.0, 3.5)
    objects.add(Prompt(box=box_of(at, margin=5), name="ball"))
    assert objects.labels == ("background",)
    for frame in range(4):
        assert iou(objects(features_of(at, frame=frame), CANVAS, frame), 1, at) > 0.9
    assert objects.labels == ("background", "ball")
    for frame in range(4, 16):
        values = objects(features_of(None, frame=frame), CANVAS, frame)
        assert (values[:, 1] == 0).all() and objects.lost == (1,), frame
    for frame in range(16, 22):
        assert iou(objects(features_of(back, frame=frame), CANVAS, frame), 1, back) > 0.8, frame
        assert objects.lost == ()


def test_another_object_is_not_taken_for_what_was_lost() -> None:
    objects = PointedObjects()
    at, other = (7.0, 6.0, 3.5), (15.0, 17.0, 3.5)
    objects.add(Prompt(mask=mask_of(at)))
    objects(features_of(at), CANVAS, 0)
    for frame in range(1, 9):
        objects(features_of(None, other, frame=frame), CANVAS, frame)
        assert objects.lost == (1,)


def test_objects_are_added_and_removed_and_ids_are_used_once() -> None:
    objects = PointedObjects()
    one, two = (6.0, 6.0, 3.0), (16.0, 16.0, 4.0)
    frames = iter([features_of(one, two, frame=frame) for frame in range(9)])
    assert not objects.wants(0)
    assert objects.add(Prompt(mask=mask_of(one))) == 1
    objects(next(frames), CANVAS, 0)
    assert objects.add(Prompt(box=box_of(two, margin=5))) == 2 and objects.ids == (1,)
    for index in (1, 2):
        values = objects(next(frames), CANVAS, index)
        assert objects.ids == (1, 2) and iou(values, 1, one) > 0.9 and iou(values, 2, two) > 0.9
    objects.remove(1)
    values = objects(next(frames), CANVAS, 3)
    assert values.shape[1] == 2 and objects.ids == (2,) and iou(values, 1, two) > 0.9
    np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-5)
    with pytest.raises(OptionError, match=r"\[remove\] there is no object 1; there are 2"):
        objects.remove(1)
    waiting = objects.add(Prompt(point=(60, 60)), at=99)
    objects.remove(waiting)
    assert objects.add(Prompt(point=(60, 60))) == waiting + 1
    values = objects(next(frames), CANVAS, 4)
    assert objects.ids == (2, 4) and iou(values, 2, one) > 0.9 and iou(values, 1, two) > 0.9
    for number in (2, 4):
        objects.remove(number)
    assert objects(next(frames), CANVAS, 5).shape == (576, 1) and not objects.wants(6)


def test_a_box_on_nothing_is_lost_and_said(caplog: pytest.LogCaptureFixture) -> None:
    objects = PointedObjects()
    objects.add(Prompt(mask=mask_of((11, 11, 6))))
    objects.add(Prompt(box=(100, 100, 120, 120), name="spot"))
    with caplog.at_level(logging.WARNING, "patchcut"):
        objects(features_of((11, 11, 6)), CANVAS, 0)
    assert objects.lost == (2,)
    assert "[spot] nothing of it is found in its box; draw it closer" in caplog.text
    objects(features_of((11, 11, 6), frame=1), CANVAS, 1)
    assert objects.lost == (2,)


def test_features_that_are_not_finite_are_refused() -> None:
    objects = PointedObjects()
    objects.add(Prompt(point=(3, 3)))
    with pytest.raises(EngineError, match=r"\[track\] the features are not finite"):
        objects(np.full((576, 4), np.nan, np.float32), CANVAS, 0)


def test_rows_are_on_the_simplex() -> None:
    values = np.random.default_rng(0).random((50, 4)).astype(np.float32)
    rows = on_simplex(values)
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-6)
    assert rows.min() >= 0 and (rows[:, 1:].argmax(axis=1) == values[:, 1:].argmax(axis=1)).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"box": (5, 5, 5, 9)}, "[box] must be x0, y0, x1, y1 with x0 < x1 and y0 < y1, got 5,5,5,9"),
        ({"box": (9, 9, 5, 5)}, "[box] must be x0, y0, x1, y1 with x0 < x1"),
        ({"box": (1, 2, 3)}, "[box] must be x0, y0, x1, y1 in pixels, got (1, 2, 3); boxes=[("),
        ({"box": 7}, "[box] must be x0, y0, x1, y1 in pixels, got 7"),
        ({"point": (1, float("nan"))}, "[point] must be x, y in pixels, got (1, nan); points=[(x, y)]"),
        ({"point": ("a", "b")}, "[point] must be x, y in pixels"),
        ({"mask": np.zeros((4, 4), bool)}, "[mask] is empty: it shows no object; draw the object in it"),
        ({"mask": np.zeros((4, 4, 3), np.uint8)}, "[mask] must be [H, W] bool or uint8, got [4, 4, 3] uint8"),
        ({"mask": np.ones((4, 4), np.float32)}, "[mask] must be [H, W] bool or uint8, got [4, 4] float32"),
        ({}, "[prompt] must be one point, box or mask for each object, got none"),
        ({"point": (1, 1), "box": (1, 1, 2, 2)}, "[prompt] must be one point, box or mask"),
        ({"point": (1, 1), "name": 3}, "[name] must be a text, got 3"),
    ],
)
def test_prompts_that_are_none(given: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as raised:
        Prompt(**given)
    assert str(raised.value).startswith(said) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ({"boxes": [(700, 10, 800, 20)]}, "[box] must lie on the frame, 640x427, got 700,10,800,20"),
        ({"boxes": [(-50, 10, 0, 20)]}, "[box] must lie on the frame"),
        ({"points": [(640, 20)]}, "[point] must lie on the frame, 640x427, got 640,20"),
        ({"masks": [np.ones((10, 10), bool)]}, "[mask] must have the frame's size, 640x427, got 10x10"),
        ({"boxes": (1, 2, 3, 4)}, "[box] must be x0, y0, x1, y1 in pixels, got 1"),
        ({"boxes": "1,2,3,4"}, "[boxes] must be a list"),
        ({"masks": np.ones((427, 640), bool)}, "[masks] must be a list of masks, got one"),
        ({"points": [(1, 1)], "names": ["a", "b"]}, "[names] must be a list of one name an object at most"),
    ],
)
def test_prompts_that_do_not_fit(
    toy_segmenter: patchcut.Segmenter, photo: np.ndarray, prompts: dict[str, Any], said: str
) -> None:
    for call in (
        lambda: toy_segmenter(photo, **prompts),
        lambda: list(toy_segmenter.track([photo], **prompts)),
    ):
        with pytest.raises(OptionError) as raised:
            call()
        assert str(raised.value).startswith(said)


def test_a_photo_has_one_region_for_each_prompt(
    embedded_segmenter: patchcut.Segmenter, photo: np.ndarray
) -> None:
    flower = embedded_segmenter(photo)
    y, x = np.nonzero(flower.region_ids == 1)
    box = (x.min(), y.min(), x.max() + 1, y.max() + 1)
    result = embedded_segmenter(photo, points=np.array([[5, 5]]), boxes=[box], names=["corner"])
    assert result.labels == ("background", "corner", "object 2")
    assert result.track_ids is not None and sorted(result.track_ids.tolist()) == [1, 2]
    assert (np.diff(result.scores) <= 0).all()
    mask = result.masks[result.track_ids.tolist().index(2)]
    true = flower.region_ids == 1
    assert (mask & true).sum() / (mask | true).sum() > 0.8
    for i, number in enumerate(result.track_ids):
        assert (result.label_map[result.masks[i]] == number).all()
        assert result.areas[i] == result.masks[i].sum()
    again = embedded_segmenter(photo, masks=[mask])
    assert (again.masks[0] & mask).sum() / (again.masks[0] | mask).sum() > 0.85


def shifted(photo: np.ndarray, behind: np.ndarray, mask: np.ndarray, count: int) -> list[np.ndarray]:
    """Frames in which what a mask shows moves over another photo, 8 pixels a frame."""
    frames = []
    for i in range(count):
        moved = np.roll(mask, 8 * i, axis=1)
        frames.append(np.where(moved[..., None], np.roll(photo, 8 * i, axis=1), behind))
    return frames


@pytest.mark.parametrize("kind", ["masks", "boxes"])
def test_a_flower_is_followed_over_another_photo(
    embedded_segmenter: patchcut.Segmenter, photo: np.ndarray, second_photo: np.ndarray, kind: str
) -> None:
    result = embedded_segmenter(photo)
    flower = result.region_ids == 1
    flower[:, 560:] = False
    y, x = np.nonzero(flower)
    prompts = {"masks": [flower], "boxes": [(x.min(), y.min(), x.max() + 1, y.max() + 1)]}
    frames = shifted(photo, second_photo, flower, 5)
    results = list(embedded_segmenter.track(FrameSource(frames, kind="video"), **{kind: prompts[kind]}))
    assert [one.index for one in results] == list(range(5))
    for i, one in enumerate(results):
        assert one.track_ids is not None and one.track_ids.tolist() == [1]
        true = np.roll(flower, 8 * i, axis=1)
        assert (one.masks[0] & true).sum() / (one.masks[0] | true).sum() > 0.75, i


def test_frames_before_are_empty_and_frames_may_change_size(
    toy_segmenter: patchcut.Segmenter, photo: np.ndarray
) -> None:
    frames = [photo, photo, photo, photo[:300, :500], photo]
    results = list(toy_segmenter.track(frames, boxes=[(100, 100, 300, 300)], at=2))
    assert [len(one) for one in results][:3] == [0, 0, 1]
    assert [list(one.timings_ms) for one in results[1:3]] == [
        ["read", "masks"],
        ["read", "preprocess", "backbone", "head", "masks"],
    ]
    assert results[3].label_map.shape == (300, 500)
    every = list(toy_segmenter.track(frames[:3], points=[(100, 100)], at=1, every=2))
    assert [(one.index, len(one)) for one in every] == [(0, 0), (2, 1)]


def test_the_end_comes_before_the_frame(toy_segmenter: patchcut.Segmenter, photo: np.ndarray) -> None:
    tracking = toy_segmenter.track([photo, photo], boxes=[(10, 10, 90, 90)], at=2)
    assert len(next(tracking)) == 0
    with pytest.raises(OptionError, match=r"\[at\] must be a frame of the video, got 2, the last .* is 1"):
        list(tracking)


def test_nothing_is_followed_without_a_prompt(toy_segmenter: patchcut.Segmenter, toy_bundle: Path) -> None:
    with pytest.raises(OptionError, match=r"\[track\] needs at least one point, box or mask"):
        toy_segmenter.track([])
    parts = patchcut.load(toy_bundle, mode="parts")
    with pytest.raises(OptionError, match=r'\[mode\] must be "foreground" where objects are pointed at'):
        parts.track([], points=[(1, 1)])
    with pytest.raises(OptionError, match=r"\[at\] must be a whole number"):
        toy_segmenter.track([], points=[(1, 1)], at=-1)


def test_a_second_video_is_refused(
    toy_segmenter: patchcut.Segmenter, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (FrameSource([photo], kind="video", name=name) for name in ("a.mp4", "b.mp4"))
    monkeypatch.setattr(one, "parts", lambda: iter([one, two]))
    tracking = toy_segmenter.track(one, points=[(9, 9)])
    assert len(next(tracking)) == 1
    with pytest.raises(SourceError, match=r"\[b.mp4\] comes after a.mp4, in which objects were pointed at"):
        next(tracking)


def test_objects_come_and_go_while_it_runs(toy_segmenter: patchcut.Segmenter, photo: np.ndarray) -> None:
    tracking = toy_segmenter.track([photo] * 6, boxes=[(100, 100, 300, 300)], queue=0)
    seen = [next(tracking).labels]
    assert tracking.add(point=(600, 20), name="wall") == 2
    with pytest.raises(OptionError, match=r"\[point\] must lie on the frame, 640x427"):
        tracking.add(point=(900, 20))
    with pytest.raises(OptionError, match=r"\[prompt\]"):
        tracking.add()
    seen.append(next(tracking).labels)
    tracking.remove(1)
    seen.append(next(tracking).labels)
    assert seen == [
        ("background", "object 1"),
        ("background", "object 1", "wall"),
        ("background", "wall"),
    ]
    assert tracking.lost == ()
    tracking.close()
    assert list(tracking) == []


def test_closing_ends_the_threads(toy_segmenter: patchcut.Segmenter, photo: np.ndarray) -> None:
    source = FrameSource([photo] * 50, kind="video")
    tracking = toy_segmenter.track(source, points=[(100, 100)])
    next(tracking)
    tracking.close()
    assert not [
        one for one in threading.enumerate() if one.name.startswith(("patchcut-read", "patchcut-segment"))
    ]


def test_reading_ahead_changes_nothing(toy_segmenter: patchcut.Segmenter, photo: np.ndarray) -> None:
    frames = [np.roll(photo, 9 * i, axis=1) for i in range(6)]
    runs = [
        [one.label_map for one in toy_segmenter.track(frames, boxes=[(100, 100, 300, 300)], queue=queue)]
        for queue in (0, 2)
    ]
    for alone, ahead in zip(*runs, strict=True):
        np.testing.assert_array_equal(alone, ahead)


def test_words_tell_prompts_apart() -> None:
    mask = np.zeros((4, 6), np.uint8)
    mask[1, 2] = 255
    words = [one.words for one in prompts_of([(1, 2)], [(1, 2, 3, 4)], [mask, mask.T], ["cup"])]
    assert words[:2] == ["point 1,2 cup", "box 1,2,3,4"] and words[2].startswith("mask 6x4 ")
    assert Prompt(mask=mask > 0).words == words[2] != words[3]


def test_others_that_look_alike_are_left_alone() -> None:
    """A twin comes in elsewhere, and looks more like the object than like the background."""
    at, twin = (8.0, 6.0, 3.0), (14.0, 17.0, 3.0)
    objects = PointedObjects()
    objects.add(Prompt(mask=mask_of(at)))
    objects(features_of(at), CANVAS, 0)
    for frame in range(1, 8):
        features = features_of(at, frame=frame)
        other = features_of(twin, frame=frame)[disc(twin).ravel()]
        features[disc(twin).ravel()] = other
        values = objects(features, CANVAS, frame)
        assert iou(values, 1, at) > 0.9 and not (values[disc(twin).ravel(), 1] > 0).any(), frame
