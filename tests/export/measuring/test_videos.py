"""J, F and steadiness of videos against what is planted, and `patchcut export eval` on small ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest
from PIL import Image
from tests.runtime import toy_bundle as toy

pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

from patchcut.bundle import open_bundle
from patchcut.sources.arrays import FrameSource
from patchcut.stages import Canvas
from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets import Choices, Example, open_dataset
from patchcut_export.measuring.evaluation import METRICS, Score, _change, evaluate_videos, summarize
from patchcut_export.measuring.metrics import Contour, contour_f, mask_iou
from patchcut_export.measuring.protocols import PROTOCOLS, Protocol
from patchcut_export.measuring.truth import Truth
from patchcut_export.measuring.videos import (
    MOST_REGIONS,
    UNCHANGED_COSINE,
    VIDEO_METRICS,
    Change,
    FrameOfVideo,
    Overlap,
    compare_frames,
    find_objects,
    object_track_ids,
    overlaps,
    summarize_videos,
    unchanged_patches,
)

Patchcut = Callable[..., int]
SIZE_HW = (72, 96)
FRAMES = 6
ALL = Choices()
# The objects of each video that the tests make.
VIDEOS = {"ball": 1, "pair": 2}


def numbers_of(video: str, frame: int) -> np.ndarray:
    """[72, 96] uint8: discs that move, numbered from 1; the second of "pair" leaves before the last frame."""
    numbers = np.zeros(SIZE_HW, np.uint8)
    cv2.circle(numbers, (20 + 6 * frame, 24), 11, 1, -1)
    if video == "pair" and frame < FRAMES - 1:
        cv2.circle(numbers, (70 - 5 * frame, 52), 13, 2, -1)
    return numbers


def picture_of(video: str, frame: int) -> np.ndarray:
    random = np.random.default_rng(frame)
    picture = np.full((*SIZE_HW, 3), (60, 90, 30), np.int64) + random.integers(0, 12, (*SIZE_HW, 3))
    numbers = numbers_of(video, frame)
    picture[numbers == 1] += (120, 20, 160)
    picture[numbers == 2] += (10, 140, 120)
    return picture.astype(np.uint8)


def write_palette(path: Path, numbers: np.ndarray) -> None:
    image = Image.fromarray(numbers).convert("P")
    image.putdata(numbers.ravel().tolist())
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(path)


def make_videos(root: Path, images: str = "images", masks: str = "masks", *, year: int = 2017) -> Path:
    for video in VIDEOS:
        for folder in (images, masks):
            (root / folder / video).mkdir(parents=True, exist_ok=True)
        for frame in range(FRAMES):
            assert cv2.imwrite(str(root / images / video / f"{frame:05}.jpg"), picture_of(video, frame))
            path, numbers = root / masks / video / f"{frame:05}.png", numbers_of(video, frame)
            if year == 2017:
                write_palette(path, numbers)
            else:
                assert cv2.imwrite(str(path), 255 * np.uint8(numbers > 0))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Videos of two objects at most, with palette masks, in images/ and masks/."""
    return make_videos(tmp_path / "clips")


@pytest.fixture
def root16(tmp_path: Path) -> Path:
    """The same with masks of 0 and 255."""
    return make_videos(tmp_path / "clips16", year=2016)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return toy.write(tmp_path / "toy.patchcut")


def result_of(numbers: np.ndarray) -> Any:
    """What is read of a result whose regions are the numbers of a map, the best first."""
    found = [number for number in np.unique(numbers) if number]
    region_ids = np.zeros(numbers.shape, np.int32)
    for i, number in enumerate(found):
        region_ids[numbers == number] = i + 1
    foreground = numbers > 0
    return SimpleNamespace(
        label_map=foreground.astype(np.int32),
        foreground=foreground,
        soft_mask=foreground.astype(np.float32),
        region_ids=region_ids,
        region_labels=np.ones(len(found), np.int32),
        background_columns=(0,),
        best_box=np.zeros(4, np.float32) if found else None,
        labels=("background", "foreground"),
        track_ids=None,
        named=False,
    )


def answers(answer: Callable[[str, int], np.ndarray]) -> Protocol:
    """A protocol whose results are those of `answer`, a map of numbers for each video and frame."""

    def run(segmenter: patchcut.Segmenter, frames: Sequence[Example]) -> Iterator[Any]:
        return (result_of(answer(str(one.sequence), int(one.image.stem))) for one in frames)

    return Protocol(run, "made by a test")


def measured(
    bundle: Path, root: Path, layout: str, protocol: Protocol, choices: Choices = ALL
) -> tuple[Any, list[Score]]:
    dataset = open_dataset(layout, root, choices)
    segmenter = patchcut.load(bundle)
    scores = list(evaluate_videos(segmenter, dataset, protocol, lambda title, done, total: None))
    return summarize(scores), scores


@pytest.mark.parametrize("layout", ["davis16", "davis17"])
def test_the_truth_itself_is_perfect(root: Path, bundle: Path, layout: str) -> None:
    summary, scores = measured(bundle, root, layout, answers(numbers_of))
    expected = {"region J": 1, "contour F": 1, "J&F": 1, "region J recall": 1, "contour F recall": 1}
    expected |= {"region J decay": 0, "contour F decay": 0, "nothing found": 0, "mean foreground IoU": 1}
    assert {title: summary.metrics[title] for title in expected} == expected
    assert summary.images == 2 * FRAMES
    assert list(summary.videos) == sorted(VIDEOS)
    assert [one.name for one in scores] == [f"{v}/{f:05}" for v in sorted(VIDEOS) for f in range(FRAMES)]


def test_numbers_of_regions_mean_nothing(root: Path, bundle: Path) -> None:
    swapped = answers(lambda video, frame: np.uint8([0, 2, 1])[numbers_of(video, frame)])
    assert measured(bundle, root, "davis17", swapped)[0].metrics["J&F"] == 1


def test_the_foreground_of_davis16_is_the_union(root16: Path, bundle: Path) -> None:
    def answer(video: str, frame: int) -> np.ndarray:  # the disc and a speck, two regions
        numbers = np.minimum(numbers_of(video, frame), 1)
        numbers[2:6, 2:6] = 2
        return numbers

    summary, scores = measured(bundle, root16, "davis16", answers(answer))
    frames = [one for one in scores if one.video is not None and one.video.counts]
    assert [int(one.name[-5:]) for one in frames] == 2 * list(range(1, FRAMES - 1)), "ends are left out"
    j = {video: [one.iou for one in frames if one.sequence == video] for video in VIDEOS}
    assert summary.metrics["region J"] == pytest.approx(np.mean([np.mean(j[video]) for video in VIDEOS]))
    for one in frames:
        truth = numbers_of(str(one.sequence), int(one.name[-5:])) > 0
        found = answer(str(one.sequence), int(one.name[-5:])) > 0
        assert one.video is not None
        assert (
            one.video.objects[1].j == one.iou == pytest.approx((found & truth).sum() / (found | truth).sum())
        )
        assert one.video.objects[1].f == contour_f(Contour.of(found), Contour.of(truth))
    assert summary.videos["ball"]["region J"] == pytest.approx(np.mean(j["ball"]))


def test_a_mean_is_over_objects_and_all_frames(root: Path, bundle: Path) -> None:
    only_first = answers(lambda video, frame: np.uint8([0, 1, 0])[numbers_of(video, frame)])
    summary, _ = measured(bundle, root, "davis17", only_first)
    # the second disc of "pair" is missed on all frames but the last, which does not show it
    missed = 1 / FRAMES
    assert summary.videos["pair"]["region J"] == pytest.approx((1 + missed) / 2)
    assert summary.metrics["region J"] == pytest.approx((1 + 1 + missed) / 3)
    assert summary.metrics["region J recall"] == pytest.approx((2 + missed) / 3)
    assert summary.metrics["region J decay"] == pytest.approx((0 + 0 - 1 / 2) / 3)


def test_nothing_is_counted_where_there_is_something(root16: Path, bundle: Path) -> None:
    silent = answers(lambda video, frame: numbers_of(video, frame) * np.uint8(frame != 2))
    summary, scores = measured(bundle, root16, "davis16", silent)
    assert summary.metrics["nothing found"] == pytest.approx(1 / (FRAMES - 2))
    assert [one.video.nothing for one in scores[:FRAMES] if one.video] == [f == 2 for f in range(FRAMES)]
    for path in (root16 / "masks" / "ball").glob("0000[12].png"):
        assert cv2.imwrite(str(path), np.zeros(SIZE_HW, np.uint8))
    summary, scores = measured(bundle, root16, "davis16", silent, Choices(sequences=("ball",)))
    assert [one.video.nothing for one in scores if one.video] == [False, None, None, False, False, False]
    assert summary.metrics["nothing found"] == 0
    assert [one.video.objects[1] for one in scores[1:3] if one.video] == [Overlap(0, 0), Overlap(1, 1)]


def brute_force(result: Any, truth: np.ndarray, objects: Sequence[int]) -> float:
    """The largest sum of (J + F) / 2 over all ways to give each object one region or none."""
    shown = [truth == number for number in objects if (truth == number).any()]
    regions: list[Any] = [result.region_ids == i + 1 for i in range(len(result.region_labels))]
    best = 0.0
    for chosen in permutations(regions + [None] * len(shown), len(shown)):
        pairs = [(r, t) for r, t in zip(chosen, shown, strict=True) if r is not None]
        values = [(mask_iou(r, t) + contour_f(Contour.of(r), Contour.of(t))) / 2 for r, t in pairs]
        best = max(best, sum(values))
    return best


@pytest.mark.parametrize("seed", range(12))
def test_objects_are_matched_best(seed: int) -> None:
    random = np.random.default_rng(seed)

    def discs(count: int) -> np.ndarray:
        numbers = np.zeros((60, 80), np.uint8)
        for number in range(1, count + 1):
            centre = (int(random.integers(10, 70)), int(random.integers(10, 50)))
            cv2.circle(numbers, centre, int(random.integers(6, 22)), number, -1)
        return numbers

    truth, result = discs(3), result_of(discs(int(random.integers(1, 4))))
    objects = (1, 2, 3, 9)
    found = overlaps(result, Truth(truth > 0, truth < 255, objects=truth), objects)
    assert list(found) == list(objects) and found[9] == Overlap(1, 1)
    shown = [number for number in objects if (truth == number).any()]
    total = sum((found[number].j + found[number].f) / 2 for number in shown)
    assert total == pytest.approx(brute_force(result, truth, objects))


def test_objects_that_were_pointed_at_are_compared_with_their_own_masks() -> None:
    truth = np.zeros((40, 40), np.uint8)
    truth[5:15, 5:15], truth[20:30, 5:15] = 3, 7
    swapped, alone = np.zeros_like(truth), np.zeros_like(truth)
    swapped[5:15, 5:15], swapped[20:30, 5:15] = 2, 1
    alone[5:15, 5:15] = 1
    told, right, wrong = Truth(truth > 0, None, objects=truth), Overlap(1, 1), Overlap(0, 0)

    def own(found: np.ndarray, objects: tuple[int, ...]) -> dict[int, Overlap]:
        result = result_of(found)
        result.label_map = found.astype(np.int32)
        return overlaps(result, told, objects, followed=True)

    assert overlaps(result_of(swapped), told, (3, 7)) == {3: right, 7: right}
    assert own(swapped, (3, 7)) == {3: wrong, 7: wrong}
    assert own(alone, (3, 7, 9)) == {3: right, 7: wrong, 9: right}


def test_what_is_not_known_is_left_out_of_objects() -> None:
    truth = np.zeros((40, 40), np.uint8)
    truth[10:20, 10:20], truth[20:30, 10:20] = 1, 255
    found = np.zeros((40, 40), np.uint8)
    found[10:30, 10:20] = 1
    known = truth != 255
    exact = overlaps(result_of(found), Truth((truth > 0) & known, known, objects=truth), (1,))
    assert exact == {1: Overlap(1, 1)}


def test_no_more_regions_than_the_challenge_allows_are_matched() -> None:
    strips = np.repeat(np.arange(MOST_REGIONS + 1), 3)[:, None].repeat(30, axis=1).astype(np.uint8) + 1
    for number, seen in ((MOST_REGIONS, 1.0), (MOST_REGIONS + 1, 0.0)):
        truth = np.uint8(strips == number)
        assert overlaps(result_of(strips), Truth(truth > 0, None, objects=truth), (1,))[1].j == seen


def test_background_regions_are_not_matched() -> None:
    numbers = np.ones((20, 20), np.uint8)
    result = result_of(numbers)
    result.background_columns, result.region_labels = (0, 1), np.array([1])
    assert overlaps(result, Truth(numbers > 0, None, objects=numbers), (1,))[1] == Overlap(0, 0)


def test_features_of_one_picture_do_not_change(root: Path, bundle: Path) -> None:
    frames = open_dataset("davis17", root, Choices(sequences=("ball",))).examples
    segmenter = patchcut.load(bundle)
    (same,) = unchanged_patches(segmenter.extractor, [frames[0], frames[0]])
    assert same.shape == segmenter.extractor.graph.grid_hw and same.all()
    unchanged = unchanged_patches(segmenter.extractor, frames)
    rows = []
    for one in frames:
        features = segmenter.extractor([patchcut.Frame(cv2.imread(str(one.image)))]).default[0].copy()
        rows.append(features.astype(np.float64))
    assert len(unchanged) == FRAMES - 1
    for i, found in enumerate(unchanged):
        cosines = [
            a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(*rows[i : i + 2], strict=True)
        ]
        np.testing.assert_array_equal(found.ravel(), np.array(cosines) >= UNCHANGED_COSINE)
    assert 0 < np.mean(unchanged) < 1


def test_change_is_counted_in_pixels() -> None:
    canvas = Canvas((4, 8), (0, 0), (4, 8), (2, 4))
    before = np.zeros((4, 8), bool)
    now = before.copy()
    now[0, :3] = True  # two of its pixels are in the first patch, one in the second
    unchanged = np.zeros((2, 4), bool)
    assert compare_frames(now, before, unchanged, canvas) == Change(3 / 32, 0, None)
    unchanged[0, 0] = True
    assert compare_frames(now, before, unchanged, canvas) == Change(3 / 32, 4 / 32, 2 / 4)
    assert compare_frames(before, now, np.ones((2, 4), bool), canvas) == Change(3 / 32, 1, 3 / 32)
    half = Canvas(
        (8, 8), (2, 0), (4, 8), (4, 4)
    )  # letterboxed: the first and the last row of patches lie outside
    outside = np.array([[True], [False], [False], [True]]).repeat(4, axis=1)
    assert compare_frames(now, before, outside, half) == Change(3 / 32, 0, None)


def test_unsteadiness_weighs_pixels() -> None:
    overlap = {1: Overlap(0.5, 0.5)}
    frames = [
        FrameOfVideo(True, overlap, False),
        FrameOfVideo(True, overlap, False, Change(0.3, 0.0, None)),
        FrameOfVideo(True, overlap, False, Change(0.1, 0.25, 0.4)),
        FrameOfVideo(True, overlap, False, Change(0.2, 0.75, 0.0)),
    ]
    of_all, of_each = summarize_videos({"a": frames, "b": frames[:1]})
    assert of_each["a"]["unsteadiness"] == pytest.approx(0.25 * 0.4)
    assert of_each["a"]["pixels that change"] == pytest.approx(0.2)
    assert "unsteadiness" not in of_each["b"] and of_all["unsteadiness"] == of_each["a"]["unsteadiness"]
    assert summarize_videos({}) == ({}, {})


def test_ids_switch_where_another_region_shows_most_of_an_object() -> None:
    truth = Truth(np.ones((2, 6), bool), objects=np.uint8([[1, 1, 1, 1, 2, 2]] * 2))
    shown = []
    for ids, columns in (([4, 9], 3), ([4, 9], 1), ([9, 4], 3), ([], 0), ([9, 4], 3)):
        numbers = np.zeros((2, 6), np.uint8)
        if ids:
            numbers[:, :columns], numbers[:, columns:] = 1, 2
        result = result_of(numbers)
        result.track_ids = np.array(ids, np.int32)
        shown.append(object_track_ids(result, truth, (1, 2)))
    assert shown == [{1: 4, 2: 9}, {1: 9, 2: 9}, {1: 9, 2: 4}, {}, {1: 9, 2: 4}]
    overlap = {1: Overlap(1.0, 1.0), 2: Overlap(1.0, 1.0)}
    frames = [FrameOfVideo(True, overlap, False, None, ids) for ids in shown]
    of_all, of_each = summarize_videos({"a": frames, "b": frames[:1]})
    assert of_each["a"]["id switches"] == 1 and of_each["b"]["id switches"] == 0
    assert of_all["id switches"] == 0.5


def test_flicker_is_unsteady(root16: Path, bundle: Path) -> None:
    for frame in range(1, FRAMES):  # nothing moves
        for folder, suffix in (("images", "jpg"), ("masks", "png")):
            first = root16 / folder / "ball" / f"00000.{suffix}"
            first.with_name(f"{frame:05}.{suffix}").write_bytes(first.read_bytes())
    still, flicker = (
        answers(lambda video, frame, on=on: numbers_of(video, 0) * np.uint8(on[frame % 2]))
        for on in ((1, 1), (1, 0))
    )
    choices = Choices(sequences=("ball",))
    steady, unsteady = (
        measured(bundle, root16, "davis16", way, choices)[0].metrics for way in (still, flicker)
    )
    assert steady["pixels that change"] == steady["unsteadiness"] == 0
    share = (numbers_of("ball", 0) > 0).mean()
    assert unsteady["pixels that change"] == pytest.approx(share)
    assert unsteady["unsteadiness"] == pytest.approx(share)


def test_of_a_head_that_names_labels_that_change_are_unsteady(root16: Path, bundle: Path) -> None:
    extractor = patchcut.load(bundle).extractor
    canvas = Canvas.of(SIZE_HW, extractor.backbone, extractor.graph)
    everywhere = np.ones(extractor.graph.grid_hw, bool)
    now, before = np.ones(SIZE_HW, np.int32), np.ones(SIZE_HW, np.int32)
    before[: SIZE_HW[0] // 2] = 2
    assert compare_frames(now, before, everywhere, canvas).unsteady == pytest.approx(0.5, abs=0.02)
    named = [SimpleNamespace(named=True, label_map=one, foreground=one > 0) for one in (now, before)]
    segmenter, example = SimpleNamespace(extractor=extractor), SimpleNamespace(image=Path("x"))
    assert _change(segmenter, example, *named, everywhere).unsteady == pytest.approx(0.5, abs=0.02)


def test_each_frame_is_compared_with_the_one_before(root16: Path, bundle: Path) -> None:
    choices = Choices(sequences=("pair",))
    _, scores = measured(bundle, root16, "davis16", answers(numbers_of), choices)
    extractor = patchcut.load(bundle).extractor
    unchanged = unchanged_patches(extractor, open_dataset("davis16", root16, choices).examples)
    canvas = Canvas.of(SIZE_HW, extractor.backbone, extractor.graph)
    masks = [numbers_of("pair", frame) > 0 for frame in range(FRAMES)]
    expected = [
        compare_frames(masks[i + 1], masks[i], patches, canvas) for i, patches in enumerate(unchanged)
    ]
    assert [one.video.change for one in scores if one.video] == [None, *expected]
    assert len({change.unchanged for change in expected}) > 1


def test_short_videos_are_measured_at_their_ends(root16: Path, bundle: Path) -> None:
    choices = Choices(every=FRAMES - 1)
    summary, scores = measured(bundle, root16, "davis16", answers(numbers_of), choices)
    assert [one.video.counts for one in scores if one.video] == 4 * [False]
    assert summary.metrics["region J"] == 1


def test_protocols_differ_in_what_the_segmenter_remembers(root16: Path, bundle: Path) -> None:
    frames = open_dataset("davis16", root16, Choices(sequences=("pair",))).examples
    pictures = [cv2.imread(str(frame.image)) for frame in frames]
    segmenter = patchcut.load(bundle, head="kmeans:k=3", refine="auto")
    alone = [segmenter(picture) for picture in pictures]
    in_order = list(segmenter.stream(FrameSource(pictures, kind="video")))
    assert any((a.label_map != b.label_map).any() for a, b in zip(alone, in_order, strict=True))
    for key, expected in (("frames", alone), ("stream", in_order)):
        results = list(PROTOCOLS[key].run(segmenter, frames))
        assert [result.index for result in results] == list(range(FRAMES))
        for result, one in zip(results, expected, strict=True):
            np.testing.assert_array_equal(result.label_map, one.label_map)


def test_a_frame_that_a_stream_leaves_out_is_told(
    root16: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = open_dataset("davis16", root16, Choices(sequences=("ball",))).examples
    segmenter = patchcut.load(bundle)
    finish = segmenter._work.finish

    def full(frame: Any, *rest: Any) -> Any:
        if frame.index == 2:
            raise MemoryError
        return finish(frame, *rest)

    monkeypatch.setattr(segmenter._work, "finish", full)
    with pytest.raises(DatasetError, match=r"ball/00002.jpg has no result: .* does not fit in memory"):
        list(PROTOCOLS["stream"].run(segmenter, frames))


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
@pytest.mark.parametrize("layout", ["davis16", "davis17"])
def test_videos_are_measured_from_the_command_line(
    run_cli: Patchcut,
    root: Path,
    root16: Path,
    bundle: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    layout: str,
    protocol: str,
) -> None:
    folder, out = root16 if layout == "davis16" else root, tmp_path / "scores.jsonl"
    fixed = ("export", "eval", layout, "--root", folder, "--bundle", bundle, "--protocol", protocol)
    assert run_cli(*fixed, "--out", out, "--record", "--json", "--every", 2) == 0
    said, progress = capfd.readouterr()
    report = json.loads(said)
    assert progress.splitlines() == ["ball, 1 of 2 (3)", "pair, 2 of 2 (3)"]
    known = set(VIDEO_METRICS) - ({"id switches"} if protocol == "frames" else set())
    assert known <= set(report["metrics"])
    assert set(report["videos"]) == set(VIDEOS)
    assert report["dataset"] == f"{folder.name}, {protocol}"
    assert report["protocol"]["protocol"].startswith(f"{protocol}: ")
    assert ("all but the first" in report["protocol"]["frames"]) == (layout == "davis16")
    assert "frames 0, 2, 4, ..." in report["protocol"]["frames"]
    assert ("objects" in report["protocol"]) == (layout == "davis17")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["name"] for row in rows] == [f"{v}/{f:05}" for v in sorted(VIDEOS) for f in (0, 2, 4)]
    assert [row["change"] is None for row in rows] == 2 * [True, False, False]
    objects: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for number, overlap in row["objects"].items():
            if row["counts"]:
                objects.setdefault((row["sequence"], number), []).append(overlap["j"])
    assert len(objects) == (2 if layout == "davis16" else 3)
    assert report["metrics"]["region J"] == pytest.approx(np.mean([np.mean(j) for j in objects.values()]))
    assert 0 < report["metrics"]["region J"] < 1
    with open_bundle(bundle) as opened:
        row = next(row for row in opened.spec.heads[0].report if row.metric == "contour F")
    assert row.dataset == report["dataset"] and METRICS["contour F"] in row.protocol
    assert row.command.endswith(f"--every 2 --protocol {protocol}")
    assert run_cli(*fixed) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[-3].split()[:4] == ["video", "region", "J", "contour"] and lines[-1].startswith("pair  ")


def test_frames_are_the_default_and_streams_say_what_refines(
    run_cli: Patchcut, root16: Path, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fixed = ("export", "eval", "sequences", "--root", root16, "--bundle", bundle, "--json")
    assert run_cli(*fixed, "--sequences", "pair") == 0
    report = json.loads(capfd.readouterr().out)
    assert report["dataset"] == "clips16, frames" and list(report["videos"]) == ["pair"]
    assert report["protocol"]["refinement"] == "none"
    assert run_cli(*fixed, "--protocol", "stream", "--refine", "auto") == 0
    assert json.loads(capfd.readouterr().out)["protocol"]["refinement"] == "auto"


@pytest.mark.parametrize("layout", ["davis16", "davis17"])
def test_the_first_mask_is_followed(root: Path, root16: Path, bundle: Path, layout: str) -> None:
    folder = root16 if layout == "davis16" else root
    frames = open_dataset(layout, folder, Choices(sequences=("pair",))).examples
    segmenter = patchcut.load(bundle)
    by_key = {key: list(PROTOCOLS[key].run(segmenter, frames)) for key in ("first-mask", "first-box")}
    count = 1 if layout == "davis16" else 2
    for key, results in by_key.items():
        assert [result.index for result in results] == list(range(FRAMES)), key
        assert results[0].labels == ("background", *(f"object {i + 1}" for i in range(count)))
    first = by_key["first-mask"][0]
    true = numbers_of("pair", 0)
    assert mask_iou(first.foreground, true > 0) > 0.6
    for number in range(1, count + 1):
        of_one = true > 0 if count == 1 else true == number
        assert mask_iou(first.label_map == number, of_one) > 0.5
    boxed = by_key["first-box"][0].label_map > 0
    y, x = np.nonzero(true)
    assert boxed.any() and not boxed[: y.min() - 8].any() and not boxed[:, : x.min() - 8].any()


@pytest.mark.parametrize("protocol", ["first-mask", "first-box"])
def test_a_first_mask_that_shows_nothing(root16: Path, bundle: Path, protocol: str) -> None:
    frames = open_dataset("davis16", root16, Choices(sequences=("ball",))).examples
    assert frames[0].mask is not None
    assert cv2.imwrite(str(frames[0].mask), np.zeros(SIZE_HW, np.uint8))
    with pytest.raises(DatasetError, match=r"ball.00000.png shows no object"):
        PROTOCOLS[protocol].run(patchcut.load(bundle), frames)


def only_first_mask(root: Path) -> None:
    for path in sorted((root / "masks" / "pair").iterdir())[1:]:
        path.unlink()


def other_size(root: Path) -> None:
    write_palette(root / "masks" / "pair" / "00002.png", np.ones((30, 40), np.uint8))


def cut_frame(root: Path) -> None:
    path = root / "images" / "pair" / "00002.jpg"
    path.write_bytes(path.read_bytes()[:700])


def no_objects(root: Path) -> None:
    write_palette(root / "masks" / "pair" / "00000.png", np.zeros(SIZE_HW, np.uint8))


def no_foreground(root: Path) -> None:
    for path in (root / "masks" / "ball").iterdir():
        write_palette(path, np.zeros(SIZE_HW, np.uint8))


def colours(root: Path) -> None:
    assert cv2.imwrite(str(root / "masks" / "ball" / "00000.png"), np.full((*SIZE_HW, 3), 9, np.uint8))


def larger_frame(root: Path) -> None:
    assert cv2.imwrite(str(root / "images" / "ball" / "00003.jpg"), np.zeros((80, 96, 3), np.uint8))
    write_palette(root / "masks" / "ball" / "00003.png", np.ones((80, 96), np.uint8))


def no_videos(root: Path) -> None:
    for folder in ("images", "masks"):
        (root / folder).rename(root / f"{folder} away")
        (root / folder).mkdir()


def no_frames(root: Path) -> None:
    for path in [*(root / "images" / "pair").iterdir(), *(root / "masks" / "pair").iterdir()]:
        path.unlink()


@pytest.mark.parametrize(
    ("arguments", "spoil", "status", "expected"),
    [
        (["davis17"], no_videos, 1, "clips/images has no folders of frames; give the folder that holds"),
        (["davis17"], no_frames, 1, "images/pair has no images; add its frames or choose other --sequences"),
        (
            ["davis17"],
            only_first_mask,
            1,
            "masks/pair has no mask for 5 of 6 images: 00001, 00002, 00003 and",
        ),
        (["davis17"], other_size, 1, "pair/00002.png is 40x30, its image 96x72; masks must have"),
        (["davis17", "--protocol", "frames"], cut_frame, 1, "pair/00002.jpg] is cut short"),
        (["davis17", "--protocol", "stream"], cut_frame, 1, "pair/00002.jpg] is cut short"),
        (["davis17"], no_objects, 1, "masks/pair/00000.png shows no object, and the first mask says which"),
        (["davis17"], colours, 1, "ball/00000.png holds colours (RGB), expected a class index"),
        (["davis16"], no_foreground, 1, "no mask in clips/masks/ball shows an object; mend them or choose"),
        (
            ["davis16"],
            larger_frame,
            1,
            "00003.jpg is 96x80, the frame before it 96x72; frames of a video must",
        ),
        (["davis17", "--sequences", "pair,cow"], None, 1, "no video 'cow'; videos: ball, pair"),
        (["davis17", "--every", 0], None, 2, "[every] must be a whole number from 1"),
        (
            ["davis17", "--split", "val"],
            None,
            2,
            "[split] must be left out for a folder of images/ and masks/",
        ),
        (
            ["davis17", "--protocol", "batch"],
            None,
            2,
            '[protocol] must be one of "frames", "stream", "first-mask", "first-box", got',
        ),
        (["masks", "--protocol", "stream"], None, 2, "[protocol] must be left out for masks, got stream"),
        (["davis18", "--protocol", "stream"], None, 1, "no layout 'davis18'"),
    ],
)
def test_a_mistake_is_one_line(
    refusal: Callable[..., str],
    root: Path,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[object],
    spoil: Callable[[Path], None] | None,
    status: int,
    expected: str,
) -> None:
    monkeypatch.chdir(root.parent)
    if spoil:
        spoil(root)
    assert expected in refusal(status, *arguments, "--root", root.name, "--bundle", bundle)


def test_masks_of_0_and_255_have_no_objects(root16: Path) -> None:
    frames = open_dataset("davis17", root16).examples
    with pytest.raises(DatasetError, match="or measure masks of 0 and 255 as davis16"):
        find_objects(frames)
    assert find_objects(open_dataset("davis16", root16).examples) == (1,)


def test_davis_itself_is_measured(
    run_cli: Patchcut, bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for year, inner in ((2016, "DAVIS-2016"), (2017, "DAVIS-2017")):
        base = make_videos(tmp_path / inner, "JPEGImages/480p", "Annotations/480p", year=year)
        listed = base / "ImageSets" / ("2017" if year == 2017 else "480p")
        listed.mkdir(parents=True)
        (listed / "val.txt").write_text("ball\npair\n")
        layout = f"davis{year - 2000}"
        fixed = ("--root", base, "--bundle", bundle, "--json", "--sequences", "pair")
        assert run_cli("export", "eval", layout, *fixed) == 0
        report = json.loads(capfd.readouterr().out)
        assert report["dataset"] == f"DAVIS{year} val, frames"
        assert report["protocol"]["images"].startswith("6 of the ")
        assert list(report["videos"]) == ["pair"]
