"""Metrics against other people's, and against loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

pytest.importorskip("torch", reason="needs patchcut[export]")
cluster = pytest.importorskip("sklearn.metrics.cluster", reason="needs scikit-learn")

from patchcut_export.measuring.metrics import (
    F_THRESHOLDS,
    add_contingencies,
    adjusted_rand_index,
    box_ious,
    contingency,
    f_beta,
    mask_iou,
    normalized_mutual_information,
    precision_recall,
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
