from __future__ import annotations

import numpy as np
import patchcut_kernels as pk
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from patchcut_kernels import reference

from tests.kernels.cuts.cut_graphs import GRAPHS, patches, weights_of


def scene(rng: np.random.Generator, height: int, width: int, d: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Features of a square object, and its mask; the last patch is rather like it, but apart."""
    mask = np.zeros((height, width), bool)
    mask[height // 3 : height // 3 + max(2, height // 4), width // 4 : width // 4 + max(2, width // 3)] = True
    centres = np.eye(2, d)
    rows = centres[mask.ravel().astype(int)]
    rows[-1] = centres[1] + 0.5 * centres[0]
    return (rows + 0.03 * rng.standard_normal(rows.shape)).astype(np.float32), mask


def assert_follows_rule(
    vector: np.ndarray, got: pk.Bipartition, grid_hw: tuple[int, int], *, connected: bool = True
) -> None:
    """TokenCut's rule; any of equal entries may be the seed, and entries like the mean on either side."""
    magnitudes = np.abs(vector)
    assert magnitudes[got.seed] >= magnitudes.max() * (1 - 1e-4)
    above = vector > vector.mean()
    side = above == above[got.seed]
    undecided = np.abs(vector - vector.mean()) <= 1e-6 * magnitudes.max()
    undecided[got.seed] = False
    surely, perhaps = (side & ~undecided).reshape(grid_hw), (side | undecided).reshape(grid_hw)
    if connected:
        surely, perhaps = (component_of(got.seed, mask) for mask in (surely, perhaps))
    assert got.mask.flat[got.seed]
    assert not np.any(surely & ~got.mask) and not np.any(got.mask & ~perhaps)


def component_of(seed: np.ndarray, mask: np.ndarray) -> np.ndarray:
    ids, _ = reference.connected_components(mask.astype(np.int32), connectivity=4)
    return ids == ids.flat[seed]


@pytest.mark.parametrize("grid_hw", [(6, 7), (5, 13), (16, 16)])
@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("connected", [True, False])
def test_finds_the_object(ops, rng, grid_hw, kind, connected):
    features, mask = scene(rng, *grid_hw)
    got = ops.bipartition(features, grid_hw, **{"binary": False, **GRAPHS[kind]}, connected=connected)
    assert got.mask.dtype == np.bool_
    if not connected:
        mask[-1, -1] = True
    np.testing.assert_array_equal(got.mask, mask)
    options = {"binary": False, **GRAPHS[kind], "connected": connected}
    np.testing.assert_array_equal(reference.bipartition(features, grid_hw, **options).mask, mask)


def test_real_size(ops, rng):
    features, mask = scene(rng, 37, 37, 384)
    np.testing.assert_array_equal(ops.bipartition(features, (37, 37)).mask, mask)


@pytest.mark.parametrize("kind", GRAPHS)
def test_is_the_rule_on_the_vector_of_ncut(ops, rng, kind):
    features = patches(rng, 16 * 15, 60)
    graph = {"binary": False, **GRAPHS[kind]}
    for connected in (True, False):
        got = ops.bipartition(features, (16, 15), **graph, connected=connected)
        vector = ops.ncut(features, **graph).vectors[:, 0]
        assert_follows_rule(vector, got, (16, 15), connected=connected)
        assert 0 < got.mask.sum() < got.mask.size


def test_defaults_are_those_of_tokencut(ops, rng):
    linalg = pytest.importorskip("scipy.linalg")
    ndimage = pytest.importorskip("scipy.ndimage")
    features = patches(rng, 15 * 20, 48)
    unit = features / np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    weights = np.where(unit @ unit.T > 0.2, 1.0, 1e-5)
    degrees = np.diag(weights.sum(1))
    vector = linalg.eigh(degrees - weights, degrees, subset_by_index=[1, 1])[1][:, 0]
    seed = np.abs(vector).argmax()
    above = vector > vector.mean()
    components, _ = ndimage.label((above == above[seed]).reshape(15, 20))
    got = ops.bipartition(features, (15, 20))
    assert np.abs(vector)[got.seed] > np.abs(vector).max() * (1 - 1e-4)
    np.testing.assert_array_equal(got.mask, components == components.flat[got.seed])


def test_corners_do_not_join(ops, rng):
    features, mask = scene(rng, 9, 9)
    corner = 9 * np.flatnonzero(mask.any(1)).max() + 9 + np.flatnonzero(mask.any(0)).max() + 1
    features[corner] = features[-1]
    whole = ops.bipartition(features, (9, 9), connected=False)
    assert whole.mask.flat[corner]
    np.testing.assert_array_equal(ops.bipartition(features, (9, 9)).mask, mask)


def test_given_weights(ops, rng):
    features, mask = scene(rng, 9, 8)
    weights = weights_of(ops, features, GRAPHS["binary"]).astype(np.float32)
    got = ops.bipartition(weights, (9, 8), precomputed=True)
    np.testing.assert_array_equal(got.mask, mask)
    np.testing.assert_array_equal(
        ops.bipartition(weights.astype(np.float16), (9, 8), precomputed=True).mask, mask
    )
    half = ops.bipartition(features.astype(np.float16), (9, 8))
    np.testing.assert_array_equal(half.mask, mask)


def test_two_patches(ops):
    got = ops.bipartition(np.array([[1, 0], [0, 1]], np.float32), (1, 2))
    assert got.mask.sum() == 1
    assert got.mask.flat[got.seed]


def test_threads_do_not_change_a_bit(isa, rng, for_thread_counts):
    features = patches(rng, 26 * 30, 64)
    for_thread_counts(lambda: pk.bipartition(features, (26, 30)).mask)
    for_thread_counts(lambda: pk.bipartition(features, (26, 30), threshold=None, binary=False).mask)


def test_batch_out_strides_and_read_only(ops, rng):
    batch = np.stack([scene(rng, 7, 9)[0] for _ in range(3)])
    together = ops.bipartition(batch, (7, 9))
    assert together.mask.shape == (3, 7, 9)
    assert together.seed.shape == (3,)
    assert together.seed.dtype == np.int32
    for item in range(3):
        alone = ops.bipartition(batch[item], (7, 9))
        np.testing.assert_array_equal(together.mask[item], alone.mask)
        np.testing.assert_array_equal(together.seed[item], alone.seed)
    out = pk.Bipartition(np.empty((3, 7, 9), bool), np.empty(3, np.int32), np.empty((3, 63), np.float32))
    assert ops.bipartition(batch, (7, 9), out=out) is out
    np.testing.assert_array_equal(out.mask, together.mask)
    strided = np.repeat(batch, 2, axis=2)[:, :, ::2]
    strided.flags.writeable = False
    np.testing.assert_array_equal(ops.bipartition(strided, (7, 9)).mask, together.mask)
    assert ops.bipartition(batch[:0], (7, 9)).mask.shape == (0, 7, 9)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    grid_hw=st.tuples(st.integers(1, 9), st.integers(2, 9)),
    d=st.integers(1, 30),
    seed=st.integers(0, 2**64 - 1),
    kind=st.sampled_from(sorted(GRAPHS)),
    bad=st.sampled_from([None, None, None, np.nan, np.inf, -np.inf]),
    duplicates=st.booleans(),
    zero_rows=st.booleans(),
    connected=st.booleans(),
)
@example(  # seven entries are the mean up to rounding
    grid_hw=(3, 3),
    d=17,
    seed=3,
    kind="binary",
    bad=None,
    duplicates=False,
    zero_rows=False,
    connected=False,
)
def test_any_input(ops, grid_hw, d, seed, kind, bad, duplicates, zero_rows, connected):
    rng = np.random.default_rng(seed)
    n = grid_hw[0] * grid_hw[1]
    features = patches(rng, n, d)
    if duplicates:
        features = features[rng.integers(0, max(1, n // 3), n)]
    if zero_rows:
        features[rng.random(n) < 0.3] = 0
    graph = {"binary": False, **GRAPHS[kind]}
    if bad is not None:
        features[rng.integers(n), rng.integers(d)] = bad
        if not ops.checks_values:
            return
        with pytest.raises(ValueError, match=r"^\[bipartition\] features must be finite"):
            ops.bipartition(features, grid_hw, **graph)
        return
    got = ops.bipartition(features, grid_hw, **graph, seed=seed, connected=connected)
    vector = ops.ncut(features, **graph, seed=seed).vectors[:, 0]
    assert_follows_rule(vector, got, grid_hw, connected=connected)


def test_the_vector_that_was_cut_starts_the_next_frame(ops, rng):
    features, _ = scene(rng, 12, 13)
    first = ops.bipartition(features, (12, 13))
    np.testing.assert_array_equal(first.vector, ops.ncut(features, binary=True, threshold=0.2).vectors[:, 0])
    moved = (features + 0.02 * rng.standard_normal(features.shape)).astype(np.float32)
    warm = ops.bipartition(moved, (12, 13), start=first.vector, tolerance=1e-4)
    cold = ops.bipartition(moved, (12, 13))
    np.testing.assert_array_equal(warm.mask, cold.mask)
    np.testing.assert_allclose(warm.vector, cold.vector, atol=2e-3 * np.abs(cold.vector).max())


GOOD = np.arange(18, dtype=np.float32).reshape(6, 3)
ROOM = (np.empty((), np.int32), np.empty(6, np.float32))


@pytest.mark.parametrize(
    ("features", "grid_hw", "options", "error", "message"),
    [
        (GOOD[0], (2, 3), {}, ValueError, r"features must be \[n, d\] or \[b, n, d\], got shape \(3,\)"),
        (GOOD.astype(float), (2, 3), {}, TypeError, "features must be float32 or float16, got float64"),
        (GOOD[:1], (1, 1), {}, ValueError, "features must have two rows and a column at least"),
        (GOOD, 6, {}, TypeError, r"grid_hw must be \(height, width\), got int"),
        (GOOD, (2, 3, 1), {}, ValueError, r"grid_hw must be \(height, width\), got 3 numbers"),
        (GOOD, (0, 6), {}, ValueError, r"grid_hw\[0\] must be at least 1"),
        (GOOD, (2, 2), {}, ValueError, r"grid_hw must hold 6 patches, got \(2, 2\)"),
        (GOOD, (2, 3), {"threshold": None}, ValueError, "binary must be False where there is no threshold"),
        (GOOD, (2, 3), {"threshold": -1.0}, ValueError, "threshold must be at least 0, or None, got -1.0"),
        (GOOD, (2, 3), {"floor": 2.0}, ValueError, "floor must be at least 0 and below 1"),
        (GOOD, (2, 3), {"offset": float("inf")}, ValueError, "offset must be at least 0"),
        (GOOD, (2, 3), {"iterations": 0}, ValueError, "iterations must be 1 to"),
        (GOOD, (2, 3), {"seed": 1.0}, TypeError, "seed must be an int, got float"),
        (GOOD, (2, 3), {"out": GOOD}, TypeError, "out must be Bipartition, got ndarray"),
        (
            GOOD,
            (2, 3),
            {"out": pk.Bipartition(np.empty((2, 3), np.uint8), *ROOM)},
            TypeError,
            "out.mask must be bool, got uint8",
        ),
        (
            GOOD,
            (2, 3),
            {"out": pk.Bipartition(np.empty((3, 2), bool), *ROOM)},
            ValueError,
            r"out.mask must have shape \(2, 3\), got \(3, 2\)",
        ),
        (np.full((6, 6), np.nan, np.float32), (2, 3), {"precomputed": True}, ValueError, "weights and their"),
    ],
)
def test_errors(features, grid_hw, options, error, message):
    with pytest.raises(error, match=r"^\[bipartition\] " + message):
        pk.bipartition(features, grid_hw, **options)
