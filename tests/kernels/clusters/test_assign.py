from __future__ import annotations

import numpy as np
import patchcut_kernels as pk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patchcut_kernels import reference


def features_and_prototypes(
    rng: np.random.Generator, n: int, d: int, c: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows around the prototypes, each with a scale of its own."""
    prototypes = rng.standard_normal((c, d))
    noisy = prototypes[rng.integers(0, c, n)] + 0.8 * rng.standard_normal((n, d))
    return (noisy * rng.uniform(0.1, 10, (n, 1))).astype(np.float32), prototypes.astype(np.float32)


def assert_same(got: pk.PrototypeAssignment, want: pk.PrototypeAssignment, cosines: np.ndarray) -> None:
    """Labels may differ only where two prototypes are as near as float32 can tell."""
    assert got.labels.dtype == np.int32
    np.testing.assert_allclose(got.similarity, want.similarity, rtol=0, atol=2e-6)
    chosen = np.take_along_axis(cosines, got.labels[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(chosen, want.similarity, rtol=0, atol=2e-6)


# Blocks are 32 rows, panels 12, 24 or 32 columns.
SIZES = [(1, 1, 1), (2, 3, 2), (31, 5, 7), (33, 384, 8), (32, 64, 24), (65, 17, 33), (97, 385, 65)]


@pytest.mark.parametrize(("n", "d", "c"), SIZES)
@pytest.mark.parametrize("temperature", [None, 0.07])
def test_matches_reference(ops, rng, assert_close, n, d, c, temperature):
    features, prototypes = features_and_prototypes(rng, n, d, c)
    got = ops.assign(features, prototypes, temperature=temperature)
    want = reference.assign(features, prototypes, temperature=temperature)
    assert_same(got, want, reference.unit_rows(features) @ reference.unit_rows(prototypes).T)
    if n * c > 2:
        assert len(np.unique(want.labels)) > 1
    if temperature is None:
        assert got.assignment is None
    else:
        assert_close("assign soft", got.assignment, want.assignment, scale=1.0 if n * c > 2 else 1e-9)


def test_real_size(ops, rng, assert_close):
    features, prototypes = features_and_prototypes(rng, 1369, 384, 27)
    got = ops.assign(features, prototypes, temperature=0.1)
    want = reference.assign(features, prototypes, temperature=0.1)
    assert_close("assign", got.similarity, want.similarity)
    assert_close("assign soft", got.assignment, want.assignment)
    np.testing.assert_array_equal(got.labels, want.labels)


def test_half_features_are_those_values(ops, rng):
    features, prototypes = features_and_prototypes(rng, 70, 33, 5)
    half = features.astype(np.float16)
    got = ops.assign(half, prototypes, temperature=0.2)
    want = ops.assign(half.astype(np.float32), prototypes, temperature=0.2)
    for name in ("labels", "similarity", "assignment"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))


def test_sklearn_and_softmax_agree(rng):
    sklearn = pytest.importorskip("sklearn.metrics.pairwise")
    special = pytest.importorskip("scipy.special")
    features, prototypes = features_and_prototypes(rng, 300, 64, 9)
    cosines = sklearn.cosine_similarity(features.astype(np.float64), prototypes.astype(np.float64))
    got = pk.assign(features, prototypes, temperature=0.05)
    np.testing.assert_array_equal(got.labels, cosines.argmax(1))
    np.testing.assert_allclose(got.similarity, cosines.max(1), atol=2e-6)
    np.testing.assert_allclose(got.assignment, special.softmax(cosines / 0.05, axis=1), atol=2e-5)


def test_temperature_goes_from_one_hot_to_uniform(rng):
    features, prototypes = features_and_prototypes(rng, 40, 64, 5)
    cold = pk.assign(features, prototypes, temperature=1e-4)
    np.testing.assert_allclose(cold.assignment, np.eye(5)[cold.labels], atol=1e-6)
    hot = pk.assign(features, prototypes, temperature=1e6).assignment
    np.testing.assert_allclose(hot, 0.2, atol=1e-5)
    for temperature in (1e-38, 1e38):
        shares = pk.assign(features, prototypes, temperature=temperature).assignment
        np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)


def test_ties_and_zero_rows_take_the_first(ops, rng):
    features, prototypes = features_and_prototypes(rng, 50, 20, 40)
    prototypes[7:] = prototypes[6]
    features[::5] = 0
    got = ops.assign(features, prototypes, temperature=0.5)
    assert got.labels.max() <= 6
    assert not got.labels[::5].any()
    assert not got.similarity[::5].any()
    np.testing.assert_allclose(got.assignment[::5], 1 / 40, atol=1e-7)
    zeros = ops.assign(features, np.zeros_like(prototypes))
    assert not zeros.labels.any()
    assert not zeros.similarity.any()


@pytest.mark.parametrize("factor", [1e-44, 1e-30, 1e20, 1e36])
def test_the_length_of_rows_does_not_matter(ops, rng, factor):
    features, prototypes = features_and_prototypes(rng, 40, 64, 5)
    scaled = (features.astype(np.float64) * factor).astype(np.float32)
    want = reference.assign(scaled, prototypes)
    np.testing.assert_allclose(ops.assign(scaled, prototypes).similarity, want.similarity, atol=2e-6)
    assert np.abs(ops.assign(prototypes, prototypes).similarity).max() <= 1


def test_threads_do_not_change_a_bit(isa, rng, for_thread_counts):
    features, prototypes = features_and_prototypes(rng, 700, 100, 9)
    for_thread_counts(lambda: pk.assign(features, prototypes, temperature=0.1).assignment)
    for_thread_counts(lambda: pk.assign(features, prototypes).similarity)


def test_no_nodes_batches_strides_and_out(ops, rng):
    features, prototypes = features_and_prototypes(rng, 111, 21, 4)
    nothing = ops.assign(features[:0], prototypes, temperature=1.0)
    assert nothing.labels.shape == nothing.similarity.shape == (0,)
    assert nothing.assignment.shape == (0, 4)
    batch = features.reshape(3, 37, 21)
    together = ops.assign(batch, prototypes, temperature=0.3)
    for item in range(3):
        alone = ops.assign(batch[item], prototypes, temperature=0.3)
        for name in ("labels", "similarity", "assignment"):
            np.testing.assert_array_equal(getattr(together, name)[item], getattr(alone, name))
    wide = np.zeros((111, 42), np.float32)
    wide[:, ::2] = features
    np.testing.assert_array_equal(
        ops.assign(wide[:, ::2], prototypes).similarity, together.similarity.ravel()
    )
    out = pk.PrototypeAssignment(
        np.empty((3, 37), np.int32), np.empty((3, 37), np.float32), np.empty((3, 37, 4), np.float32)
    )
    assert ops.assign(batch, prototypes, temperature=0.3, out=out) is out
    np.testing.assert_array_equal(out.assignment, together.assignment)
    np.testing.assert_array_equal(out.labels, together.labels)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 70),
    d=st.integers(1, 50),
    c=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    bad=st.sampled_from([None, None, np.nan, np.inf, -np.inf]),
    where=st.sampled_from(["features", "prototypes"]),
)
def test_any_input(ops, n, d, c, seed, bad, where):
    rng = np.random.default_rng(seed)
    features, prototypes = features_and_prototypes(rng, n, d, c)
    if bad is not None:
        target = features if where == "features" else prototypes
        if not ops.checks_values:
            return
        target[rng.integers(len(target)), rng.integers(d)] = bad
        with pytest.raises(ValueError, match=rf"^\[assign\] {where} must be finite"):
            ops.assign(features, prototypes)
        return
    got = ops.assign(features, prototypes, temperature=0.1)
    want = reference.assign(features, prototypes, temperature=0.1)
    assert_same(got, want, reference.unit_rows(features) @ reference.unit_rows(prototypes).T)
    np.testing.assert_allclose(got.assignment, want.assignment, atol=2e-5)
    np.testing.assert_allclose(got.assignment.sum(1), 1, atol=1e-6)


GOOD, PROTOTYPES = np.ones((4, 3), np.float32), np.ones((2, 3), np.float32)
ROOM = pk.PrototypeAssignment(np.empty(4, np.int32), np.empty(4, np.float32), None)


@pytest.mark.parametrize(
    ("features", "prototypes", "options", "error", "message"),
    [
        ([[1.0]], PROTOTYPES, {}, TypeError, "features must be an array, got list"),
        (
            np.ones(3, np.float32),
            PROTOTYPES,
            {},
            ValueError,
            r"features must be \[n, d\] or \[b, n, d\], got shape \(3,\)",
        ),
        (
            np.ones((4, 3)),
            PROTOTYPES,
            {},
            TypeError,
            "features must be float32 or float16, got float64",
        ),
        (np.ones((4, 0), np.float32), PROTOTYPES, {}, ValueError, "features must have at least one column"),
        (GOOD, None, {}, TypeError, "prototypes must be an array, got NoneType"),
        (GOOD, np.ones((2, 3)), {}, TypeError, "prototypes must be float32, got float64"),
        (GOOD, np.ones(3, np.float32), {}, ValueError, r"prototypes must be \[c, d\], got shape \(3,\)"),
        (
            GOOD,
            np.ones((2, 4), np.float32),
            {},
            ValueError,
            r"prototypes must have 3 columns, got shape \(2, 4\)",
        ),
        (GOOD, PROTOTYPES[:0], {}, ValueError, "prototypes must have at least one row"),
        (GOOD, PROTOTYPES, {"temperature": 0.0}, ValueError, "temperature must be above 0"),
        (GOOD, PROTOTYPES, {"temperature": -1.0}, ValueError, "temperature must be above 0"),
        (GOOD, PROTOTYPES, {"temperature": float("nan")}, ValueError, "temperature must be above 0"),
        (GOOD, PROTOTYPES, {"temperature": 1e-60}, ValueError, "temperature must be above 0, with a finite"),
        (GOOD, PROTOTYPES, {"out": GOOD}, TypeError, "out must be PrototypeAssignment, got ndarray"),
        (
            GOOD,
            PROTOTYPES,
            {"temperature": 1.0, "out": ROOM},
            TypeError,
            "out.assignment must be an array here, got NoneType",
        ),
        (
            GOOD,
            PROTOTYPES,
            {"out": pk.PrototypeAssignment(ROOM.labels, ROOM.similarity, np.empty((4, 2), np.float32))},
            TypeError,
            "out.assignment must be None here, got ndarray",
        ),
        (
            GOOD,
            PROTOTYPES,
            {"out": pk.PrototypeAssignment(np.empty(3, np.int32), ROOM.similarity, None)},
            ValueError,
            r"out.labels must have shape \(4,\), got \(3,\)",
        ),
        (
            GOOD,
            PROTOTYPES,
            {"out": pk.PrototypeAssignment(ROOM.labels, np.broadcast_to(np.float32(0), 4), None)},
            ValueError,
            "out.similarity must be writable, got a read-only array",
        ),
    ],
)
def test_errors(features, prototypes, options, error, message):
    with pytest.raises(error, match=r"^\[assign\] " + message):
        pk.assign(features, prototypes, **options)


def test_out_over_an_input_is_an_error():
    features = np.ones((4, 4), np.float32)
    room = pk.PrototypeAssignment(ROOM.labels, ROOM.similarity, features)
    with pytest.raises(ValueError, match=r"^\[assign\] out must not overlap an input"):
        pk.assign(features, np.ones((4, 4), np.float32), temperature=1.0, out=room)
