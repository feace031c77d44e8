from __future__ import annotations

import warnings

import numpy as np
import patchcut_kernels as pk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patchcut_kernels import reference


def blobs(rng: np.random.Generator, n: int, d: int, k: int, spread: float = 0.4) -> np.ndarray:
    """Points around k centres, far enough apart that float32 sees the partition that float64 sees."""
    centres = rng.standard_normal((k, d))
    return (centres[rng.integers(0, k, n)] + spread * rng.standard_normal((n, d))).astype(np.float32)


def rows_of(points: np.ndarray, metric: str) -> np.ndarray:
    return reference.unit_rows(points) if metric == "cosine" else points.astype(np.float64)


def inertia_of(points: np.ndarray, got: pk.KMeansClustering, metric: str) -> float:
    """The inertia that labels and centroids say, whatever the op says."""
    total = np.square(rows_of(points, metric) - got.centroids[got.labels]).sum()
    return float(total) / (2 if metric == "cosine" else 1)


def assert_lloyd_cannot_improve(points: np.ndarray, got: pk.KMeansClustering, metric: str) -> None:
    rows = rows_of(points, metric)
    distances = np.square(rows[:, None] - got.centroids).sum(-1)
    scale = np.square(rows).sum(1).max() + 1e-30
    own = np.take_along_axis(distances, got.labels[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(own, distances.min(1), rtol=0, atol=1e-5 * scale)
    for c in np.unique(got.labels):
        mean = rows[got.labels == c].mean(0)
        if metric == "cosine" and np.linalg.norm(mean) > 1e-3:
            mean /= np.linalg.norm(mean)
            np.testing.assert_allclose(got.centroids[c], mean, rtol=0, atol=1e-4)
        elif metric == "euclidean":
            np.testing.assert_allclose(got.centroids[c], mean, rtol=0, atol=1e-5 * np.sqrt(scale))


# Panels are 12, 24 or 32 points, centroids come in eights and fours, and 64 at a time.
SIZES = [(1, 1, 1), (2, 3, 2), (12, 5, 3), (33, 17, 4), (97, 64, 9), (256, 384, 8), (150, 20, 67)]


@pytest.mark.parametrize(("n", "d", "k"), SIZES)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_matches_reference(ops, rng, assert_close, n, d, k, metric):
    points = blobs(rng, n, d, min(k, 9))
    got = ops.kmeans(points, k, metric=metric, seed=11, restarts=2)
    want = reference.kmeans(points, k, metric=metric, seed=11, restarts=2)
    assert got.labels.dtype == np.int32
    np.testing.assert_array_equal(got.labels, want.labels)
    np.testing.assert_allclose(got.inertia, want.inertia, rtol=1e-5, atol=1e-9)
    assert_close("kmeans", got.centroids, want.centroids, scale=float(np.abs(want.centroids).max()))


def test_real_size(ops, rng):
    points = blobs(rng, 1369, 384, 12)
    got = ops.kmeans(points, 8, seed=3)
    want = reference.kmeans(points, 8, seed=3)
    np.testing.assert_array_equal(got.labels, want.labels)
    np.testing.assert_allclose(got.inertia, want.inertia, rtol=1e-5)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_given_centroids_and_iterations(ops, rng, assert_close, metric):
    points = blobs(rng, 300, 24, 6, spread=1.0)
    init = points[:6].copy()
    inertias = []
    for iterations in (1, 2, 3, 50):
        got = ops.kmeans(points, 6, metric=metric, init=init, iterations=iterations)
        want = reference.kmeans(points, 6, metric=metric, init=init, iterations=iterations)
        np.testing.assert_array_equal(got.labels, want.labels)
        assert_close("kmeans", got.centroids, want.centroids, scale=3.0)
        inertias.append(float(got.inertia))
        assert float(got.inertia) == pytest.approx(inertia_of(points, got, metric), rel=1e-5)
    assert inertias == sorted(inertias, reverse=True)
    assert inertias[0] > inertias[-1]
    assert_lloyd_cannot_improve(points, got, metric)


def test_sklearn_from_the_same_centroids_finds_the_same(isa, rng):
    cluster = pytest.importorskip("sklearn.cluster")
    points = blobs(rng, 500, 32, 10, spread=0.7)
    init = points[:8].copy()
    theirs = cluster.KMeans(8, init=init, n_init=1, max_iter=300, tol=0.0).fit(points)
    ours = pk.kmeans(points, 8, init=init, iterations=300)
    metrics = pytest.importorskip("sklearn.metrics")
    assert metrics.adjusted_rand_score(ours.labels, theirs.labels_) > 0.999
    assert ours.inertia == pytest.approx(theirs.inertia_, rel=1e-4)


def test_first_centroids_are_as_good_as_those_of_sklearn(rng):
    cluster = pytest.importorskip("sklearn.cluster")
    points = blobs(rng, 400, 16, 12, spread=0.8)
    theirs = [cluster.KMeans(8, n_init=1, random_state=s, tol=0.0).fit(points).inertia_ for s in range(12)]
    ours = [float(pk.kmeans(points, 8, seed=s).inertia) for s in range(12)]
    assert np.mean(ours) < 1.02 * np.mean(theirs)


@pytest.mark.parametrize("k", [2, 8])
def test_real_features_cluster_as_well_as_with_sklearn(real_features, k):
    cluster = pytest.importorskip("sklearn.cluster")
    theirs = [cluster.KMeans(k, n_init=1, random_state=seed).fit(real_features).inertia_ for seed in range(8)]
    ours = [float(pk.kmeans(real_features, k, seed=seed).inertia) for seed in range(8)]
    assert np.mean(ours) < 1.02 * np.mean(theirs)
    assert pk.kmeans(real_features, k, restarts=8).inertia < 1.02 * min(theirs)


def test_more_restarts_are_no_worse(rng):
    points = blobs(rng, 200, 8, 9, spread=0.8)
    found = [float(pk.kmeans(points, 9, seed=5, restarts=restarts).inertia) for restarts in (1, 2, 4, 8)]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1]
    one = pk.kmeans(points, 9, seed=5)
    assert any(pk.kmeans(points, 9, seed=seed).inertia != one.inertia for seed in range(8))


def test_half_points_are_those_values(ops, rng):
    half = blobs(rng, 90, 33, 5).astype(np.float16)
    got, want = ops.kmeans(half, 5, seed=1), ops.kmeans(half.astype(np.float32), 5, seed=1)
    for name in ("labels", "centroids", "inertia"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_empty_clusters_take_the_farthest_points(ops, metric):
    points = np.array([[1, 0], [1, 0.01], [0.99, 0], [0, 1], [-1, 0]], np.float32)
    init = np.array(
        [[1, 0], [30, 1], [40, 1]], np.float32
    )  # the last two are nobody's nearest by either metric
    got = ops.kmeans(points, 3, metric=metric, init=init)
    want = reference.kmeans(points, 3, metric=metric, init=init)
    np.testing.assert_array_equal(got.labels, want.labels)
    assert len(np.unique(got.labels)) == 3
    assert got.inertia < 1e-3


def test_candidates_that_leave_the_same_are_told_apart_by_their_order(ops):
    """Two neighbours are as good as each other, up to rounding; this input showed what that does."""
    rng = np.random.default_rng(122)
    points = blobs(rng, 24, 9, 5, spread=0.7)
    got, want = ops.kmeans(points, 8, seed=122), reference.kmeans(points, 8, seed=122)
    np.testing.assert_array_equal(got.labels, want.labels)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_fewer_distinct_points_than_clusters(ops, rng, metric):
    distinct = blobs(rng, 3, 7, 3)
    points = distinct[rng.integers(0, 3, 50)]
    got = ops.kmeans(points, 6, metric=metric)
    assert got.inertia == pytest.approx(0, abs=1e-9)
    assert len(np.unique(got.labels)) == 3
    assert np.isfinite(got.centroids).all()
    same = ops.kmeans(np.ones((40, 3), np.float32), 5, metric=metric)
    assert len(np.unique(same.labels)) == 1


def test_as_many_clusters_as_points(ops, rng):
    points = blobs(rng, 30, 5, 30)
    got = ops.kmeans(points, 30)
    assert sorted(got.labels) == list(range(30))
    np.testing.assert_array_equal(got.centroids[got.labels], points)
    assert got.inertia == 0


def test_close_points_far_from_the_origin(ops, rng):
    """|x|^2 + |c|^2 - 2 x.c would leave nothing of distances this small."""
    points = blobs(rng, 120, 4, 3, spread=0.05) + np.float32(3000)
    got, want = ops.kmeans(points, 3, restarts=3), reference.kmeans(points, 3, restarts=3)
    np.testing.assert_array_equal(got.labels, want.labels)
    np.testing.assert_allclose(got.inertia, want.inertia, rtol=1e-3)


def test_zero_rows_and_cosine(ops, rng):
    points = blobs(rng, 60, 9, 4)
    points[::7] = 0
    got, want = (kmeans(points, 4, metric="cosine", seed=2) for kmeans in (ops.kmeans, reference.kmeans))
    np.testing.assert_allclose(got.inertia, want.inertia, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(got.centroids, axis=1), 1, atol=1e-6)
    scaled = points * rng.uniform(0.5, 2, (60, 1)).astype(np.float32)
    again = ops.kmeans(scaled, 4, metric="cosine", seed=2)
    np.testing.assert_array_equal(np.delete(again.labels, np.s_[::7]), np.delete(got.labels, np.s_[::7]))


def test_distances_that_overflow_are_an_error(isa):
    points = np.array([[1e30, 0], [-1e30, 0], [0, 1]], np.float32)
    with pytest.raises(ValueError, match=r"^\[kmeans\] points overflow"):
        pk.kmeans(points, 1)
    assert pk.kmeans(points, 2, metric="cosine").inertia < 1


def test_threads_do_not_change_a_bit(isa, rng, for_thread_counts):
    points = blobs(rng, 1500, 130, 20, spread=1.0)
    for metric in ("euclidean", "cosine"):
        for_thread_counts(lambda metric=metric: pk.kmeans(points, 20, metric=metric).centroids)
        for_thread_counts(lambda metric=metric: pk.kmeans(points, 20, metric=metric).labels)


def test_permuted_points_permute_the_labels(ops, rng):
    points = blobs(rng, 200, 16, 5)
    order, init = rng.permutation(200), points[:5].copy()
    np.testing.assert_array_equal(
        ops.kmeans(points[order], 5, init=init).labels, ops.kmeans(points, 5, init=init).labels[order]
    )


def test_batch_out_strides_and_read_only(ops, rng):
    batch = np.stack([blobs(rng, 60, 8, 4) for _ in range(3)])
    init = batch[:, :4].copy()
    together = ops.kmeans(batch, 4, seed=9)
    from_init = ops.kmeans(batch, 4, init=init)
    assert together.inertia.shape == (3,)
    for item in range(3):
        alone = ops.kmeans(batch[item], 4, seed=9)
        for name in ("labels", "centroids", "inertia"):
            np.testing.assert_array_equal(getattr(together, name)[item], getattr(alone, name))
        np.testing.assert_array_equal(
            from_init.labels[item], ops.kmeans(batch[item], 4, init=init[item]).labels
        )
    out = pk.KMeansClustering(
        np.empty((3, 60), np.int32), np.empty((3, 4, 8), np.float32), np.empty(3, np.float32)
    )
    assert ops.kmeans(batch, 4, seed=9, out=out) is out
    np.testing.assert_array_equal(out.centroids, together.centroids)
    wide = np.zeros((3, 60, 16), np.float32)
    wide[:, :, ::2] = batch
    strided = wide[:, :, ::2]
    strided.flags.writeable = False
    np.testing.assert_array_equal(ops.kmeans(strided, 4, seed=9).labels, together.labels)
    assert ops.kmeans(batch[:0], 4).labels.shape == (0, 60)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_what_is_not_finite_ends_on_cuda_too(rng, bad):
    """Values are not checked there."""
    if not pk.cuda.is_available():
        pytest.skip(pk.cuda.why_unavailable())
    points = blobs(rng, 40, 5, 3)
    points[7, 2] = bad
    got = pk.kmeans(pk.cuda.to_device(points), 1, restarts=2, iterations=3)
    assert not np.isfinite(got.inertia.numpy())
    assert not got.labels.numpy().any()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 90),
    d=st.integers(1, 30),
    k=st.integers(1, 20),
    seed=st.integers(0, 2**64 - 1),
    metric=st.sampled_from(["euclidean", "cosine"]),
    bad=st.sampled_from([None, None, None, np.nan, np.inf, -np.inf]),
    duplicates=st.booleans(),
    zero_rows=st.booleans(),
)
def test_any_input(ops, n, d, k, seed, metric, bad, duplicates, zero_rows):
    rng = np.random.default_rng(seed)
    points = blobs(rng, n, d, 5, spread=0.7)
    if duplicates:
        points = points[rng.integers(0, max(1, n // 3), n)]
    if zero_rows:
        points[rng.random(n) < 0.3] = 0
    k = min(k, n)
    if bad is not None:
        if not ops.checks_values:
            return
        points[rng.integers(n), rng.integers(d)] = bad
        with pytest.raises(ValueError, match=r"^\[kmeans\] points must be finite"):
            ops.kmeans(points, k, metric=metric, seed=seed)
        return
    got = ops.kmeans(points, k, metric=metric, seed=seed, iterations=60)
    assert got.labels.min() >= 0
    assert got.labels.max() < k
    assert float(got.inertia) == pytest.approx(inertia_of(points, got, metric), rel=1e-4, abs=1e-6)
    assert_lloyd_cannot_improve(points, got, metric)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        want = reference.kmeans(points, k, metric=metric, seed=seed, iterations=60)
    if not (duplicates or zero_rows or d < 4):  # elsewhere ties are broken by rounding
        assert got.inertia == pytest.approx(want.inertia, rel=1e-3, abs=1e-6)


GOOD = np.arange(12, dtype=np.float32).reshape(4, 3)
ROOM = pk.KMeansClustering(np.empty(4, np.int32), np.empty((2, 3), np.float32), np.empty((), np.float32))


@pytest.mark.parametrize(
    ("points", "k", "options", "error", "message"),
    [
        ([[1.0]], 1, {}, TypeError, "points must be an array, got list"),
        (
            np.ones(3, np.float32),
            1,
            {},
            ValueError,
            r"points must be \[n, d\] or \[b, n, d\], got shape \(3,\)",
        ),
        (np.ones((3, 2)), 1, {}, TypeError, "points must be float32 or float16, got float64"),
        (GOOD[:0], 1, {}, ValueError, "points must have at least one row and column"),
        (GOOD[:, :0], 1, {}, ValueError, "points must have at least one row and column"),
        (GOOD, 0, {}, ValueError, "k must be 1 to 4, got 0"),
        (GOOD, 5, {}, ValueError, "k must be 1 to 4, got 5"),
        (GOOD, 2.0, {}, TypeError, "k must be an int, got float"),
        (GOOD, 2, {"metric": "l1"}, ValueError, "metric must be 'euclidean' or 'cosine', got 'l1'"),
        (GOOD, 2, {"iterations": 0}, ValueError, "iterations must be 1 to"),
        (GOOD, 2, {"restarts": -1}, ValueError, "restarts must be 1 to"),
        (GOOD, 2, {"seed": -1}, ValueError, "seed must be 0 to"),
        (GOOD, 2, {"seed": 2**64}, ValueError, "seed must be 0 to"),
        (GOOD, 2, {"init": "random"}, ValueError, r"init must be 'k-means\+\+', got 'random'"),
        (GOOD, 2, {"init": np.ones((2, 3))}, TypeError, "init must be float32, got float64"),
        (GOOD, 2, {"init": GOOD}, ValueError, r"init must have shape \(2, 3\), got \(4, 3\)"),
        (GOOD, 2, {"init": GOOD[:2], "restarts": 2}, ValueError, "restarts must be 1 where init is given"),
        (GOOD, 2, {"init": GOOD[:2] * np.float32(np.nan)}, ValueError, "init must be finite"),
        (GOOD, 2, {"out": GOOD}, TypeError, "out must be KMeansClustering, got ndarray"),
        (
            GOOD,
            2,
            {"out": pk.KMeansClustering(ROOM.labels, GOOD, ROOM.inertia)},
            ValueError,
            r"out.centroids must have shape \(2, 3\), got \(4, 3\)",
        ),
        (
            GOOD,
            2,
            {"out": pk.KMeansClustering(ROOM.labels, GOOD[:2], ROOM.inertia)},
            ValueError,
            "out must not overlap an input",
        ),
        (
            GOOD,
            2,
            {"out": pk.KMeansClustering(ROOM.labels, ROOM.centroids, np.empty(1, np.float32))},
            ValueError,
            r"out.inertia must have shape \(\), got \(1,\)",
        ),
    ],
)
def test_errors(points, k, options, error, message):
    with pytest.raises(error, match=r"^\[kmeans\] " + message):
        pk.kmeans(points, k, **options)
