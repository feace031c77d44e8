"""Metrics against other people's, and against loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

pytest.importorskip("torch", reason="needs patchcut[export]")
cluster = pytest.importorskip("sklearn.metrics.cluster", reason="needs scikit-learn")
ranking = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn")
ndimage = pytest.importorskip("scipy.ndimage", reason="needs scipy")
optimize = pytest.importorskip("scipy.optimize", reason="needs scipy")

from patchcut_export.measuring.metrics import (
    F_THRESHOLDS,
    Contour,
    add_contingencies,
    adjusted_rand_index,
    best_matching,
    box_ious,
    contingency,
    contour_f,
    f_beta,
    mask_iou,
    normalized_mutual_information,
    precision_recall,
    recall_and_decay,
    roc_auc,
)

COORDINATE = st.integers(0, 12)
BOXES = st.lists(
    st.tuples(COORDINATE, COORDINATE, st.integers(1, 8), st.integers(1, 8)), min_size=1, max_size=4
).map(lambda rows: np.array([(x, y, x + w, y + h) for x, y, w, h in rows], np.float32))
MASKS = hnp.arrays(bool, (5, 7))
# k / 255 itself is where > and >= differ.
SOFT = hnp.arrays(
    np.float32,
    (5, 7),
    elements=st.one_of(
        st.floats(0, 1, width=32), st.integers(0, 255).map(lambda k: float(np.float32(k / 255)))
    ),
)
LABELS = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.int32, n, elements=st.integers(0, 5)),
        hnp.arrays(np.uint8, n, elements=st.integers(0, 20)),
    )
)


def raster(box: np.ndarray) -> np.ndarray:
    canvas = np.zeros((24, 24), bool)
    x1, y1, x2, y2 = box.astype(int)
    canvas[y1:y2, x1:x2] = True
    return canvas


@given(a=BOXES, b=BOXES)
def test_box_ious_are_those_of_their_pixels(a: np.ndarray, b: np.ndarray) -> None:
    ious = box_ious(a, b)
    expected = [[mask_iou(raster(x), raster(y)) for y in b] for x in a]
    np.testing.assert_allclose(ious, expected, atol=1e-6)
    np.testing.assert_allclose(box_ious(b, a), ious.T)
    np.testing.assert_allclose(np.diag(box_ious(a, a)), 1)


def test_no_boxes_have_no_ious() -> None:
    assert box_ious(np.zeros((0, 4), np.float32), np.ones((3, 4), np.float32)).shape == (0, 3)


@given(a=MASKS, b=MASKS)
def test_mask_iou_is_that_of_sets(a: np.ndarray, b: np.ndarray) -> None:
    first, second = set(np.flatnonzero(a)), set(np.flatnonzero(b))
    union = first | second
    assert mask_iou(a, b) == (len(first & second) / len(union) if union else 1)
    assert mask_iou(a, b) == mask_iou(b, a)
    assert mask_iou(a, a) == 1
    if a.any():
        assert mask_iou(a, np.zeros_like(a)) == 0


def naive_f(soft: np.ndarray, truth: np.ndarray, beta_squared: float) -> list[float]:
    """F-measures as one would write them down, a threshold at a time."""
    values = []
    for k in range(255):
        found = soft.astype(np.float64) > k / 255
        hits = int((found & truth).sum())
        precision = hits / int(found.sum()) if found.any() else 1.0
        recall = hits / int(truth.sum()) if truth.any() else 1.0
        below = beta_squared * precision + recall
        values.append((1 + beta_squared) * precision * recall / below if below else 0.0)
    return values


@given(soft=SOFT, truth=MASKS, beta_squared=st.sampled_from([0.3, 0.09, 1.0]))
def test_f_measures_are_those_of_a_loop(soft: np.ndarray, truth: np.ndarray, beta_squared: float) -> None:
    precision, recall = precision_recall(soft, truth)
    assert precision.shape == recall.shape == (F_THRESHOLDS,)
    np.testing.assert_allclose(f_beta(precision, recall, beta_squared), naive_f(soft, truth, beta_squared))


def test_a_binary_map_has_one_f_measure() -> None:
    truth = np.arange(20).reshape(4, 5) < 8
    found = np.arange(20).reshape(4, 5) < 12
    values = f_beta(*precision_recall(found.astype(np.float32), truth), 0.3)
    np.testing.assert_allclose(values, 1.3 * (8 / 12) / (0.3 * (8 / 12) + 1))


def test_f_measure_weighs_precision() -> None:
    high, low = np.array([0.9]), np.array([0.5])
    assert f_beta(high, low, 0.3) > f_beta(low, high, 0.3)
    assert f_beta(high, low, 1.0) == f_beta(low, high, 1.0)
    assert f_beta(np.zeros(1), np.zeros(1), 0.3) == 0


@given(labels=LABELS)
def test_clusters_score_as_in_scikit_learn(labels: tuple[np.ndarray, np.ndarray]) -> None:
    columns, classes = labels
    table = contingency(columns, classes)
    assert table.sum() == columns.size
    # ARI is a quotient of integers here and of floats there; NMI of logarithms in both.
    expected = cluster.normalized_mutual_info_score(classes, columns)
    assert normalized_mutual_information(table) == pytest.approx(expected, abs=1e-12)
    assert adjusted_rand_index(table) == pytest.approx(
        cluster.adjusted_rand_score(classes, columns), abs=1e-12
    )


@given(labels=LABELS, order=st.permutations(range(6)))
def test_names_of_columns_do_not_matter(labels: tuple[np.ndarray, np.ndarray], order: list[int]) -> None:
    columns, classes = labels
    renamed = np.array(order)[columns]
    before, after = contingency(columns, classes), contingency(renamed, classes)
    assert adjusted_rand_index(before) == adjusted_rand_index(after)
    assert normalized_mutual_information(before) == pytest.approx(normalized_mutual_information(after))


def test_pooled_tables_are_the_table_of_all_pixels() -> None:
    random = np.random.default_rng(0)
    images = [(random.integers(0, k, 400), random.integers(0, c, 400)) for k, c in ((3, 21), (5, 4), (1, 1))]
    pooled = add_contingencies([contingency(columns, classes) for columns, classes in images])
    columns, classes = (np.concatenate(part) for part in zip(*images, strict=True))
    assert pooled.tolist() == contingency(columns, classes).tolist()
    assert 0 < normalized_mutual_information(pooled) < 1


def test_counts_of_a_whole_data_set_do_not_overflow() -> None:
    table = np.array([[3, 1], [1, 3]], np.int64) * 10**9
    columns, classes = (
        np.repeat([0, 0, 1, 1], [300, 100, 100, 300]),
        np.repeat([0, 1, 0, 1], [300, 100, 100, 300]),
    )
    assert adjusted_rand_index(table) == pytest.approx(
        cluster.adjusted_rand_score(classes, columns), abs=0.01
    )
    assert normalized_mutual_information(table) == pytest.approx(
        cluster.normalized_mutual_info_score(classes, columns)
    )


@pytest.mark.parametrize("shape", [(0, 0), (2, 3)])
def test_nothing_to_cluster(shape: tuple[int, int]) -> None:
    table = np.zeros(shape, np.int64)
    assert normalized_mutual_information(table) == adjusted_rand_index(table) == 1
    assert add_contingencies([]).shape == (0, 0)
    assert contingency(np.zeros(0, np.int32), np.zeros(0, np.uint8)).sum() == 0


SIDES = st.sampled_from((1, 2, 7, 40, 131))


def blobs(height: int, width: int, seed: int) -> np.ndarray:
    """A mask of smooth blobs, some of which touch the border; empty or full now and then."""
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.standard_normal((height, width)), random.uniform(0.3, 6))
    return np.asarray(smooth > random.choice([-9, 0, smooth.std(), 9]))


def exact_contour(mask: np.ndarray) -> np.ndarray:
    """The contour of DAVIS: pixels that are not equal to all that lie right, below and diagonally below."""
    seen = {"size": 2, "origin": -1, "mode": "nearest"}
    return np.asarray(ndimage.minimum_filter(mask, **seen) != ndimage.maximum_filter(mask, **seen))


def exact_f(found: np.ndarray, truth: np.ndarray, tolerance: float = 0.008) -> float:
    """F by exact distances between contours."""
    radius = np.ceil(tolerance * np.linalg.norm(found.shape))
    lines = [exact_contour(mask) for mask in (found, truth)]
    if not all(line.any() for line in lines):
        return float(not any(line.any() for line in lines))
    near = [ndimage.distance_transform_edt(~line) <= radius for line in lines]
    precision, recall = near[1][lines[0]].mean(), near[0][lines[1]].mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@given(height=SIDES, width=SIDES, seeds=st.tuples(st.integers(0, 999), st.integers(0, 999)))
def test_contour_f_is_that_of_exact_distances(height: int, width: int, seeds: tuple[int, int]) -> None:
    found, truth = (blobs(height, width, seed) for seed in seeds)
    contours = Contour.of(found), Contour.of(truth)
    for contour, mask in zip(contours, (found, truth), strict=True):
        np.testing.assert_array_equal(contour.line, exact_contour(mask))
    measured = contour_f(*contours)
    assert measured == pytest.approx(exact_f(found, truth), abs=1e-12)
    assert contour_f(*contours[::-1]) == pytest.approx(measured, abs=1e-12)
    assert contour_f(contours[0], contours[0]) == 1


def test_contour_f_at_the_size_of_davis() -> None:
    y, x = np.ogrid[:480, :854]
    found, truth = ((y - 240) ** 2 / 2 + (x - at) ** 2 < 20000 for at in (400, 412))
    measured = contour_f(Contour.of(found), Contour.of(truth))
    assert measured == pytest.approx(exact_f(found, truth), abs=1e-12)
    assert 0.05 < measured < 0.95


def test_a_contour_is_one_pixel_wide() -> None:
    mask = np.zeros((5, 6), bool)
    mask[1:3, 2:4] = True
    expected = ["011100", "010100", "011100", "000000", "000000"]
    assert ["".join(str(int(pixel)) for pixel in row) for row in Contour.of(mask).line] == expected


def test_contours_match_up_to_a_share_of_the_diagonal() -> None:
    truth = np.zeros((300, 400), bool)  # a diagonal of 500: a tolerance of 4
    truth[100:200, 100:200] = True
    measured = {}
    for shift in (0, 4, 5, 40):
        found = np.roll(truth, shift, axis=1)
        measured[shift] = contour_f(Contour.of(found), Contour.of(truth))
        assert measured[shift] == pytest.approx(exact_f(found, truth), abs=1e-12)
    assert measured[0] == measured[4] == 1
    assert 0.3 < measured[40] < measured[5] < 0.6


def test_contours_of_what_is_nothing() -> None:
    empty, full, some = np.zeros((20, 30), bool), np.ones((20, 30), bool), np.eye(20, 30, dtype=bool)
    assert contour_f(Contour.of(empty), Contour.of(empty)) == 1
    assert contour_f(Contour.of(full), Contour.of(empty)) == 1, "the border of the image is no contour"
    assert (
        contour_f(Contour.of(some), Contour.of(empty)) == contour_f(Contour.of(full), Contour.of(some)) == 0
    )


@given(a=MASKS, b=MASKS)
def test_region_similarity_is_that_of_coco(a: np.ndarray, b: np.ndarray) -> None:
    rles = [coco_mask.encode(np.asfortranarray(mask[..., None], np.uint8)) for mask in (a, b)]
    expected = coco_mask.iou(*rles, [0])[0, 0] if (a | b).any() else 1
    assert mask_iou(a, b) == pytest.approx(expected)


@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_recall_and_decay_are_those_of_davis(values: list[float]) -> None:
    recall, decay = recall_and_decay(np.array(values))
    assert recall == pytest.approx(sum(value > 0.5 for value in values) / len(values))
    borders = [int((len(values) - 1) * i / 4 + 0.5) for i in range(5)]
    quarters = [values[borders[i] : borders[i + 1] + 1] for i in range(4)]
    assert decay == pytest.approx(np.mean(quarters[0]) - np.mean(quarters[3]))


def test_decay_is_what_is_lost() -> None:
    assert recall_and_decay(np.linspace(1, 0, 101)) == (50 / 101, pytest.approx(0.75))
    assert recall_and_decay(np.full(7, 0.5)) == (0, 0)


@given(
    values=st.tuples(st.integers(0, 7), st.integers(0, 7)).flatmap(
        lambda shape: hnp.arrays(
            np.float64, shape, elements=st.one_of(st.floats(-2, 2), st.integers(0, 2).map(float))
        )
    )
)
def test_the_best_matching_is_that_of_scipy(values: np.ndarray) -> None:
    pairs = best_matching(values)
    rows, columns = ([pair[axis] for pair in pairs] for axis in (0, 1))
    assert len(set(rows)) == len(set(columns)) == len(pairs) == min(values.shape)
    assert columns == sorted(columns)
    expected = values[optimize.linear_sum_assignment(values, maximize=True)].sum()
    assert sum(values[pair] for pair in pairs) == pytest.approx(expected, abs=1e-9)


@given(
    st.integers(2, 40).flatmap(
        lambda n: st.tuples(
            hnp.arrays(np.float64, n, elements=st.integers(-3, 3).map(float)), hnp.arrays(bool, n)
        )
    )
)
def test_auc_is_scikit_learns(values: tuple[np.ndarray, np.ndarray]) -> None:
    scores, truth = values
    truth[:2] = True, False
    assert roc_auc(scores, truth) == pytest.approx(ranking.roc_auc_score(truth, scores))
    assert roc_auc(-scores, truth) == pytest.approx(1 - roc_auc(scores, truth))


def test_auc_of_what_is_all_alike_is_a_half() -> None:
    assert roc_auc(np.zeros((2, 3)), np.array([[True, False, False], [False, True, False]])) == 0.5
