"""Columns matched with classes, against scikit-learn and SciPy, and measured as users run it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import patchcut
import pytest
from PIL import Image

pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")
metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn, an oracle")
optimize = pytest.importorskip("scipy.optimize", reason="needs scipy, an oracle")
ndimage = pytest.importorskip("scipy.ndimage", reason="needs scipy, an oracle")

from patchcut.errors import OptionError
from patchcut_export.errors import DatasetError
from patchcut_export.measuring.confusion import draw_confusion, write_confusion
from patchcut_export.measuring.datasets import LAYOUTS, VOID, Classes, class_texts, open_dataset
from patchcut_export.measuring.evaluation import METRICS
from patchcut_export.measuring.semantic import (
    SEMANTIC_METRICS,
    LabelCounts,
    SemanticScores,
    choose_match,
    count_labels,
    measure_labels,
    state_match,
)
from patchcut_export.measuring.squares import middle_square
from patchcut_export.measuring.truth import Truth
from tests.runtime import toy_bundle as toy

Patchcut = Callable[..., int]
IntArray = npt.NDArray[np.integer]


def classes(count: int, *, background: bool = True, by_iou: bool = False) -> Classes:
    names = ("background", *(f"class {i}" for i in range(1, count)))
    return Classes(names, {i: i for i in range(count)} | {VOID: VOID}, background, by_iou)


def columns(count: int) -> tuple[str, ...]:
    return ("background", *(f"cluster {i}" for i in range(1, count)))


def counted(label_map: IntArray, truth: IntArray, count: int, k: int, name: str = "x") -> LabelCounts:
    known = truth != VOID
    seen: Any = SimpleNamespace(label_map=np.asarray(label_map, np.int32), labels=columns(k))
    return count_labels(seen, Truth(known, known, classes=np.asarray(truth, np.uint8)), count, name)


def blobs(random: np.random.Generator, count: int, size_hw: tuple[int, int]) -> IntArray:
    """A map of pieces with numbers below `count`, rarer the higher, as pictures are."""
    share = 1 / np.arange(1, count + 1)
    coarse = random.choice(count, (6, 8), p=share / share.sum())
    return cv2.resize(coarse.astype(np.uint8), size_hw[::-1], interpolation=cv2.INTER_NEAREST)


def a_set(seed: int, k: int, c: int) -> list[tuple[IntArray, IntArray]]:
    """Label maps of k columns, and masks of c classes that they have to do with, in different sizes."""
    random = np.random.default_rng(seed)
    pairs = []
    for i in range(5):
        truth = blobs(random, c, (30 + i, 41))
        noise = random.random(truth.shape)
        label_map = np.where(noise < 0.7, (truth.astype(int) * 3 + 1) % k, random.integers(0, k, truth.shape))
        truth[random.random(truth.shape) < 0.1] = VOID
        pairs.append((label_map, truth))
    return pairs


def measured(pairs: Sequence[tuple[IntArray, IntArray]], k: int, of: Classes, match: str) -> SemanticScores:
    images = [counted(*pair, len(of.names), k, str(i)) for i, pair in enumerate(pairs)]
    return measure_labels(images, columns(k), of, match)


def pooled(pairs: Sequence[tuple[IntArray, IntArray]]) -> tuple[IntArray, IntArray]:
    """Columns and classes of all known pixels."""
    known = [truth != VOID for _, truth in pairs]
    return tuple(  # type: ignore[return-value]
        np.concatenate([pair[i][mask].astype(int) for pair, mask in zip(pairs, known, strict=True)])
        for i in (0, 1)
    )


def oracle_table(found: IntArray, true: IntArray, k: int, c: int) -> IntArray:
    return metrics.confusion_matrix(found, true, labels=range(max(k, c)))[:k, :c]


@pytest.mark.parametrize("by_iou", [False, True])
@pytest.mark.parametrize(("k", "c"), [(7, 7), (10, 7), (31, 21)])
def test_classes_are_matched_over_the_whole_set(k: int, c: int, by_iou: bool) -> None:
    pairs = a_set(k, k, c)
    scores = measured(pairs, k, classes(c, by_iou=by_iou), "hungarian")
    found, true = pooled(pairs)
    table = oracle_table(found, true, k, c)
    value = table
    if by_iou:
        value = [[metrics.jaccard_score(true == j, found == i) for j in range(c)] for i in range(k)]
    rows, numbers = optimize.linear_sum_assignment(np.array(value), maximize=True)
    class_of = np.full(k, -1)
    class_of[rows] = numbers
    taken = class_of[found]
    ious = metrics.jaccard_score(true, taken, labels=range(c), average=None)
    assert ious.std() > 0.05
    assert [one.iou for one in scores.classes.values()] == pytest.approx(ious.tolist())
    assert scores.metrics["mIoU"] == pytest.approx(ious.mean())
    assert scores.metrics["mIoU without background"] == pytest.approx(ious[1:].mean())
    assert scores.metrics["pixel accuracy (set)"] == pytest.approx((taken == true).mean())
    assert [one.pixels for one in scores.classes.values()] == table.sum(axis=0).tolist()
    assert set(scores.metrics) == set(SEMANTIC_METRICS) <= set(METRICS)
    for number, one in enumerate(scores.classes.values()):
        assert one.columns == tuple(columns(k)[i] for i in np.flatnonzero(class_of == number))


def test_leftover_columns_are_never_right_unless_several_stand_for_one_class() -> None:
    pairs = a_set(3, 12, 5)
    scores = measured(pairs, 12, classes(5), "hungarian")
    found, true = pooled(pairs)
    taken = oracle_table(found, true, 12, 5).argmax(axis=1)[found]
    ious = metrics.jaccard_score(true, taken, labels=range(5), average=None)
    assert scores.metrics["mIoU, many-to-one"] == pytest.approx(ious.mean())
    assert scores.metrics["pixel accuracy, many-to-one"] == pytest.approx((taken == true).mean())
    assert scores.metrics["pixel accuracy, many-to-one"] > scores.metrics["pixel accuracy (set)"]
    assert scores.confusion.shape == (6, 5) and scores.confusion[5].sum() > 0
    assert scores.confusion.sum() == len(true)


def test_matching_by_pixels_and_by_iou_can_differ() -> None:
    table = np.array([[60, 50], [30, 0]])  # pixels: 60 + 0 or 50 + 30; IoU: 60/140 + 0 or 50/110 + 30/90
    assert best(table, by_iou=False) == best(table, by_iou=True) == [1, 0]
    table = np.array([[100, 60], [40, 1]])  # 100 + 1 or 60 + 40; 100/200 + 1/101 or 60/161 + 40/141
    assert best(table, by_iou=False) == [0, 1]
    assert best(table, by_iou=True) == [1, 0]


def best(table: IntArray, *, by_iou: bool) -> list[int]:
    """The class that each of two columns stands for."""
    found, true = (np.repeat(index.ravel(), table.ravel())[None] for index in np.indices(table.shape))
    scores = measured([(found, true)], 2, classes(2, by_iou=by_iou), "hungarian")
    return scores.matching.class_of.tolist()


def test_oracle_labels_are_the_majority_of_each_piece() -> None:
    pairs = a_set(8, 4, 6)
    scores = measured(pairs, 4, classes(6), "names")
    taken, true = [], []
    for label_map, truth in pairs:
        for column in range(4):
            pieces, count = ndimage.label(label_map == column, np.ones((3, 3)))
            for piece in range(1, count + 1):
                inside = truth[(pieces == piece) & (truth != VOID)]
                true += inside.tolist()
                taken += [np.bincount(inside).argmax()] * inside.size if inside.size else []
    assert scores.metrics["pixel accuracy, oracle labels"] == pytest.approx(np.mean(np.equal(taken, true)))
    ious = metrics.jaccard_score(true, taken, labels=range(6), average=None)
    assert scores.metrics["mIoU, oracle labels"] == pytest.approx(ious.mean())


@pytest.mark.parametrize("seed", range(8))
def test_no_labels_of_the_regions_are_better_than_the_oracles(seed: int) -> None:
    scores = measured(a_set(seed, 9, 6), 9, classes(6), "hungarian").metrics
    best = scores["pixel accuracy, oracle labels"]
    assert best >= scores["pixel accuracy, many-to-one"] >= scores["pixel accuracy (set)"]
    assert best >= scores["pixel accuracy, random labels"]


def test_random_labels_are_chance_and_repeat() -> None:
    count = 5
    label_map = np.arange(120 * 120).reshape(120, 120) % 7919  # every pixel is a piece
    truth = np.random.default_rng(1).integers(0, count, label_map.shape).astype(np.uint8)
    pairs = [(label_map, truth)] * 2
    images = [counted(*pair, count, 7919, name) for pair, name in zip(pairs, "ab", strict=True)]
    a, b = (measure_labels(order, columns(7919), classes(count), "names") for order in (images, images[::-1]))
    assert a.metrics == b.metrics
    assert a.metrics["pixel accuracy, random labels"] == pytest.approx(1 / count, abs=0.01)
    assert a.metrics["mIoU, random labels"] == pytest.approx(1 / (2 * count - 1), abs=0.01)
    assert not np.array_equal(images[0].random, images[1].random), "images do not share their draws"


def test_void_is_ignored() -> None:
    (label_map, truth), *_ = a_set(4, 6, 6)
    before = measured([(label_map, truth)], 6, classes(6), "hungarian")
    changed = np.where(truth == VOID, 5 - label_map, label_map)
    assert (changed != label_map).any()
    after = measured([(changed, truth)], 6, classes(6), "hungarian")
    for title in ("mIoU", "pixel accuracy (set)", "mIoU, many-to-one"):
        assert after.metrics[title] == before.metrics[title]
    np.testing.assert_array_equal(after.confusion, before.confusion)
    nothing = np.full_like(truth, VOID)
    added = measured([(label_map, truth), (label_map, nothing)], 6, classes(6), "hungarian")
    np.testing.assert_array_equal(added.confusion, before.confusion)
    assert added.matching.accuracy(counted(label_map, nothing, 6, 6)) is None
    with pytest.raises(DatasetError, match=r"no mask has a pixel whose class is known; .*255"):
        measured([(label_map, nothing)], 6, classes(6), "hungarian")


def test_columns_are_told_apart_by_name_not_by_number() -> None:
    truth = np.array([[0, 0, 1, 2]], np.uint8)
    known = truth != VOID
    results: list[Any] = [
        SimpleNamespace(label_map=np.int32([[0, 0, 1, 2]]), labels=("background", "part 1", "background 1")),
        SimpleNamespace(
            label_map=np.int32([[0, 0, 1, 3]]), labels=("background", "part 1", "part 2", "background 1")
        ),
    ]
    images = [count_labels(one, Truth(known, known, classes=truth), 3, "") for one in results]
    names = ("background", "part 1", "part 2", "background 1")
    scores = measure_labels(images, names, classes(3), "hungarian")
    assert scores.metrics["mIoU"] == 1
    assert scores.classes["class 2"].columns == ("background 1",)
    assert [scores.matching.accuracy(image) for image in images] == [1, 1]


def test_a_class_that_is_nowhere_is_left_out() -> None:
    pair = np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, 0]])
    scores = measured([pair], 3, classes(3), "hungarian")
    assert [one.iou for one in scores.classes.values()] == [2 / 3, 1 / 2, None]
    assert scores.metrics["mIoU"] == pytest.approx(7 / 12)


def test_named_columns_are_matched_by_name() -> None:
    of = Classes(("sky", "TV/monitor", "tree"), {0: 0, 1: 1, 2: 2, VOID: VOID}, has_background=False)
    named = ("background", "tvmonitor", "Sky")
    assert choose_match(None, named, of, "set") == "names"
    assert choose_match("hungarian", named, of, "set") == "hungarian"
    assert state_match("names", named, of) == (
        "names: a column is the class of its name; no class: background; no column: tree"
    )
    truth = np.array([[0, 1, 2, 0, VOID]], np.uint8)
    known = truth != VOID
    seen: Any = SimpleNamespace(label_map=np.int32([[2, 1, 0, 1, 0]]), labels=named)
    image = count_labels(seen, Truth(known, known, classes=truth), 3, "")
    scores = measure_labels([image], named, of, "names")
    assert [one.iou for one in scores.classes.values()] == [1 / 2, 1 / 2, 0]
    assert scores.metrics["pixel accuracy (set)"] == 1 / 2
    assert "mIoU, many-to-one" not in scores.metrics and "mIoU without background" not in scores.metrics


def test_what_names_and_numbers_of_columns_allow() -> None:
    of = classes(3)
    assert choose_match(None, columns(3), of, "set") == "hungarian"
    assert choose_match(None, ("background", "class 1"), of, "set") == "names", (
        "not every class needs a column"
    )
    assert choose_match(None, ("background", "class 1", "x", "y"), of, "set") == "hungarian"
    assert choose_match("names", ("background", "class 1", "x"), of, "set") == "names"
    with pytest.raises(
        OptionError, match=r"\[match\] names needs .* got background, cluster 1, cluster 2 and 2 m"
    ):
        choose_match("names", columns(5), of, "set")
    with pytest.raises(
        OptionError, match=r"\[head\] has 2 columns, expected at least 3, the classes of set; .*kmeans:k=3"
    ):
        choose_match(None, ("background", "foreground"), of, "set")
    assert state_match("hungarian", columns(5), of) == (
        "hungarian: columns and classes one to one over the whole set, so that most pixels are right; "
        "2 stand for none and are never right"
    )
    assert "the sum of the IoUs is largest" in state_match("hungarian", columns(3), classes(3, by_iou=True))


@pytest.mark.parametrize(
    ("size_hw", "scaled_hw", "top", "left"),
    [
        ((480, 640), (320, 426), 0, 53),
        ((427, 640), (320, 479), 0, 80),
        ((640, 361), (567, 320), 124, 0),
        ((320, 320), (320, 320), 0, 0),
        ((90, 33), (872, 320), 276, 0),
    ],
)
def test_the_middle_square(size_hw: tuple[int, int], scaled_hw: tuple[int, int], top: int, left: int) -> None:
    random = np.random.default_rng(0)
    mask = random.integers(0, 27, size_hw, np.uint8)
    rows, columns = (
        ((np.arange(320) + first + 0.5) * size / scaled).astype(int)
        for first, size, scaled in zip((top, left), size_hw, scaled_hw, strict=True)
    )
    # Where the middle of a pixel falls between two, either is the nearest.
    assert (middle_square(mask, 320) == mask[rows][:, columns]).mean() > 0.99
    image = random.integers(0, 255, (*size_hw, 3), np.uint8)
    square = middle_square(image, 320, Image.Resampling.BILINEAR)
    whole = Image.fromarray(image).resize(scaled_hw[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(square, np.asarray(whole)[top : top + 320, left : left + 320])


def test_the_picture_has_shares_of_each_true_class(tmp_path: Path) -> None:
    names = ["background", "a dining table with a very long name", "Bär"]
    table = np.array([[90, 10, 0], [0, 0, 40], [0, 0, 0]])
    picture = draw_confusion(table, names, names, "title")
    height, width = picture.shape[:2]
    cells = picture[height - 8 - 90 : height - 8, :, :].reshape(3, 30, width, 3)
    left = next(x for x in range(width) if tuple(cells[1, 15, x]) == (225, 110, 0)) - 30
    corners = cells[:, 3, [left + 30 * i + 3 for i in range(3)]].astype(int)
    expected = np.array([[0.9, 0.1, 0], [0, 0, 1], [0, 0, 0]])
    shades = 255 + expected[..., None] * (np.array([8, 48, 107]) - 255)
    np.testing.assert_allclose(corners, shades, atol=1)
    ink = (cells[0, :, left + 1 : left + 29] > 180).all(axis=2)
    assert 15 < ink.sum() < 200, "the number is white on the dark cell"
    widths = []
    for none in ([0, 0, 0], [0, 5, 0]):
        write_confusion(tmp_path / "confusion.png", np.vstack([table.T, none]), names, "")
        drawn = cv2.imread(str(tmp_path / "confusion.png"))
        assert drawn.shape[0] < 400, "names are cut short"
        orange = (drawn == (0, 110, 225)).all(axis=2)
        assert orange.any()
        widths.append(int((drawn[-20] != 255).any(axis=1).nonzero()[0].max()))
    assert widths[1] == widths[0] + 30, "a column for what was taken for no class"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return toy.write(tmp_path / "toy.patchcut")


@pytest.fixture
def root(tmp_path: Path, paint: Callable[[int], Any]) -> Path:
    """Four images of a blob, whose masks have the classes 0 to 2 and void."""
    folder = tmp_path / "painted"
    for seed in range(4):
        image, mask = paint(seed)
        truth = np.where(mask > 0, 1, 0).astype(np.uint8)
        truth[:, :40][truth[:, :40] > 0] = 2
        truth[:5] = VOID
        for name, picture in (("images", image), ("masks", truth)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(folder / name / f"{seed}.png"), picture)
    assert cv2.imwrite(str(folder / "images" / "unlabelled.png"), paint(9)[0])
    return folder


def test_a_folder_of_classes_is_measured(
    run_cli: Patchcut, root: Path, bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, grid, picture = tmp_path / "out.jsonl", tmp_path / "grid.png", tmp_path / "confusion.png"
    fixed = ("export", "eval", "semantic", "--root", root, "--bundle", bundle, "--head", "kmeans:k=4")
    assert run_cli(*fixed, "--out", out, "--grid", grid, "--confusion", picture, "--json", "--record") == 0
    report = json.loads(capfd.readouterr().out)
    segmenter = patchcut.load(bundle, head="kmeans:k=4", nothing_below=0.0)
    pairs = []
    for seed in range(4):
        image, mask = (cv2.imread(str(root / name / f"{seed}.png"), -1) for name in ("images", "masks"))
        pairs.append((segmenter(image).label_map, mask))
    found, true = pooled(pairs)
    table = oracle_table(found, true, 4, 3)
    class_of = np.full(4, -1)
    class_of[list(optimize.linear_sum_assignment(table, maximize=True)[0])] = optimize.linear_sum_assignment(
        table, maximize=True
    )[1]
    ious = metrics.jaccard_score(true, class_of[found], labels=range(3), average=None, zero_division=0)
    assert 0.1 < ious.mean() < 0.95
    assert (report["dataset"], report["images"]) == ("painted", 4)
    assert report["metrics"]["mIoU"] == pytest.approx(ious.mean())
    assert report["metrics"]["pixel accuracy (set)"] == pytest.approx((class_of[found] == true).mean())
    assert [one["iou"] for one in report["classes"].values()] == pytest.approx(ious.tolist())
    assert list(report["classes"]) == ["background", "class 1", "class 2"]
    assert set(report["metrics"]) == set(SEMANTIC_METRICS)
    assert report["protocol"]["match"].startswith("hungarian: ")
    assert report["protocol"]["truth"] == ("3 classes, class 0 is background; void is left out; all pixels")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    for row, (label_map, mask) in zip(rows, pairs, strict=True):
        known = mask != VOID
        assert row["class_accuracy"] == pytest.approx((class_of[label_map] == mask)[known].mean())
        assert row["iou"] is row["accuracy"] is None
    assert cv2.imread(str(grid)).shape == (224, 6 * 224, 3)
    assert np.ptp(cv2.imread(str(picture))) == 255
    with patchcut.open_bundle(bundle) as opened:
        opened.verify()
        kept = {row.metric: row for row in (*opened.spec.backbone.report, *opened.spec.heads[0].report)}
    assert set(kept) == set(SEMANTIC_METRICS)
    assert kept["mIoU"].value == pytest.approx(ious.mean(), abs=1e-4)
    assert "hungarian" in kept["mIoU"].protocol and kept["mIoU"].head == "kmeans:k=4"


def test_people_get_a_table_of_the_classes(
    run_cli: Patchcut, root: Path, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (root / "classes.txt").write_text("sky\nroad\ntree\nsea\n\n")
    options = ("--head", "kmeans:k=5", "--resolution", "320", "--match", "hungarian", "--record")
    assert run_cli("export", "eval", "semantic", "--root", root, "--bundle", bundle, *options) == 0
    lines = capfd.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split() == ["class", "IoU", "pixels", "columns"])
    assert [line.split()[0] for line in lines[start + 1 :]] == ["sky", "road", "tree", "sea"]
    assert lines[start + 4].split()[1] == "0.0000", "a column stands for a class that no pixel has"
    said = "\n".join(lines)
    assert "mIoU without background" not in said
    assert "4 classes, none of them background; void is left out; the square in the middle" in said
    with patchcut.open_bundle(bundle) as opened:
        commands = {row.command for row in (*opened.spec.backbone.report, *opened.spec.heads[0].report)}
    assert all(command.endswith("--resolution 320 --match hungarian") for command in commands)


def test_parts_of_a_scene_are_columns_too(
    run_cli: Patchcut, root: Path, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("--mode", "scene", "--parts", "kmeans:k=2", "--json")
    assert run_cli("export", "eval", "semantic", "--root", root, "--bundle", bundle, *options) == 0
    report = json.loads(capfd.readouterr().out)
    columns = [name for one in report["classes"].values() for name in one["columns"]]
    assert len(columns) == 3
    assert set(columns) <= {"background", "part 1", "part 2", "background 1", "background 2"}


def test_a_head_with_the_names_of_classes_is_not_matched(
    run_cli: Patchcut, root: Path, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (root / "classes.txt").write_text("background\nSECOND\nfirst\nother\n")
    fixed = ("export", "eval", "semantic", "--root", root, "--bundle", bundle, "--json")
    assert run_cli(*fixed) == 0
    report = json.loads(capfd.readouterr().out)
    label_maps = [
        patchcut.load(bundle, nothing_below=0.0)(cv2.imread(str(root / "images" / f"{i}.png"))).label_map
        for i in range(4)
    ]
    masks = [cv2.imread(str(root / "masks" / f"{i}.png"), -1) for i in range(4)]
    found, true = pooled(list(zip(label_maps, masks, strict=True)))
    taken = np.array([0, 2, 1])[found]
    ious = metrics.jaccard_score(true, taken, labels=range(3), average=None)
    *known, nowhere = (one["iou"] for one in report["classes"].values())
    assert known == pytest.approx(ious.tolist()) and nowhere is None
    assert report["protocol"]["match"] == "names: a column is the class of its name; no column: other"


def bad_size(root: Path) -> None:
    assert cv2.imwrite(str(root / "masks" / "3.png"), np.zeros((9, 9), np.uint8))


def beyond(root: Path) -> None:
    (root / "classes.txt").write_text("background\nblob\n")


def in_colour(root: Path) -> None:
    assert cv2.imwrite(str(root / "masks" / "3.png"), np.zeros((72, 96, 3), np.uint8))


def no_images(root: Path) -> None:
    for path in (root / "masks").iterdir():
        path.unlink()


def all_void(root: Path) -> None:
    (root / "classes.txt").write_text("background\nblob\nother\n")
    for path in (root / "masks").iterdir():
        assert cv2.imwrite(str(path), np.full((72, 96), VOID, np.uint8))


def unnamed(root: Path) -> None:
    (root / "classes.txt").write_text("background\n\nblob\n")


def twice(root: Path) -> None:
    (root / "classes.txt").write_text("back ground\nblob\nBackground\n")


def empty(root: Path) -> None:
    (root / "classes.txt").write_text("\n")


K3 = ("--head", "kmeans:k=3")


@pytest.mark.parametrize(
    ("arguments", "spoil", "status", "expected"),
    [
        (["semantic", *K3], bad_size, 1, "3.png is 9x9, its image 96x72; masks must have their images' size"),
        (
            ["semantic", *K3],
            beyond,
            1,
            "has the value 2, which is none of the 2 classes; expected classes from",
        ),
        (["semantic", *K3], in_colour, 1, "3.png holds colours (RGB), expected a class index"),
        (["semantic", *K3], no_images, 1, "has no images in the layout 'semantic'"),
        (["semantic", *K3], all_void, 1, "no mask has a pixel whose class is known"),
        (["semantic", *K3], unnamed, 1, "classes.txt has no name in line 2; line 1 names class 0"),
        (["semantic", *K3], twice, 1, "has 'Background' in line 3 and 'back ground' in line 1; names must"),
        (["semantic", *K3], empty, 1, "classes.txt names 0 classes; name 1 to 255"),
        (
            ["semantic", "--head", "ncut"],
            None,
            2,
            "[head] has 2 columns, expected at least 3, the classes of painted; choose",
        ),
        (["semantic", *K3, "--match", "names"], None, 2, "[match] names needs columns with names of classes"),
        (["semantic", *K3, "--match", "best"], None, 2, '[match] must be one of "hungarian", "names"'),
        (["semantic", *K3, "--resolution", "400"], None, 2, '[resolution] must be one of "full", "320"'),
        (["semantic", *K3, "--empty-scenes"], None, 2, "[empty_scenes] must be left out for semantic"),
        (["semantic", *K3, "--confusion", "c.txt"], None, 1, "name a .jpg or .png file"),
        (["semantic", *K3, "--confusion", "no/c.png"], None, 1, "no is not a folder; make it first"),
        (["masks", "--match", "names"], None, 2, "[match] must be left out for masks"),
        (["masks", "--confusion", "c.png"], None, 2, "[confusion] must be left out for masks"),
        (["masks", "--resolution", "full"], None, 2, "[resolution] must be left out for masks"),
        (["voc12-seg", "--no-background"], None, 2, "[background] must be left out for voc12-seg"),
        (["voc12-seg"], None, 1, "painted is not VOC2012: looked for JPEGImages, SegmentationClass"),
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
    before = bundle.read_bytes()
    places = ("--root", root, "--bundle", bundle, "--record")
    assert expected in refusal(status, *arguments, *places)
    assert bundle.read_bytes() == before


def test_classes_of_real_photographs(shared_data: Path) -> None:
    voc, camvid = (shared_data / name for name in ("voc2007-dev", "camvid-dev"))
    of = open_dataset("semantic", voc).classes
    assert of is not None and len(of.names) == 21 and of.has_background
    assert len(open_dataset("semantic", camvid).examples) == 123


def test_classes_are_known_without_the_data() -> None:
    """Those of a set's images and those of its name are the same."""
    counts = {"voc12-seg": 20, "voc20": 20, "coco-seg": 80, "coco-stuff27": 27, "cityscapes27": 27}
    counts |= {"context59": 59, "context60": 59, "coco-stuff171": 171, "cityscapes19": 19, "kitti-step": 19}
    assert {name for name, one in LAYOUTS.items() if one.is_semantic} - {"semantic"} == set(counts)
    for name, count in counts.items():
        texts = class_texts(name)
        assert len(texts) == count and "background" not in texts
        assert all(each[0] == one and len(set(each)) == len(each) for one, each in texts.items())
    assert class_texts("cityscapes19")["vegetation"] == ("vegetation", "tree", "bush")
    for wrong in ("semantic", "ecssd", "voc21"):
        with pytest.raises(OptionError, match="classes-of"):
            class_texts(wrong)


def test_a_class_may_have_other_names() -> None:
    of = Classes(("tvmonitor", "sofa"), {0: 0, 1: 1}, False, other_names={"tvmonitor": ("tv", "sofa")})
    names = ("background", "TV", "Sofa", "TV monitor")
    assert choose_match(None, names, of, "set") == "names"
    said = "names: a column is the class of its name; no class: background"
    assert state_match("names", names, of) == said
    image = counted(np.array([[1, 2, 3, 0]]), np.array([[0, 1, 0, 1]], np.uint8), 2, 4)
    scores = measure_labels([replace(image, names=names)], names, of, "names")
    assert scores.confusion.tolist() == [[2, 0], [0, 1], [0, 1]], "its own name comes before another's"
