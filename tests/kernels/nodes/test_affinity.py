from __future__ import annotations

import numpy as np
import patchcut_kernels as pk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patchcut_kernels import reference


def clustered(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Features with both similar and opposed rows, as a ViT gives them."""
    centres = rng.standard_normal((4, d))
    return (centres[rng.integers(0, 4, n)] + 0.5 * rng.standard_normal((n, d))).astype(np.float32)


# Blocks are 12, 24 or 32 rows and the depth of one pass is 256.
SIZES = [(1, 1), (2, 3), (12, 5), (13, 384), (24, 64), (25, 257), (32, 256), (33, 17), (97, 385), (256, 384)]


@pytest.mark.parametrize(("n", "d"), SIZES)
@pytest.mark.parametrize("kind", ["cosine", "dot"])
@pytest.mark.parametrize("mode", ["ncut", "cc"])
def test_matches_reference(ops, rng, assert_close, n, d, kind, mode):
    features = clustered(rng, n, d)
    got, degrees = ops.affinity(features, kind=kind, mode=mode, return_degrees=True)
    want = reference.affinity(features, kind=kind, mode=mode)
    scale = 1.0 if kind == "cosine" else float(np.square(features).sum(1).max())
    assert_close("affinity", got, want, scale=scale)
    np.testing.assert_array_equal(got, got.T)
    np.testing.assert_allclose(degrees, want.sum(1), rtol=0, atol=2e-6 * scale * n)


def test_real_size(ops, rng, assert_close):
    features = clustered(rng, 1369, 384)
    got, degrees = ops.affinity(features, return_degrees=True)
    want = reference.affinity(features)
    assert_close("affinity", got, want)
    assert_close("degrees", degrees, want.sum(1))


@pytest.mark.parametrize("mode", ["ncut", "cc"])
@pytest.mark.parametrize("n", [1, 33, 100])
def test_half(ops, rng, assert_close, n, mode):
    features = clustered(rng, n, 65).astype(np.float16)
    want = reference.affinity(features, mode=mode)
    assert_close("affinity", ops.affinity(features, mode=mode), want)
    out = np.empty((n, n), np.float16)
    degrees = np.empty(n, np.float32)
    got = ops.affinity(features, mode=mode, out=out, return_degrees=degrees)
    assert got[0] is out
    assert got[1] is degrees
    np.testing.assert_allclose(out, want, rtol=0, atol=5e-4)
    np.testing.assert_array_equal(out, out.T)
    np.testing.assert_allclose(degrees, want.sum(1), rtol=0, atol=2e-6 * n)


def test_threshold(ops, rng):
    features = clustered(rng, 130, 64)
    similarity = reference.affinity(features)
    got = ops.affinity(features, threshold=0.2)
    clear = np.abs(similarity - 0.2) > 1e-5
    np.testing.assert_array_equal((got > 0)[clear], (similarity > 0.2)[clear])
    assert 0.05 < (got > 0).mean() < 0.95
    assert got[got > 0].min() > 0.2


def test_entries_at_the_threshold_become_zero(ops):
    features = np.array([[1, 0], [0.5, 0], [0, 0.75]], np.float32)
    got = ops.affinity(features, kind="dot", threshold=0.5)
    np.testing.assert_array_equal(got, np.diag([1, 0, 0.5625]).astype(np.float32))


def test_no_nodes():
    got, degrees = pk.affinity(np.empty((0, 5), np.float32), return_degrees=True)
    assert got.shape == (0, 0)
    assert degrees.shape == (0,)
    assert pk.affinity(np.empty((0, 4, 5), np.float32)).shape == (0, 4, 4)


@pytest.mark.parametrize("mode", ["ncut", "cc"])
def test_zero_and_duplicate_rows(ops, rng, assert_close, mode):
    features = clustered(rng, 40, 19)
    features[[0, 17, 39]] = 0
    features[5:9] = features[4]
    got = ops.affinity(features, mode=mode)
    assert_close("affinity", got, reference.affinity(features, mode=mode))
    assert np.isfinite(got).all()
    if mode == "ncut":
        assert not got[17].any()
        np.testing.assert_allclose(got[4:9, 4:9], 1, atol=1e-6)
        assert got.max() <= 1


def test_all_rows_zero(ops):
    zeros = np.zeros((33, 8), np.float32)
    assert not ops.affinity(zeros).any()
    assert not ops.affinity(zeros, mode="cc").any()


@pytest.mark.parametrize("factor", [1e-44, 1e-30, 1e-20, 1e20, 1e37])
def test_cosine_of_extreme_rows(ops, rng, assert_close, factor):
    features = clustered(rng, 20, 384)
    features[::2] = (features[::2].astype(np.float64) * factor).astype(np.float32)
    assert_close("affinity", ops.affinity(features), reference.affinity(features))


@pytest.mark.parametrize("n", [2, 70])
@pytest.mark.parametrize("mode", ["ncut", "cc"])
def test_dot_products_that_overflow_are_an_error(isa, rng, n, mode):
    features = clustered(rng, n, 9)
    features[-1] = [1e30, -1e30] + [1e30] * 7
    with pytest.raises(ValueError, match=r"^\[affinity\] features overflow"):
        pk.affinity(features, kind="dot", mode=mode)
    pk.affinity(features, mode=mode)


def test_sums_and_shares_that_overflow_are_an_error(isa):
    features = np.full((40, 1), 1.5e19, np.float32)
    assert np.isfinite(pk.affinity(features, kind="dot")).all()
    with pytest.raises(ValueError, match=r"^\[affinity\] features overflow"):
        pk.affinity(features, kind="dot", return_degrees=True)
    features[::2] *= -1
    with pytest.raises(ValueError, match=r"^\[affinity\] features overflow"):
        pk.affinity(features, kind="dot", mode="cc", alpha=0.5)
    assert np.isfinite(pk.affinity(features, mode="cc", alpha=3e-38)).all()
    with pytest.raises(ValueError, match=r"^\[affinity\] features overflow"):
        pk.affinity(features, mode="cc", alpha=3e-38, return_degrees=True)


def test_threads_do_not_change_a_bit(isa, rng, for_thread_counts):
    features = clustered(rng, 300, 100)
    for_thread_counts(lambda: np.vstack(pk.affinity(features, return_degrees=True)))
    for_thread_counts(lambda: np.vstack(pk.affinity(features, mode="cc", return_degrees=True)))


def test_permuted_nodes_permute_the_result(ops, rng):
    features = clustered(rng, 70, 33)
    order = rng.permutation(70)
    np.testing.assert_array_equal(ops.affinity(features[order]), ops.affinity(features)[np.ix_(order, order)])


def test_batch_out_strides_and_read_only(ops, rng):
    batch = np.stack([clustered(rng, 37, 21) for _ in range(3)])
    each = np.stack([ops.affinity(features) for features in batch])
    np.testing.assert_array_equal(ops.affinity(batch), each)
    out = np.empty_like(each)
    assert ops.affinity(batch, out=out) is out
    np.testing.assert_array_equal(out, each)
    wide = np.zeros((3, 37, 42), np.float32)
    wide[:, :, ::2] = batch
    strided = wide[:, :, ::2]
    strided.flags.writeable = False
    np.testing.assert_array_equal(ops.affinity(strided), each)
    square = clustered(rng, 40, 40)
    with pytest.raises(ValueError, match=r"\[affinity\] out must not overlap an input"):
        ops.affinity(square, out=square)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 70),
    d=st.integers(1, 50),
    seed=st.integers(0, 2**32 - 1),
    bad=st.sampled_from([None, None, np.nan, np.inf, -np.inf]),
    zero_rows=st.booleans(),
    reverse=st.booleans(),
)
def test_any_input(ops, n, d, seed, bad, zero_rows, reverse):
    rng = np.random.default_rng(seed)
    features = clustered(rng, n, d)
    if zero_rows:
        features[rng.random(n) < 0.3] = 0
    if reverse:
        features = features[::-1, ::-1]
    if bad is not None:
        features[rng.integers(n), rng.integers(d)] = bad
        if not ops.checks_values:
            return
        with pytest.raises(ValueError, match=r"\[affinity\] features must be finite"):
            ops.affinity(features)
        return
    np.testing.assert_allclose(ops.affinity(features), reference.affinity(features), rtol=0, atol=2e-6)


GOOD = np.ones((4, 3), np.float32)


@pytest.mark.parametrize(
    ("features", "options", "error", "message"),
    [
        ([[1.0]], {}, TypeError, "features must be an array, got list"),
        (
            np.ones(3, np.float32),
            {},
            ValueError,
            r"features must be \[n, d\] or \[b, n, d\], got shape \(3,\)",
        ),
        (np.ones((3, 0), np.float32), {}, ValueError, "features must have at least one column"),
        (np.ones((3, 2)), {}, TypeError, "features must be float32 or float16, got float64"),
        (GOOD, {"kind": "l2"}, ValueError, "kind must be 'cosine' or 'dot', got 'l2'"),
        (GOOD, {"mode": "x"}, ValueError, "mode must be 'ncut' or 'cc', got 'x'"),
        (GOOD, {"threshold": -0.1}, ValueError, "threshold must be at least 0"),
        (GOOD, {"threshold": float("nan")}, ValueError, "threshold must be at least 0"),
        (GOOD, {"alpha": 0.0}, ValueError, "alpha must be above 0"),
        (
            GOOD,
            {"alpha": 1e-60},
            ValueError,
            "alpha must be above 0, with a finite inverse in float32, got 1e-60",
        ),
        (GOOD, {"alpha": float("nan")}, ValueError, "alpha must be above 0"),
        (GOOD, {"out": [0]}, TypeError, "out must be an array"),
        (GOOD, {"out": np.empty((4, 3), np.float32)}, ValueError, r"out must have shape \(4, 4\)"),
        (GOOD, {"out": np.empty((4, 4))}, TypeError, "out must be float32 or float16, got float64"),
        (GOOD, {"out": np.empty((4, 4), np.float32).T}, ValueError, "out must be C-contiguous"),
        (GOOD, {"out": np.broadcast_to(np.float32(0), (4, 4))}, ValueError, "out must be writable"),
    ],
)
def test_errors(features, options, error, message):
    with pytest.raises(error, match=r"^\[affinity\] " + message):
        pk.affinity(features, **options)
