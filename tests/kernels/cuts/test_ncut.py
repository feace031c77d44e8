from __future__ import annotations

import functools

import numpy as np
import patchcut_kernels as pk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patchcut_kernels import reference

from tests.kernels.backends import Ops, ops_on_cuda
from tests.kernels.cuts.cut_graphs import GRAPHS, patches, weights_of
from tests.kernels.tolerances import TOLERANCES


def many(ops: Ops) -> int:
    """Iterations for all that float32 can tell; on CUDA, which may be a host that plays it, just enough."""
    return 16 if ops.backend == "cuda" else 40


def assert_solves(weights: np.ndarray, got: pk.NCut, *, residual: float = TOLERANCES["ncut"]) -> None:
    """Eigenpairs of the right length and sign, orthogonal to each other and to the constant vector."""
    k = got.eigenvalues.size
    degrees = weights.sum(1)
    scales = np.where(degrees > 0, 1 / np.sqrt(np.where(degrees > 0, degrees, 1)), 0)
    vectors = got.vectors.astype(np.float64)
    left = scales[:, None] * (
        degrees[:, None] * vectors - weights @ vectors - got.eigenvalues * (degrees[:, None] * vectors)
    )
    np.testing.assert_allclose(np.linalg.norm(left, axis=0), 0, atol=residual)
    np.testing.assert_allclose(got.residuals, np.linalg.norm(left, axis=0), atol=2e-6)
    np.testing.assert_allclose(vectors.T @ (degrees[:, None] * vectors), np.eye(k), atol=2e-5)
    np.testing.assert_allclose(degrees @ vectors / np.sqrt(degrees.sum()), 0, atol=2e-6)
    assert (vectors[np.abs(vectors).argmax(0), np.arange(k)] > 0).all()
    assert (np.diff(got.eigenvalues) >= 0).all()


def assert_eigenpairs(weights: np.ndarray, got: pk.NCut, *, residual: float = TOLERANCES["ncut"]) -> None:
    """The smallest ones, whichever are chosen among equals."""
    assert_solves(weights, got, residual=residual)
    want, _ = reference.cut_vectors(weights, got.eigenvalues.size)
    np.testing.assert_allclose(got.eigenvalues, want, rtol=0, atol=residual)


def assert_same_vectors(got: np.ndarray, want: np.ndarray) -> None:
    """Equal up to signs, which a tie may turn."""
    signed = want * np.sign((got * want).sum(0)) / np.abs(want).max(0)
    np.testing.assert_allclose(got / np.abs(want).max(0), signed, rtol=0, atol=1e-4)


# Row groups are 8 or 16, lanes 4, 8 or 16, a strip of features 128; on CUDA a block has 256 threads.
SIZES = [(2, 1), (3, 5), (8, 3), (9, 16), (16, 8), (17, 33), (31, 64), (97, 20), (129, 385), (257, 384)]


@pytest.mark.parametrize(("n", "d"), SIZES)
@pytest.mark.parametrize("kind", GRAPHS)
def test_matches_reference(ops, rng, n, d, kind):
    features = patches(rng, n, d)
    for k in {1, min(3, n - 1, d)}:
        got = ops.ncut(features, k, **GRAPHS[kind], iterations=many(ops))
        weights = weights_of(ops, features, GRAPHS[kind])
        assert_eigenpairs(weights, got)
        values, want = reference.cut_vectors(weights, min(k + 1, n - 1))
        if (np.diff(values) > 1e-2).all():
            assert_same_vectors(got.vectors, want[:, :k])
        for array in (got.eigenvalues, got.vectors, got.residuals):
            assert array.dtype == np.float32


@functools.cache
def real_size(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Features of 37 x 37 patches, and the first eigenvalues of their graph."""
    features = patches(np.random.default_rng(3), 1369, 384)
    return features, reference.cut_vectors(weights_of(Ops("cpu"), features, GRAPHS[kind]), 10)[0]


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("k", [1, 3, 10])
def test_few_iterations_suffice_at_a_real_size(ops, kind, k):
    """Three vectors tell four objects apart; the others lie in the noise, where eigenvalues are dense."""
    if ops.backend == "cuda" and (k, kind) != (3, "thresholded"):
        pytest.skip("other sizes run the same kernels; a host that plays CUDA takes seconds for each")
    features, values = real_size(kind)
    got = ops.ncut(features, k, **GRAPHS[kind])
    weights = weights_of(ops, features, GRAPHS[kind])
    assert_solves(weights, got, residual=1e-6 if k == 1 else 2e-4 if k == 3 else 2e-2)
    np.testing.assert_allclose(got.eigenvalues[:3], values[: min(k, 3)], rtol=0, atol=1e-5)
    np.testing.assert_allclose(got.eigenvalues, values[:k], rtol=0, atol=2e-3)


@pytest.mark.parametrize("n", [5, 40, 200])
def test_scipy_solves_the_same_problem(ops, rng, n):
    linalg = pytest.importorskip("scipy.linalg")
    features = patches(rng, n, 32)
    weights = ops.affinity(features) + np.float32(1e-3)
    got = ops.ncut(weights, 3, precomputed=True, iterations=many(ops))
    exact = weights.astype(np.float64)
    degrees = np.diag(exact.sum(1))
    values, vectors = linalg.eigh(degrees - exact, degrees, subset_by_index=[1, 3])
    np.testing.assert_allclose(got.eigenvalues, values, rtol=0, atol=TOLERANCES["ncut"])
    assert_same_vectors(got.vectors, vectors)


def test_tokencut_graph(rng):
    """The words of the paper: 1 where the cosine is above the threshold, else 1e-5."""
    features = patches(rng, 60, 24)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    weights = np.where(unit @ unit.T > 0.5, 1.0, 1e-5)
    np.testing.assert_allclose(reference.cut_graph(features, threshold=0.5, binary=True), weights, rtol=1e-12)
    assert 0.1 < (weights == 1).mean() < 0.9


def test_the_plain_cosine_may_have_negative_weights(ops, rng):
    features = patches(rng, 150, 40)
    cosine = reference.cut_graph(features, threshold=None, offset=0.0)
    assert cosine.min() < 0 < cosine.sum(1).min()
    got = ops.ncut(features, 3, threshold=None, offset=0.0, iterations=many(ops))
    assert_eigenpairs(cosine, got)


def test_negative_sums_are_an_error(isa, rng):
    features = patches(rng, 50, 16)
    features[7] = -features[np.arange(50) != 7].mean(0)
    with pytest.raises(ValueError, match=r"^\[ncut\] the sum of a node's weights must be at least 0, got -"):
        pk.ncut(features, threshold=None, offset=0.0)
    cosine = reference.cut_graph(features, threshold=None, offset=0.0).astype(np.float32)
    with pytest.raises(ValueError, match=r"at node 7; use a threshold, or an offset of 1$"):
        pk.ncut(cosine, precomputed=True)
    pk.ncut(features, threshold=None)


def disconnected(rng: np.random.Generator, sizes: list[int]) -> np.ndarray:
    weights = np.zeros((sum(sizes), sum(sizes)), np.float32)
    first = 0
    for size in sizes:
        block = rng.uniform(0.5, 1, (size, size))
        weights[first : first + size, first : first + size] = block + block.T
        first += size
    return weights


@pytest.mark.parametrize("sizes", [[6, 9], [30, 50, 41], [1, 1, 1, 20], [40] * 6])
def test_parts_without_edges_between_them(ops, rng, sizes):
    """The eigenvalue 0 comes once for each part but one, however many they are."""
    weights = disconnected(rng, sizes)
    k = len(sizes)
    got = ops.ncut(weights, k, precomputed=True, iterations=many(ops))
    np.testing.assert_allclose(got.eigenvalues[:-1], 0, atol=2e-6)
    assert got.eigenvalues[-1] > 0.5
    assert_eigenpairs(weights.astype(np.float64), got, residual=5e-5)  # the last one lies in the bulk
    for column in got.vectors.T[:-1]:
        for part in np.split(column, np.cumsum(sizes)[:-1]):
            np.testing.assert_allclose(part, part[0], atol=1e-5)


def test_ten_parts_at_a_real_size_in_few_iterations(ops, rng):
    weights = disconnected(rng, [100, 70, 30, 50, 60, 60, 60, 40, 20, 10])
    got = ops.ncut(weights, 9, precomputed=True)
    np.testing.assert_allclose(got.eigenvalues, 0, atol=2e-6)
    assert (got.residuals < 2e-6).all()


def test_the_floor_joins_parts(ops, rng):
    features = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    apart = ops.ncut(features, 2, floor=0.0)
    np.testing.assert_allclose(apart.eigenvalues, 0, atol=1e-6)
    joined = ops.ncut(features, 2, floor=0.1)
    assert joined.eigenvalues.min() > 0.1
    assert_eigenpairs(weights_of(ops, features, {"floor": 0.1}), joined)


@pytest.mark.parametrize("kind", GRAPHS)
def test_nodes_without_edges_are_zero(ops, rng, kind):
    features = patches(rng, 40, 12)
    features[[0, 9, 39]] = 0
    graph = {**GRAPHS[kind], "floor": 0.0}
    if kind == "cosine":
        features = np.abs(features)
        graph["offset"] = 0.0
    got = ops.ncut(features, 2, **graph, iterations=many(ops))
    assert not got.vectors[[0, 9, 39]].any()
    assert_eigenpairs(weights_of(ops, features, graph), got)
    with_floor = ops.ncut(features, 2, **GRAPHS[kind], iterations=many(ops))
    assert np.isfinite(with_floor.vectors).all()
    assert with_floor.vectors[0].any()


def test_no_edges_at_all(ops):
    zeros = np.zeros((20, 3), np.float32)
    for result in (
        ops.ncut(zeros, 2, floor=0.0),
        ops.ncut(zeros, 2, threshold=None, offset=0.0),
        ops.ncut(np.zeros((20, 20), np.float32), 2, precomputed=True),
    ):
        np.testing.assert_allclose(result.eigenvalues, 1, atol=1e-6)
        assert not result.vectors.any()
        assert not result.residuals.any()


def test_equal_nodes(ops):
    """W = 1 has the eigenvalue 1 for everything but the constant vector."""
    same = np.ones((33, 4), np.float32)
    got = ops.ncut(same, 3)
    np.testing.assert_allclose(got.eigenvalues, 1, atol=1e-5)
    assert_eigenpairs(weights_of(ops, same, {}), got)
    never_stored = ops.ncut(same, 3, threshold=None)
    np.testing.assert_array_equal(never_stored.eigenvalues, 1)
    assert not never_stored.vectors.any()


def test_more_vectors_than_distinct_points(ops, rng):
    distinct = patches(rng, 4, 6)
    features = distinct[rng.permutation(np.arange(40) % 4)]
    assert_eigenpairs(
        weights_of(ops, features, {}), ops.ncut(features, 6, iterations=many(ops)), residual=1e-5
    )
    got = ops.ncut(features, 6, threshold=None)
    want, _ = reference.cut_vectors(weights_of(ops, features, GRAPHS["cosine"]), 6)
    np.testing.assert_allclose(got.eigenvalues, want, atol=2e-6)
    assert got.vectors[:, :3].any(axis=0).all()
    assert not got.vectors[:, 3:].any()


def test_all_vectors_of_a_small_graph(ops, rng):
    features = patches(rng, 21, 9)
    assert_eigenpairs(weights_of(ops, features, {}), ops.ncut(features, 20), residual=1e-5)


def test_more_iterations_never_do_worse(ops, rng):
    features = patches(rng, 200, 48)
    weights = weights_of(ops, features, {})
    exact = reference.cut_vectors(weights, 2)[0]
    errors = [ops.ncut(features, 2, iterations=i).eigenvalues - exact for i in (1, 2, 3, 4, 6)]
    assert (np.diff(errors, axis=0) < 1e-6).all()
    assert errors[0].min() > 0.05
    assert np.abs(errors[-1]).max() < 1e-4


def test_the_space_on_cuda_has_a_limit():
    """One block turns its projection: a wider one would take seconds."""
    features = np.zeros((2051, 1), np.float32)
    with pytest.raises(ValueError, match=r"^\[ncut\] iterations times vectors must be at most 2048 on CUDA"):
        ops_on_cuda().ncut(features, 2, iterations=1025)


def test_seeds(ops, rng):
    features = patches(rng, 90, 20)
    first, again, other = (ops.ncut(features, iterations=3, seed=seed) for seed in (5, 5, 2**64 - 1))
    np.testing.assert_array_equal(first.vectors, again.vectors)
    assert (first.vectors != other.vectors).any()


def drifted(rng: np.random.Generator, n: int, share: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """Features of two frames that are much alike."""
    features = patches(rng, n, 32)
    return features, (features + share * rng.standard_normal(features.shape)).astype(np.float32)


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("k", [1, 2])
def test_a_start_from_the_frame_before_takes_fewer_products(ops, rng, kind, k):
    before, now = drifted(rng, 150)
    start = ops.ncut(before, k, **GRAPHS[kind]).vectors
    cold = ops.ncut(now, k, **GRAPHS[kind], tolerance=1e-4)
    warm = ops.ncut(now, k, **GRAPHS[kind], tolerance=1e-4, start=start)
    assert 3 <= warm.products < cold.products <= 10
    assert (warm.residuals <= 1.05e-4).all()
    np.testing.assert_allclose(warm.eigenvalues, ops.ncut(now, k, **GRAPHS[kind]).eigenvalues, atol=1e-5)


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("k", [1, 3])
def test_a_start_does_not_change_what_is_found(ops, rng, kind, k):
    """Zeros, one vector k times, the constant one, magnitudes that float32 barely holds, the answer."""
    features = patches(rng, 100, 24)
    weights = weights_of(ops, features, GRAPHS[kind])
    noise = rng.standard_normal((100, k)).astype(np.float32)
    starts = {
        "zeros": np.zeros_like(noise),
        "alike": np.repeat(noise[:, :1], k, axis=1),
        "constant": np.ones_like(noise),
        "huge": noise * np.float32(1e38 / np.abs(noise).max()),
        "tiny": noise * np.float32(1e-38),
        "answer": reference.cut_vectors(weights, k)[1].astype(np.float32),
    }
    for start in starts.values():
        got = ops.ncut(features, k, **GRAPHS[kind], start=start, iterations=many(ops))
        assert got.products <= many(ops)
        assert_eigenpairs(weights, got)


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("other", [1, 2])
def test_a_start_from_another_eigenvector_finds_the_first(ops, rng, kind, other):
    """It has no part of what is sought, and a residual of zero: what is random must find it."""
    features = patches(rng, 160, 24)
    weights = weights_of(ops, features, GRAPHS[kind])
    values, vectors = reference.cut_vectors(weights, 3)
    start = np.ascontiguousarray(vectors[:, other : other + 1], np.float32)
    got = ops.ncut(features, 1, **GRAPHS[kind], start=start, tolerance=1e-3, iterations=many(ops))
    assert values[other] - values[0] > 0.01
    np.testing.assert_allclose(got.eigenvalues, values[:1], atol=1e-5)


def test_what_has_too_few_vectors_never_ends_early(ops):
    same = np.ones((33, 4), np.float32)
    got = ops.ncut(same, 3, threshold=None, tolerance=1e-3, start=np.ones((33, 3), np.float32))
    np.testing.assert_array_equal(got.eigenvalues, 1)
    assert not got.vectors.any()


def test_items_of_a_batch_end_by_themselves(ops, rng):
    pairs = [drifted(rng, 90, share) for share in (0.0, 0.05, 3.0)]
    starts = np.stack([ops.ncut(before, 2).vectors for before, _ in pairs])
    now = np.stack([after for _, after in pairs])
    together = ops.ncut(now, 2, tolerance=1e-3, start=starts)
    for item in range(3):
        alone = ops.ncut(now[item], 2, tolerance=1e-3, start=starts[item])
        for name in ("eigenvalues", "vectors", "residuals", "products"):
            np.testing.assert_array_equal(getattr(together, name)[item], getattr(alone, name))
    assert together.products[0] < together.products[2]


def test_a_start_that_is_not_finite_is_none_on_cuda(rng):
    features = patches(rng, 40, 8)
    for bad in (np.nan, np.inf):
        start = np.full((40, 1), bad, np.float32)
        for threshold in (0.0, None):
            got = ops_on_cuda().ncut(features, threshold=threshold, start=start, iterations=16)
            want = ops_on_cuda().ncut(features, threshold=threshold, iterations=16)
            np.testing.assert_allclose(got.eigenvalues, want.eigenvalues, atol=1e-5)


@pytest.mark.parametrize("kind", GRAPHS)
def test_half_features_are_those_values(ops, rng, kind):
    half = patches(rng, 90, 33).astype(np.float16)
    got, want = ops.ncut(half, 2, **GRAPHS[kind]), ops.ncut(half.astype(np.float32), 2, **GRAPHS[kind])
    np.testing.assert_array_equal(got.vectors, want.vectors)
    weights = weights_of(ops, half.astype(np.float32), GRAPHS[kind]).astype(np.float16)
    got = ops.ncut(weights, 2, precomputed=True)
    np.testing.assert_array_equal(
        got.vectors, ops.ncut(weights.astype(np.float32), 2, precomputed=True).vectors
    )


def test_the_scale_of_the_weights_does_not_matter(ops, rng):
    weights = ops.affinity(patches(rng, 70, 24))
    got, scaled = (ops.ncut(factor * weights, 2, precomputed=True) for factor in np.float32([1, 3]))
    np.testing.assert_allclose(scaled.eigenvalues, got.eigenvalues, atol=2e-6)
    assert_same_vectors(scaled.vectors, got.vectors / np.sqrt(3))


def test_one_half_of_the_weights_is_read(isa, rng):
    weights = pk.affinity(patches(rng, 70, 24))
    far_below = np.tril(np.ones_like(weights), -16) > 0
    half = np.where(far_below, np.nan, weights)
    got, want = (pk.ncut(array, 2, precomputed=True) for array in (half, weights))
    np.testing.assert_array_equal(got.vectors, want.vectors)


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("k", [1, 5])
def test_threads_do_not_change_a_bit(isa, rng, for_thread_counts, kind, k):
    features = patches(rng, 700, 64)
    for_thread_counts(lambda: pk.ncut(features, k, **GRAPHS[kind]).vectors)


@pytest.mark.parametrize("kind", GRAPHS)
def test_permuted_nodes_permute_the_vectors(ops, rng, kind):
    features = patches(rng, 120, 30)
    order = rng.permutation(120)
    got = ops.ncut(features, 2, **GRAPHS[kind], iterations=many(ops))
    permuted = ops.ncut(features[order], 2, **GRAPHS[kind], iterations=many(ops))
    assert_same_vectors(permuted.vectors, got.vectors[order])


def test_batch_out_strides_and_read_only(ops, rng):
    batch = np.stack([patches(rng, 37, 21) for _ in range(3)])
    together = ops.ncut(batch, 2)
    for item in range(3):
        alone = ops.ncut(batch[item], 2)
        for name in ("eigenvalues", "vectors", "residuals", "products"):
            np.testing.assert_array_equal(getattr(together, name)[item], getattr(alone, name))
    shapes = ((3, 2), (3, 37, 2), (3, 2))
    out = pk.NCut(*(np.empty(shape, np.float32) for shape in shapes), np.empty(3, np.int32))
    assert ops.ncut(batch, 2, out=out) is out
    np.testing.assert_array_equal(out.vectors, together.vectors)
    wide = np.zeros((3, 37, 42), np.float32)
    wide[:, :, ::2] = batch
    strided = wide[:, :, ::2]
    strided.flags.writeable = False
    np.testing.assert_array_equal(ops.ncut(strided, 2).vectors, together.vectors)
    assert ops.ncut(batch[:0], 2).vectors.shape == (0, 37, 2)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(2, 60),
    d=st.integers(1, 40),
    k=st.integers(1, 8),
    seed=st.integers(0, 2**64 - 1),
    kind=st.sampled_from(sorted(GRAPHS)),
    bad=st.sampled_from([None, None, None, np.nan, np.inf, -np.inf]),
    duplicates=st.booleans(),
    zero_rows=st.booleans(),
)
def test_any_input(ops, n, d, k, seed, kind, bad, duplicates, zero_rows):
    rng = np.random.default_rng(seed)
    features = patches(rng, n, d)
    if duplicates:
        features = features[rng.integers(0, max(1, n // 3), n)]
    if zero_rows:
        features[rng.random(n) < 0.3] = 0
    k = min(k, n - 1)
    if bad is not None:
        features[rng.integers(n), rng.integers(d)] = bad
        if not ops.checks_values:
            return
        with pytest.raises(ValueError, match=r"^\[ncut\] features must be finite"):
            ops.ncut(features, k, **GRAPHS[kind])
        return
    got = ops.ncut(features, k, **GRAPHS[kind], iterations=many(ops), seed=seed)
    weights = weights_of(ops, features, GRAPHS[kind])
    assert np.isfinite(got.vectors).all()
    if kind != "cosine":
        assert_eigenpairs(weights, got, residual=1e-5)
        return
    want, _ = reference.cut_vectors(weights, k)
    np.testing.assert_allclose(got.eigenvalues, want, rtol=0, atol=5e-6)
    np.testing.assert_allclose(got.residuals, 0, atol=1e-5)


GOOD = np.arange(12, dtype=np.float32).reshape(4, 3)
ROOM = pk.NCut(
    *(np.empty(shape, np.float32) for shape in ((1,), (4, 1), (1,))),
    np.empty((), np.int32),
)


@pytest.mark.parametrize(
    ("features", "options", "error", "message"),
    [
        ([[1.0]], {}, TypeError, "features must be an array, got list"),
        (
            GOOD[0],
            {},
            ValueError,
            r"features must be \[n, d\] or \[b, n, d\], got shape \(3,\)",
        ),
        (
            GOOD[0],
            {"precomputed": True},
            ValueError,
            r"features must be \[n, n\] or \[b, n, n\], got shape \(3,\)",
        ),
        (GOOD, {"precomputed": True}, ValueError, r"features must have shape \(4, 4\), got \(4, 3\)"),
        (GOOD.astype(float), {}, TypeError, "features must be float32 or float16, got float64"),
        (GOOD[:0], {}, ValueError, r"features must have two rows and a column at least, got shape \(0, 3\)"),
        (GOOD[:1], {}, ValueError, "features must have two rows and a column at least"),
        (GOOD[:, :0], {}, ValueError, "features must have two rows and a column at least"),
        (GOOD, {"k": 0}, ValueError, "k must be 1 to 3, got 0"),
        (GOOD, {"k": 4}, ValueError, "k must be 1 to 3, got 4"),
        (GOOD, {"k": 2.0}, TypeError, "k must be an int, got float"),
        (GOOD, {"threshold": -0.1}, ValueError, "threshold must be at least 0, or None, got -0.1"),
        (GOOD, {"threshold": float("nan")}, ValueError, "threshold must be at least 0, or None"),
        (GOOD, {"threshold": None, "binary": True}, ValueError, "binary must be False where there is no"),
        (GOOD, {"floor": 1.0}, ValueError, "floor must be at least 0 and below 1, got 1.0"),
        (GOOD, {"floor": float("nan")}, ValueError, "floor must be at least 0 and below 1"),
        (GOOD, {"offset": -1.0}, ValueError, "offset must be at least 0, got -1.0"),
        (GOOD, {"iterations": 0}, ValueError, "iterations must be 1 to"),
        (GOOD, {"tolerance": -1.0}, ValueError, "tolerance must be at least 0, got -1.0"),
        (GOOD, {"tolerance": float("nan")}, ValueError, "tolerance must be at least 0, got nan"),
        (GOOD, {"start": GOOD}, ValueError, r"start must have shape \(4, 1\), got \(4, 3\)"),
        (GOOD, {"start": GOOD.astype(float)}, TypeError, "start must be float32, got float64"),
        (GOOD, {"start": np.full((4, 1), np.nan, np.float32)}, ValueError, "start must be finite, got"),
        (GOOD, {"start": ROOM.vectors, "out": ROOM}, ValueError, "out must not overlap an input"),
        (GOOD, {"seed": -1}, ValueError, "seed must be 0 to"),
        (GOOD, {"seed": 2**64}, ValueError, "seed must be 0 to"),
        (GOOD, {"stream": 5}, ValueError, "stream must be None where the arrays lie in host memory"),
        (GOOD, {"workspace": GOOD}, ValueError, "workspace must be None where the arrays lie in host memory"),
        (GOOD, {"out": GOOD}, TypeError, "out must be NCut, got ndarray"),
        (
            GOOD,
            {"out": pk.NCut(ROOM.eigenvalues, GOOD, ROOM.residuals, ROOM.products)},
            ValueError,
            r"out.vectors must have shape \(4, 1\), got \(4, 3\)",
        ),
        (
            GOOD,
            {"k": 3, "out": pk.NCut(GOOD[0], GOOD, GOOD[1], ROOM.products)},
            ValueError,
            "out must not overlap an input",
        ),
        (
            np.full((4, 4), np.nan, np.float32),
            {"precomputed": True},
            ValueError,
            "weights and their sums must",
        ),
        (np.full((4, 4), 1e38, np.float32), {"precomputed": True}, ValueError, "weights and their sums must"),
    ],
)
def test_errors(features, options, error, message):
    with pytest.raises(error, match=r"^\[ncut\] " + message):
        pk.ncut(features, **options)
