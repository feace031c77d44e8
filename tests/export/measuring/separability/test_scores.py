"""Clusters, their spread and the linear probe, against scikit-learn and against what was planted."""

from __future__ import annotations

import numpy as np
import pytest

metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn, an oracle")
linear_model = pytest.importorskip("sklearn.linear_model", reason="needs scikit-learn, an oracle")
preprocessing = pytest.importorskip("sklearn.preprocessing", reason="needs scikit-learn, an oracle")

from patchcut_export.measuring.separability.scores import Spread, fit_probe, nearest, silhouette


def blobs(seed: int, count: int = 700, dim: int = 5, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Points around k centres, and which of these each is of."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, count).astype(np.int32)
    points = rng.standard_normal((k, dim))[labels] * 1.5 + rng.standard_normal((count, dim))
    return points.astype(np.float32), labels


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [2, 30, 700])  # under, in and over one block of distances
def test_silhouette_is_scikit_learns(seed: int, count: int) -> None:
    points, labels = blobs(seed, count)
    labels[:2] = 0, 2
    if count == 2:
        assert silhouette(points, labels) == 0, "each is alone"
        return
    expected = metrics.silhouette_score(points, labels)
    assert silhouette(points, labels) == pytest.approx(expected, abs=1e-6)


def test_silhouette_of_one_cluster_is_not_told() -> None:
    points, labels = blobs(0)
    assert silhouette(points, np.zeros_like(labels)) is None
    assert silhouette(points[:0], labels[:0]) is None


def test_silhouette_of_the_same_point_is_0() -> None:
    assert silhouette(np.ones((6, 2), np.float32), np.int32([0, 0, 0, 1, 1, 1])) == 0


@pytest.mark.parametrize("seed", range(3))
def test_spread_is_the_variance_of_means_over_that_around_them(seed: int) -> None:
    points, labels = blobs(seed)
    spread = Spread(6, points.shape[1])  # the last two clusters are empty
    for begin in range(0, len(points), 111):
        spread.add(points[begin : begin + 111], labels[begin : begin + 111])
    expected = metrics.calinski_harabasz_score(points, labels) * (4 - 1) / (len(points) - 4)
    assert spread.ratio() == pytest.approx(expected, rel=1e-5)


def test_spread_without_any_within_is_not_told() -> None:
    spread = Spread(2, 2)
    spread.add(np.float32([[1, 0], [0, 1], [0, 1]]), np.int32([0, 1, 1]))
    assert spread.ratio() is None


def test_nearest_is_the_least_distance() -> None:
    points, _ = blobs(1)
    centroids = blobs(2, 7)[0]
    distances = np.linalg.norm(points[:, None] - centroids, axis=-1)
    np.testing.assert_array_equal(nearest(points, centroids), distances.argmin(1))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_the_probe_is_scikit_learns_logistic_regression(seed: int, scale: float) -> None:
    points, labels = blobs(seed, dim=12)
    points = (points * np.geomspace(0.1, 10, 12) * scale + scale).astype(np.float32)
    truth = labels < 2
    probe = fit_probe(points, truth)
    rows = preprocessing.StandardScaler().fit_transform(points.astype(np.float64))
    oracle = linear_model.LogisticRegression(C=1 / (1e-3 * len(rows)), tol=1e-8, max_iter=5000).fit(
        rows, truth
    )
    expected = oracle.decision_function(rows)
    assert expected.std() > 0.5, "the reference is near-constant"
    np.testing.assert_allclose(probe(points), expected, atol=2e-2 * expected.std())


def test_the_probe_of_what_a_plane_separates_ends() -> None:
    points, labels = blobs(0, dim=20, k=2)
    points[:, 0] += 20 * labels
    likely = fit_probe(points, labels == 1)(points)
    assert np.isfinite(likely).all()
    np.testing.assert_array_equal(likely > 0, labels == 1)


def test_a_dimension_that_never_changes_tells_nothing() -> None:
    points, labels = blobs(0)
    still = np.column_stack([points, np.full(len(points), 7, np.float32)])
    probe = fit_probe(still, labels == 0)
    assert probe.weights[-1] == 0
    np.testing.assert_allclose(probe(still), fit_probe(points, labels == 0)(points), atol=1e-3)
    constant = fit_probe(np.ones((8, 3), np.float32), np.arange(8) < 3)
    assert np.ptp(constant(np.ones((8, 3), np.float32))) == 0
