from __future__ import annotations

from itertools import pairwise

import numpy as np
import patchcut_kernels as pk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patchcut_kernels import reference

from tests.kernels.tolerances import TOLERANCES

NAMES = ("labels", "distances", "sums", "counts", "inertia")
METRICS = pytest.mark.parametrize("metric", ["euclidean", "cosine"])


def points_and_centroids(
    rng: np.random.Generator, n: int, d: int, k: int, dtype: type[np.generic] = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Points around k centroids, each with a scale of its own."""
    centroids = rng.standard_normal((k, d)) * rng.uniform(0.5, 2, (k, 1))
    noisy = centroids[rng.integers(0, k, n)] + 0.7 * rng.standard_normal((n, d))
    return noisy.astype(dtype), centroids.astype(np.float32)


def all_distances(points: np.ndarray, centroids: np.ndarray, metric: str) -> np.ndarray:
    """[n, k] float64, as `distances` are."""
    cosine = metric == "cosine"
    rows, targets = (reference.unit_rows(x) if cosine else x.astype(np.float64) for x in (points, centroids))
    squares = np.stack([np.square(rows - target).sum(axis=1) for target in targets], axis=1)
    return squares / (2 if cosine else 1)


def assert_matches(got: pk.KMeansSums, points: np.ndarray, centroids: np.ndarray, metric: str) -> None:
    """Labels may differ only where two centroids are as near as float32 can tell; the rest follows them."""
    wanted = all_distances(points, centroids, metric)
    k, scale = len(centroids), 1.0 if metric == "cosine" else float(wanted.max(initial=0))
    tolerance = TOLERANCES["kmeans_sums"] * scale
    assert [getattr(got, name).dtype for name in ("labels", "distances")] == [np.int32, np.float32]
    chosen = np.take_along_axis(wanted, got.labels[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(chosen, wanted.min(1), rtol=0, atol=tolerance)
    np.testing.assert_allclose(got.distances, chosen, rtol=2e-6, atol=tolerance)
    np.testing.assert_array_equal(got.counts, np.bincount(got.labels, minlength=k))
    assert float(got.inertia) == pytest.approx(chosen.sum(), rel=1e-5, abs=tolerance)
    if got.sums is None:
        return
    rows = reference.unit_rows(points) if metric == "cosine" else points.astype(np.float64)
    sums = np.zeros((k, points.shape[1]))
    np.add.at(sums, got.labels, rows)
    # Unit rows are rounded to float32, other points are not rounded at all.
    error = (
        TOLERANCES["kmeans_sums"] * max(1, len(points))
        if metric == "cosine"
        else 1e-13 * np.abs(sums).max(initial=1)
    )
    assert got.sums.dtype == np.float64
    np.testing.assert_allclose(got.sums, sums, rtol=0, atol=error)


# Panels are 12, 24 or 32 centroids, blocks 64 points, parts 1,024 and more; the last has sums too large for
# the cache.
SIZES = [(1, 1, 1), (2, 3, 2), (64, 5, 7), (65, 384, 24), (130, 17, 33), (2100, 33, 65), (200, 660, 200)]


@pytest.mark.parametrize(("n", "d", "k"), SIZES)
@METRICS
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_matches_reference(ops, rng, n, d, k, metric, dtype):
    if ops.backend == "cuda" and n * d * k > 10**7:
        n //= 10
    points, centroids = points_and_centroids(rng, n, d, k, dtype)
    got = ops.kmeans_sums(points, centroids, metric=metric)
    assert_matches(got, points, centroids, metric)
    want = reference.kmeans_sums(points, centroids, metric=metric)
    if n > 2:
        assert len(np.unique(want.labels)) > 1
    np.testing.assert_array_equal(got.labels, want.labels)
    np.testing.assert_array_equal(got.counts, want.counts)


def test_real_size(isa, rng):
    points, centroids = points_and_centroids(rng, 1369, 384, 64, np.float16)
    got = pk.kmeans_sums(points, centroids)
    assert_matches(got, points, centroids, "euclidean")
    np.testing.assert_array_equal(got.labels, reference.kmeans_sums(points, centroids).labels)


def test_real_features(ops, real_features):
    points = real_features.astype(np.float16)
    centroids = real_features[:: len(real_features) // 9].copy()
    for metric in ("euclidean", "cosine"):
        assert_matches(ops.kmeans_sums(points, centroids, metric=metric), points, centroids, metric)


def test_half_points_are_those_values(ops, rng):
    half, centroids = points_and_centroids(rng, 200, 33, 5, np.float16)
    got, want = ops.kmeans_sums(half, centroids), ops.kmeans_sums(half.astype(np.float32), centroids)
    for name in NAMES:
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))


@METRICS
def test_steps_are_those_of_kmeans(ops, rng, metric):
    """The assignment of `kmeans`, and from sums and counts its centroids."""
    points, _ = points_and_centroids(rng, 400, 24, 6)
    centroids, inertias = points[:6].copy(), []
    for _ in range(4):
        step = ops.kmeans_sums(points, centroids, metric=metric)
        assert step.counts.all()
        means = step.sums / step.counts[:, None]
        if metric == "cosine":
            means /= np.linalg.norm(means, axis=1, keepdims=True)
        want = ops.kmeans(points, 6, init=centroids, iterations=1, metric=metric)
        centroids = means.astype(np.float32)
        np.testing.assert_allclose(centroids, want.centroids, rtol=0, atol=1e-6)
        after = ops.kmeans_sums(points, want.centroids, metric=metric, sums=False)
        np.testing.assert_array_equal(after.labels, want.labels)
        assert float(after.inertia) == pytest.approx(float(want.inertia), rel=1e-5)
        inertias += [float(step.inertia)]
    assert inertias == sorted(inertias, reverse=True)
    assert inertias[-1] < 0.95 * inertias[0]


def test_sklearn_steps_to_the_same_centroids(isa, rng):
    cluster = pytest.importorskip("sklearn.cluster")
    points, centroids = points_and_centroids(rng, 1500, 32, 10)
    theirs = cluster.KMeans(10, init=centroids, n_init=1, max_iter=5, tol=0.0, algorithm="lloyd").fit(points)
    for _ in range(theirs.n_iter_):
        step = pk.kmeans_sums(points, centroids)
        centroids = (step.sums / step.counts[:, None]).astype(np.float32)
    last = pk.kmeans_sums(points, centroids, sums=False)
    assert float(last.inertia) == pytest.approx(theirs.inertia_, rel=1e-5)
    assert (last.labels == theirs.labels_).mean() > 0.999


@METRICS
def test_chunks_add_up(ops, rng, metric):
    """Labels and distances do not depend on the chunk; counts are exact, sums are so up to rounding."""
    points, centroids = points_and_centroids(rng, 700, 40, 9, np.float16)
    whole = ops.kmeans_sums(points, centroids, metric=metric)
    cuts = [0, 1, 65, 300, 300, 699, 700]
    parts = [ops.kmeans_sums(points[i:j], centroids, metric=metric) for i, j in pairwise(cuts)]
    for name in ("labels", "distances"):
        np.testing.assert_array_equal(np.concatenate([getattr(p, name) for p in parts]), getattr(whole, name))
    np.testing.assert_array_equal(sum(part.counts for part in parts), whole.counts)
    np.testing.assert_allclose(sum(part.sums for part in parts), whole.sums, rtol=1e-12, atol=1e-12)
    assert sum(float(part.inertia) for part in parts) == pytest.approx(float(whole.inertia), rel=1e-12)


@METRICS
@pytest.mark.parametrize("k", [20, 400])
def test_threads_do_not_change_a_bit(isa, rng, for_thread_counts, metric, k):
    """Where sums fit the cache and where they do not."""
    points, centroids = points_and_centroids(rng, 5000, 350, k, np.float16)
    for name in NAMES:
        for_thread_counts(lambda name=name: getattr(pk.kmeans_sums(points, centroids, metric=metric), name))


@METRICS
def test_ties_take_the_first(ops, rng, metric):
    points, centroids = points_and_centroids(rng, 90, 20, 40)
    centroids[7:] = centroids[6]
    got = ops.kmeans_sums(points, centroids, metric=metric)
    assert got.labels.max() <= 6
    assert not got.counts[7:].any()
    assert not got.sums[7:].any()
    same = ops.kmeans_sums(points, np.tile(centroids[:1], (30, 1)), metric=metric)
    assert not same.labels.any()


def test_the_middle_of_two_centroids_is_the_first_one_s(ops, rng):
    """Small integers: products are exact, and so is the tie, wherever the origin is."""
    sides = rng.integers(-9, 10, (50, 12)) * 2
    for origin in (0, 1, 4096):
        centroids = np.float32([sides[0] + origin, sides[1] + origin])
        middle = centroids.mean(axis=0, keepdims=True)
        for order in (centroids, centroids[::-1].copy()):
            assert ops.kmeans_sums(middle, order).labels.tolist() == [0]


def test_rounding_of_the_products_chooses_nothing(ops, rng):
    """|x|^2 - 2 x.c + |c|^2 in float32 would leave nothing of distances this small."""
    centroids = (3000 + 0.05 * rng.standard_normal((30, 64))).astype(np.float32)
    points = (centroids[rng.integers(0, 30, 300)] + 0.02 * rng.standard_normal((300, 64))).astype(np.float32)
    got, want = ops.kmeans_sums(points, centroids), reference.kmeans_sums(points, centroids)
    np.testing.assert_array_equal(got.labels, want.labels)
    np.testing.assert_allclose(got.distances, want.distances, rtol=1e-5)


def test_one_far_centroid_does_not_blur_the_others(ops, rng):
    points, centroids = points_and_centroids(rng, 300, 48, 12)
    want = reference.kmeans_sums(points, centroids)
    far = np.concatenate([np.full((1, 48), 1e12, np.float32), centroids])
    got = ops.kmeans_sums(points, far)
    np.testing.assert_array_equal(got.labels, want.labels + 1)
    np.testing.assert_allclose(got.distances, want.distances, rtol=2e-6)


@pytest.mark.parametrize("scale", [2.0**power for power in (-149, -126, -80, -60, -20, 0, 55)])
@METRICS
def test_any_magnitude(ops, scale, metric):
    rng = np.random.default_rng(0)
    groups = np.repeat(rng.integers(-40, 41, (5, 3)), 20, axis=0) * 8
    points = (groups + rng.integers(-1, 2, (100, 3))).astype(np.float64)
    centroids = groups[::20].astype(np.float64)
    wanted = reference.kmeans_sums(points, centroids, metric=metric)
    got = ops.kmeans_sums(
        (points * scale).astype(np.float32), (centroids * scale).astype(np.float32), metric=metric
    )
    np.testing.assert_array_equal(got.labels, wanted.labels)
    if metric == "euclidean":
        np.testing.assert_array_equal(got.sums, wanted.sums * scale)
        np.testing.assert_allclose(got.distances, wanted.distances * scale**2, rtol=1e-5, atol=2e-45)


def test_zero_rows_and_cosine(ops, rng):
    points, centroids = points_and_centroids(rng, 60, 9, 4)
    points[::7] = 0
    got = ops.kmeans_sums(points, centroids, metric="cosine")
    assert_matches(got, points, centroids, "cosine")
    np.testing.assert_allclose(got.distances[::7], 0.5, atol=1e-6)  # as in kmeans: half |0 - c|^2
    scaled = ops.kmeans_sums(points * np.float32(3), centroids * np.float32(0.1), metric="cosine")
    np.testing.assert_array_equal(np.delete(scaled.labels, np.s_[::7]), np.delete(got.labels, np.s_[::7]))


def test_distances_that_overflow_are_an_error(isa):
    points, centroids = np.float32([[1e30, 0], [0, 1]]), np.float32([[-1e30, 0], [0, 2]])
    with pytest.raises(ValueError, match=r"^\[kmeans_sums\] points overflow: squared distances"):
        pk.kmeans_sums(points, centroids)
    assert pk.kmeans_sums(points, points).labels.tolist() == [0, 1]
    assert pk.kmeans_sums(points, centroids, metric="cosine").labels.tolist() == [1, 1]


def test_sums_beyond_float32(isa):
    points = np.full((3, 2), 3e38, np.float32)
    got = pk.kmeans_sums(points, points[:1])
    np.testing.assert_array_equal(got.sums, 3 * points[:1].astype(np.float64))
    assert got.inertia == 0


@METRICS
def test_no_points_no_sums_out_and_strides(ops, rng, metric):
    points, centroids = points_and_centroids(rng, 111, 21, 4)
    nothing = ops.kmeans_sums(points[:0], centroids, metric=metric)
    assert nothing.labels.shape == nothing.distances.shape == (0,)
    assert not nothing.sums.any()
    assert not nothing.counts.any()
    assert nothing.inertia == 0
    want = ops.kmeans_sums(points, centroids, metric=metric)
    got = ops.kmeans_sums(points, centroids, metric=metric, sums=False)
    assert got.sums is None
    for name in ("labels", "distances", "counts", "inertia"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
    out = pk.KMeansSums(
        np.empty(111, np.int32),
        np.empty(111, np.float32),
        np.empty((4, 21)),
        np.empty(4, np.int64),
        np.empty(()),
    )
    assert ops.kmeans_sums(points, centroids, metric=metric, out=out) is out
    for name in NAMES:
        np.testing.assert_array_equal(getattr(out, name), getattr(want, name))
    wide = np.zeros((111, 42), np.float32)
    wide[:, ::2] = points
    wide.flags.writeable = False
    np.testing.assert_array_equal(ops.kmeans_sums(wide[:, ::2], centroids, metric=metric).labels, want.labels)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_what_is_not_finite_ends_on_cuda_too(rng, bad):
    """Values are not checked there."""
    if not pk.cuda.is_available():
        pytest.skip(pk.cuda.why_unavailable())
    points, centroids = points_and_centroids(rng, 40, 5, 3)
    points[7, 2] = bad
    got = pk.kmeans_sums(pk.cuda.to_device(points), pk.cuda.to_device(centroids))
    assert not np.isfinite(got.inertia.numpy())
    assert got.counts.numpy().sum() == 40


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(0, 150),
    d=st.integers(1, 40),
    k=st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
    metric=st.sampled_from(["euclidean", "cosine"]),
    dtype=st.sampled_from([np.float16, np.float32]),
    bad=st.sampled_from([None, None, None, np.nan, np.inf, -np.inf]),
    where=st.sampled_from(["points", "centroids"]),
    shift=st.sampled_from([0.0, 0.0, 30.0]),
)
def test_any_input(ops, n, d, k, seed, metric, dtype, bad, where, shift):
    rng = np.random.default_rng(seed)
    points, centroids = points_and_centroids(rng, n, d, k, dtype)
    points, centroids = (points + shift).astype(dtype), (centroids + shift).astype(np.float32)
    if bad is not None:
        target = points if where == "points" else centroids
        if not ops.checks_values or not target.size:
            return
        target[rng.integers(len(target)), rng.integers(d)] = bad
        with pytest.raises(ValueError, match=rf"^\[kmeans_sums\] {where} must be finite"):
            ops.kmeans_sums(points, centroids, metric=metric)
        return
    assert_matches(ops.kmeans_sums(points, centroids, metric=metric), points, centroids, metric)


GOOD, CENTROIDS = np.arange(12, dtype=np.float32).reshape(4, 3), np.ones((2, 3), np.float32)
ROOM = pk.KMeansSums(
    np.empty(4, np.int32), np.empty(4, np.float32), np.empty((2, 3)), np.empty(2, np.int64), np.empty(())
)


@pytest.mark.parametrize(
    ("points", "centroids", "options", "error", "message"),
    [
        ([[1.0]], CENTROIDS, {}, TypeError, "points must be an array, got list"),
        (GOOD[0], CENTROIDS, {}, ValueError, r"points must be \[n, d\], got shape \(3,\)"),
        (GOOD[None], CENTROIDS, {}, ValueError, r"points must be \[n, d\], got shape \(1, 4, 3\)"),
        (GOOD.astype(float), CENTROIDS, {}, TypeError, "points must be float32 or float16, got float64"),
        (GOOD[:, :0], CENTROIDS, {}, ValueError, "points must have at least one column"),
        (GOOD, None, {}, TypeError, "centroids must be an array, got NoneType"),
        (GOOD, CENTROIDS.astype(np.float16), {}, TypeError, "centroids must be float32, got float16"),
        (GOOD, CENTROIDS[0], {}, ValueError, r"centroids must be \[k, d\], got shape \(3,\)"),
        (GOOD, CENTROIDS[:, :2], {}, ValueError, r"centroids must have 3 columns, got shape \(2, 2\)"),
        (GOOD, CENTROIDS[:0], {}, ValueError, "centroids must have at least one row"),
        (GOOD, CENTROIDS, {"metric": "l1"}, ValueError, "metric must be 'euclidean' or 'cosine', got 'l1'"),
        (GOOD, CENTROIDS, {"out": GOOD}, TypeError, "out must be KMeansSums, got ndarray"),
        (
            GOOD,
            CENTROIDS,
            {"out": ROOM, "sums": False},
            TypeError,
            "out.sums must be None here, got ndarray",
        ),
        (
            GOOD,
            CENTROIDS,
            {"out": pk.KMeansSums(ROOM.labels, ROOM.distances, None, ROOM.counts, ROOM.inertia)},
            TypeError,
            "out.sums must be an array here, got NoneType",
        ),
        (
            GOOD,
            CENTROIDS,
            {"out": pk.KMeansSums(ROOM.labels, GOOD[0], ROOM.sums, ROOM.counts, ROOM.inertia)},
            ValueError,
            r"out.distances must have shape \(4,\), got \(3,\)",
        ),
        (
            GOOD,
            CENTROIDS,
            {"out": pk.KMeansSums(ROOM.labels, GOOD.ravel()[:4], ROOM.sums, ROOM.counts, ROOM.inertia)},
            ValueError,
            "out must not overlap an input",
        ),
        (
            GOOD,
            CENTROIDS,
            {
                "out": pk.KMeansSums(
                    ROOM.labels, ROOM.distances, ROOM.sums.astype(np.float32), ROOM.counts, ROOM.inertia
                )
            },
            TypeError,
            "out.sums must be float64, got float32",
        ),
    ],
)
def test_errors(points, centroids, options, error, message):
    with pytest.raises(error, match=r"^\[kmeans_sums\] " + message):
        pk.kmeans_sums(points, centroids, **options)
