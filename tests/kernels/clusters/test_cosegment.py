from __future__ import annotations

from itertools import pairwise

import numpy as np
import patchcut_kernels as pk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patchcut_kernels import reference

from tests.kernels.tolerances import TOLERANCES

NAMES = ("scores", "seeds", "embedding")
TOLERANCE = TOLERANCES["cosegment"]


def images_of_one_thing(
    rng: np.random.Generator, k: int, n: int, d: int, dtype: type[np.generic] = np.float32
) -> np.ndarray:
    """[k, n, d] patches of clusters that all images have, on an offset, as a backbone's features have one."""
    centres = rng.standard_normal((6, d)) + 0.5 * rng.standard_normal(d)
    noisy = centres[rng.integers(0, 6, (k, n))] + 0.6 * rng.standard_normal((k, n, d))
    return (noisy * rng.uniform(0.5, 2, (k, n, 1))).astype(dtype)


def some_weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights of which a third are 0."""
    weights = rng.random(shape, np.float32)
    weights[rng.random(shape) < 0.3] = 0
    return weights


def brute_force(
    rows: np.ndarray, offsets: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """[n] float64 scores by the whole affinity, and [n] which patches count."""
    rows = rows.astype(np.float64)
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    cosines = (rows @ rows.T) / np.maximum(np.outer(lengths, lengths), np.finfo(float).tiny)
    shares = np.ones(len(rows)) if weights is None else weights.astype(np.float64)
    counts = shares > 0
    weighted = np.where(counts, cosines * shares, -np.inf)
    maxima = [weighted[:, i:j].max(axis=1) for i, j in pairwise(offsets) if counts[i:j].any()]
    scores = np.mean(maxima, axis=0) if maxima else np.full(len(rows), -1.0)
    return np.where(counts, scores, -1.0), counts


def assert_matches(
    got: pk.Cosegmentation, features: np.ndarray, offsets: np.ndarray, weights: np.ndarray | None
) -> None:
    """A seed may differ only where two patches are as good as float32 can tell; the rest follows them."""
    rows = features.reshape(-1, features.shape[-1])
    wanted, counts = brute_force(rows, offsets, None if weights is None else weights.ravel())
    assert [getattr(got, name).dtype for name in NAMES] == [np.float32, np.int32, np.float32]
    scores = got.scores.ravel()
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=TOLERANCE)
    total = np.zeros(rows.shape[1])
    for seed, (i, j) in zip(got.seeds, pairwise(offsets), strict=True):
        kept = np.flatnonzero(counts[i:j])
        if not len(kept):
            assert seed == -1
            continue
        assert scores[i + seed] >= scores[i:j].max() - 1e-7
        assert wanted[i + seed] >= wanted[i:j][kept].max() - 2 * TOLERANCE
        total += reference.unit_rows(rows[i + seed])
    if (got.seeds >= 0).any() and np.linalg.norm(total) > 1e-3:
        np.testing.assert_allclose(got.embedding, total / np.linalg.norm(total), rtol=0, atol=1e-4)


# Panels are 12, 24 or 32 patches, tiles of CUDA 64; the last is more than one block of products.
SIZES = [(1, 1, 1), (2, 1, 3), (1, 40, 7), (3, 24, 16), (4, 65, 33), (5, 100, 384), (2, 400, 9)]


@pytest.mark.parametrize(("k", "n", "d"), SIZES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_matches_reference(ops, rng, k, n, d, weighted, dtype):
    features = images_of_one_thing(rng, k, n, d, dtype)
    weights = some_weights(rng, k, n) if weighted else None
    got, want = ops.cosegment(features, weights=weights), reference.cosegment(features, weights=weights)
    offsets = np.arange(k + 1) * n
    assert got.scores.shape == want.scores.shape == (k, n)
    assert_matches(got, features, offsets, weights)
    assert_matches(want, features, offsets, weights)
    if k == 1 and not weighted:  # each patch is found by itself alone
        np.testing.assert_allclose(got.scores, 1, rtol=0, atol=TOLERANCE)
        return
    np.testing.assert_array_equal(got.seeds, want.seeds)
    np.testing.assert_allclose(got.embedding, want.embedding, rtol=0, atol=TOLERANCE)
    if n > 24:
        assert np.ptp(want.scores) > 0.03
        assert len(np.unique(want.seeds)) > 1 or k == 1


@pytest.mark.parametrize("weighted", [False, True])
def test_images_of_any_sizes(ops, rng, weighted):
    sizes = [1, 30, 0, 64, 129, 2]
    offsets = np.cumsum([0, *sizes]).astype(np.int64)
    features = images_of_one_thing(rng, 1, offsets[-1], 40)[0]
    weights = some_weights(rng, offsets[-1]) if weighted else None
    got = ops.cosegment(features, offsets=offsets, weights=weights)
    assert got.scores.shape == features.shape[:1]
    assert got.seeds[2] == -1
    assert_matches(got, features, offsets, weights)
    want = reference.cosegment(features, offsets=offsets, weights=weights)
    np.testing.assert_array_equal(got.seeds, want.seeds)


def test_real_size(isa, rng):
    features = images_of_one_thing(rng, 6, 1024, 384)
    got = pk.cosegment(features)
    assert_matches(got, features, np.arange(7) * 1024, None)
    np.testing.assert_array_equal(got.seeds, reference.cosegment(features).seeds)


def test_real_features(ops, real_features):
    """Four quarters of one photo's patch grid, as images."""
    grid = real_features.reshape(16, 16, -1)
    quarters = np.stack([grid[i : i + 8, j : j + 8].reshape(64, -1) for i in (0, 8) for j in (0, 8)])
    assert_matches(ops.cosegment(quarters), quarters, np.arange(5) * 64, None)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_published_procedure_finds_the_same(ops, rng, weighted):
    """ReCo's own steps in torch, with each image's own columns."""
    torch = pytest.importorskip("torch")
    k, n = 5, 49
    features = images_of_one_thing(rng, k, n, 64)
    weights = (0.05 + 0.9 * rng.random((k, n))).astype(np.float32)
    flat = torch.nn.functional.normalize(torch.from_numpy(features).reshape(k * n, -1), dim=-1)
    adjacency = flat @ flat.T
    if weighted:
        adjacency = adjacency * torch.from_numpy(weights).reshape(1, -1)
    scores = torch.stack([part.max(dim=1).values for part in adjacency.split(n, dim=1)], dim=1).mean(dim=1)
    seeds = scores.reshape(k, n).argmax(dim=1)
    got = ops.cosegment(features, weights=weights if weighted else None)
    np.testing.assert_array_equal(got.seeds, seeds.numpy())
    np.testing.assert_allclose(got.scores.ravel(), scores.numpy(), rtol=0, atol=TOLERANCE)


def test_the_common_thing_is_found(ops, rng):
    """One thing in every image, things of its own in each."""
    k, n, d = 8, 50, 64
    features = rng.standard_normal((k, n, d)).astype(np.float32)
    thing, places = rng.standard_normal(d), rng.integers(0, n, k)
    features[np.arange(k), places] = thing + 0.3 * rng.standard_normal((k, d))
    got = ops.cosegment(features)
    np.testing.assert_array_equal(got.seeds, places)
    assert got.embedding @ thing / np.linalg.norm(thing) > 0.98


def test_one_patch_an_image(ops, rng):
    rows = images_of_one_thing(rng, 1, 30, 12)[0]
    got = ops.cosegment(rows[:, None])
    unit = reference.unit_rows(rows)
    np.testing.assert_allclose(got.scores[:, 0], (unit @ unit.T).mean(axis=1), rtol=0, atol=TOLERANCE)
    assert not got.seeds.any()


def test_the_order_of_images_and_patches_does_not_matter(ops, rng):
    k, n = 6, 40
    features, weights = images_of_one_thing(rng, k, n, 32), some_weights(rng, k, n)
    got = ops.cosegment(features, weights=weights)
    images = rng.permutation(k)
    moved = ops.cosegment(features[images].copy(), weights=weights[images].copy())
    np.testing.assert_allclose(moved.scores, got.scores[images], rtol=0, atol=2e-7)
    np.testing.assert_array_equal(moved.seeds, got.seeds[images])
    np.testing.assert_allclose(moved.embedding, got.embedding, rtol=0, atol=2e-7)
    patches = rng.permutation(n)
    moved = ops.cosegment(features[:, patches].copy(), weights=weights[:, patches].copy())
    np.testing.assert_allclose(moved.scores, got.scores[:, patches], rtol=0, atol=2e-7)
    np.testing.assert_array_equal(patches[moved.seeds], got.seeds)


def test_images_twice_change_nothing(ops, rng):
    features = images_of_one_thing(rng, 4, 50, 32)
    got, twice = ops.cosegment(features), ops.cosegment(np.concatenate([features, features]))
    np.testing.assert_allclose(twice.scores, np.tile(got.scores, (2, 1)), rtol=0, atol=2e-7)
    np.testing.assert_array_equal(twice.seeds, np.tile(got.seeds, 2))
    np.testing.assert_allclose(twice.embedding, got.embedding, rtol=0, atol=1e-6)


def test_patches_that_do_not_count_might_as_well_not_be_there(ops, rng):
    k, n = 5, 60
    features, mask = images_of_one_thing(rng, k, n, 48), rng.random((k, n)) < 0.5
    mask[3] = False
    got = ops.cosegment(features, weights=mask.astype(np.float32))
    offsets = np.cumsum([0, *mask.sum(axis=1)]).astype(np.int64)
    want = ops.cosegment(features[mask], offsets=offsets)
    np.testing.assert_allclose(got.scores[mask], want.scores, rtol=0, atol=1e-7)
    assert (got.scores[~mask] == -1).all()
    for row, seed, place in zip(mask, want.seeds, got.seeds, strict=True):
        assert place == (np.flatnonzero(row)[seed] if row.any() else -1)
    assert got.seeds[3] == -1
    np.testing.assert_allclose(got.embedding, want.embedding, rtol=0, atol=1e-6)


def test_a_weight_is_that_of_the_patch_that_is_found(ops):
    """The second patch of the other image is nearer, and counts less."""
    features = np.float32([[[1, 0], [0, 1]], [[0.8, 0.6], [1, 0]]])
    weights = np.float32([[1, 1], [1, 0.5]])
    got = ops.cosegment(features, weights=weights)
    np.testing.assert_allclose(got.scores, [[(1 + 0.8) / 2, (1 + 0.6) / 2], [0.9, (1 + 0.8) / 2]], atol=1e-6)


def test_ties_take_the_first(ops, rng):
    features = images_of_one_thing(rng, 4, 70, 20)
    got = ops.cosegment(np.concatenate([features, features, features], axis=1))
    np.testing.assert_array_equal(got.seeds, ops.cosegment(features).seeds)
    same = ops.cosegment(np.tile(features[:1, :1], (4, 150, 1)))
    assert not same.seeds.any()
    np.testing.assert_allclose(same.scores, 1, atol=TOLERANCE)


def test_patches_that_resemble_each_other_closely(ops, rng):
    """Cosines differ by far less than what rounding to int16 moves."""
    base = rng.standard_normal(96)
    features = (base + 2e-3 * rng.standard_normal((5, 130, 96))).astype(np.float32)
    got = ops.cosegment(features)
    np.testing.assert_allclose(got.scores, reference.cosegment(features).scores, rtol=0, atol=5e-7)
    assert_matches(got, features, np.arange(6) * 130, None)


@pytest.mark.parametrize("scale", [2.0**power for power in (-149, -126, -80, 0, 120)])
def test_any_magnitude(ops, rng, scale):
    features = rng.integers(-40, 41, (3, 20, 6)).astype(np.float64)
    want = reference.cosegment(features)
    got = ops.cosegment((features * scale).astype(np.float32))
    np.testing.assert_allclose(got.scores, want.scores, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(got.embedding, want.embedding, rtol=0, atol=1e-5)


def test_opposite_and_zero_rows(ops):
    features = np.float32([[[1, 2], [0, 0]], [[-1, -2], [0, 0]]])
    got = ops.cosegment(features)
    np.testing.assert_allclose(got.scores, [[0.5, 0], [0.5, 0]], atol=1e-6)
    assert got.seeds.tolist() == [0, 0]
    only = ops.cosegment(features[:, :1].copy())
    np.testing.assert_allclose(only.scores, [[0], [0]], atol=1e-6)
    zeros = ops.cosegment(np.zeros((2, 3, 4), np.float32))
    assert not zeros.scores.any()
    assert not zeros.embedding.any()


@pytest.mark.parametrize("weighted", [False, True])
def test_threads_do_not_change_a_bit(isa, rng, for_thread_counts, weighted):
    features = images_of_one_thing(rng, 7, 220, 50, np.float16)
    weights = some_weights(rng, 7, 220) if weighted else None
    for name in NAMES:
        for_thread_counts(lambda name=name: getattr(pk.cosegment(features, weights=weights), name))


def test_orders_of_blocks_do_not_change_a_bit(rng, for_orders_on_cuda):
    features = images_of_one_thing(rng, 3, 70, 24)
    on_device = pk.cuda.to_device(features)
    for name in NAMES:
        for_orders_on_cuda(lambda name=name: getattr(pk.cosegment(on_device), name).numpy())


def test_nothing_out_and_strides(ops, rng):
    empty = np.zeros((0, 5, 3), np.float32)
    nothing = ops.cosegment(empty)
    assert nothing.scores.shape == (0, 5)
    assert nothing.seeds.shape == (0,)
    assert nothing.embedding.tolist() == [0, 0, 0]
    hollow = ops.cosegment(np.zeros((2, 0, 3), np.float32))
    assert hollow.seeds.tolist() == [-1, -1]
    assert hollow.embedding.tolist() == [0, 0, 0]
    features = images_of_one_thing(rng, 3, 30, 10)
    unseen = ops.cosegment(features, weights=np.zeros((3, 30), np.float32))
    assert (unseen.scores == -1).all()
    assert (unseen.seeds == -1).all()
    assert not unseen.embedding.any()
    weightless = reference.cosegment(features, weights=np.zeros((3, 30), np.float32))
    for name in NAMES:
        np.testing.assert_array_equal(getattr(unseen, name), getattr(weightless, name))
        np.testing.assert_array_equal(getattr(nothing, name), getattr(reference.cosegment(empty), name))
    want = ops.cosegment(features)
    out = pk.Cosegmentation(np.empty((3, 30), np.float32), np.empty(3, np.int32), np.empty(10, np.float32))
    assert ops.cosegment(features, out=out) is out
    for name in NAMES:
        np.testing.assert_array_equal(getattr(out, name), getattr(want, name))


def test_strided_features(isa, rng):
    features = images_of_one_thing(rng, 3, 30, 10)
    wide = np.zeros((3, 30, 20), np.float32)
    wide[..., ::2] = features
    wide.flags.writeable = False
    got, want = pk.cosegment(wide[..., ::2]), pk.cosegment(features)
    np.testing.assert_array_equal(got.scores, want.scores)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 40), max_size=6),
    d=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    weighted=st.booleans(),
    dtype=st.sampled_from([np.float16, np.float32]),
    bad=st.sampled_from([None, None, None, np.nan, np.inf, -np.inf]),
)
def test_any_input(ops, sizes, d, seed, weighted, dtype, bad):
    rng = np.random.default_rng(seed)
    offsets = np.cumsum([0, *sizes]).astype(np.int64)
    n = int(offsets[-1])
    features = images_of_one_thing(rng, 1, n, d, dtype)[0]
    weights = some_weights(rng, n) if weighted else None
    if bad is not None:
        if not ops.checks_values or not n:
            return
        features[rng.integers(n), rng.integers(d)] = bad
        with pytest.raises(ValueError, match=r"^\[cosegment\] features must be finite"):
            ops.cosegment(features, offsets=offsets, weights=weights)
        return
    assert_matches(ops.cosegment(features, offsets=offsets, weights=weights), features, offsets, weights)


def test_what_is_not_finite_ends_on_cuda_too(rng):
    """Values are not checked there, nor offsets: they end, and seeds are patches of their images."""
    if not pk.cuda.is_available():
        pytest.skip(pk.cuda.why_unavailable())
    features = images_of_one_thing(rng, 1, 40, 5)[0]
    features[7, 2], features[9] = np.nan, np.inf
    weights = np.linspace(-1, 2, 40, dtype=np.float32)
    weights[11] = np.nan
    for starts in ([0, 10, 40], [-5, 90, 20], [30, 2, 2**62]):
        offsets = pk.cuda.to_device(np.int64(starts))
        got = pk.cosegment(pk.cuda.to_device(features), offsets=offsets, weights=pk.cuda.to_device(weights))
        assert ((got.seeds.numpy() >= -1) & (got.seeds.numpy() < 40)).all()


NOT_OFFSETS = "offsets must start with 0, never fall and end with 4"
GOOD, ROWS = np.arange(24, dtype=np.float32).reshape(2, 4, 3), np.arange(12, dtype=np.float32).reshape(4, 3)
ROOM = pk.Cosegmentation(np.empty((2, 4), np.float32), np.empty(2, np.int32), np.empty(3, np.float32))
WEIGHTS = np.ones((2, 4), np.float32)


@pytest.mark.parametrize(
    ("features", "options", "error", "message"),
    [
        ([[1.0]], {}, TypeError, "features must be an array, got list"),
        (GOOD[0, 0], {}, ValueError, r"features must be \[k, n, d\] or \[n, d\], got shape \(3,\)"),
        (GOOD.astype(float), {}, TypeError, "features must be float32 or float16, got float64"),
        (GOOD[..., :0], {}, ValueError, "features must have at least one column"),
        (ROWS, {}, ValueError, r"offsets must be given for features \[n, d\]"),
        (GOOD, {"offsets": np.int64([0, 8])}, ValueError, r"offsets must be None for features \[k, n, d\]"),
        (ROWS, {"offsets": [0, 4]}, TypeError, "offsets must be an array, got list"),
        (ROWS, {"offsets": np.int32([0, 4])}, TypeError, "offsets must be int64, got int32"),
        (ROWS, {"offsets": np.int64([])}, ValueError, r"offsets must be \[k \+ 1\], got shape \(0,\)"),
        (
            ROWS,
            {"offsets": np.int64([0, 3])},
            ValueError,
            NOT_OFFSETS,
        ),
        (
            ROWS,
            {"offsets": np.int64([1, 4])},
            ValueError,
            NOT_OFFSETS,
        ),
        (ROWS, {"offsets": np.int64([0, 3, 2, 4])}, ValueError, NOT_OFFSETS),
        (GOOD, {"weights": WEIGHTS[0]}, ValueError, r"weights must have shape \(2, 4\), got \(4,\)"),
        (GOOD, {"weights": WEIGHTS > 0}, TypeError, "weights must be float32, got bool"),
        (GOOD, {"weights": 1.5 * WEIGHTS}, ValueError, r"weights must lie in \[0, 1\], got 1.5"),
        (GOOD, {"weights": -WEIGHTS}, ValueError, r"weights must lie in \[0, 1\], got -1.0"),
        (GOOD, {"weights": np.nan * WEIGHTS}, ValueError, r"weights must lie in \[0, 1\], got nan"),
        (GOOD + np.float32(np.inf), {}, ValueError, "features must be finite, got NaN or infinity"),
        (GOOD, {"out": GOOD}, TypeError, "out must be Cosegmentation, got ndarray"),
        (
            GOOD,
            {"out": pk.Cosegmentation(ROOM.scores, ROOM.seeds[:1], ROOM.embedding)},
            ValueError,
            r"out.seeds must have shape \(2,\), got \(1,\)",
        ),
        (
            GOOD,
            {"out": pk.Cosegmentation(GOOD.ravel()[:8].reshape(2, 4), ROOM.seeds, ROOM.embedding)},
            ValueError,
            "out must not overlap an input",
        ),
    ],
)
def test_errors(features, options, error, message):
    with pytest.raises(error, match=r"^\[cosegment\] " + message):
        pk.cosegment(features, **options)
