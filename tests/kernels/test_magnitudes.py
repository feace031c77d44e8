"""Numbers at the ends of float32: an op is right there, or says that it is not."""

from __future__ import annotations

import numpy as np
import patchcut_kernels as pk
import pytest
from patchcut_kernels import reference


@pytest.mark.parametrize("scale", [1e-44, 1e-40, 1e-39, 1e-38, 1e-30, 1.0, 1e30, 1e36])
@pytest.mark.parametrize("n", [2, 3, 17, 40])
def test_correlation_cluster_ends_and_is_right_at_any_scale(ops, n, scale):
    """Of subnormal weights the mean of a pair was once rounded one way for W_ij and another for W_ji."""
    rng = np.random.default_rng(n)
    signed = (rng.standard_normal((n, n)) * scale).astype(np.float32)
    got = ops.correlation_cluster(signed)
    pairs = (signed.astype(np.float64) + signed.T) / 2
    joined = got.labels[:, None] == got.labels
    objective = (pairs * joined).sum() / 2 - np.trace(pairs) / 2
    error = n * n * 2.0**-149 + 1e-5 * np.abs(pairs).sum()
    np.testing.assert_allclose(got.objective, objective, rtol=0, atol=error)
    if scale >= 1e-30:  # enough of the weights is left
        wanted = ops.correlation_cluster((signed.astype(np.float64) / scale).astype(np.float32))
        np.testing.assert_array_equal(got.labels, wanted.labels)


def test_correlation_cluster_of_tiny_weights_is_the_same_on_each_instruction_set(isa):
    signed = (np.random.default_rng(3).standard_normal((60, 60)) * 1e-39).astype(np.float32)
    got = pk.correlation_cluster(signed)
    pk.set_isa(pk.available_isas()[0])
    np.testing.assert_array_equal(got.labels, pk.correlation_cluster(signed).labels)
    pk.set_isa(isa)


@pytest.mark.usefixtures("isa")
def test_correlation_cluster_says_where_sums_overflow():
    with pytest.raises(ValueError, match=r"^\[correlation_cluster\] affinity overflows: the weights"):
        pk.correlation_cluster(np.full((9, 9), 1e38, np.float32))
    with pytest.raises(ValueError, match=r"the sum of a pair's two entries must be finite"):
        pk.correlation_cluster(np.full((2, 2), 3e38, np.float32))
    assert pk.correlation_cluster(np.full((2, 2), 1.5e38, np.float32)).objective == np.float32(1.5e38)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("scale", [2.0**power for power in (-149, -126, -100, -76, -40, 0, 50)])
def test_kmeans_is_the_same_at_any_scale(scale):
    rng = np.random.default_rng(0)
    groups = np.repeat(rng.integers(-40, 41, (5, 3)), 20, axis=0) * 8
    points = (groups + rng.integers(-1, 2, (100, 3))).astype(np.float64)
    tiny = (points * scale).astype(np.float32)
    wanted = pk.kmeans(points.astype(np.float32), 5, restarts=3)
    got = pk.kmeans(tiny, 5, restarts=3)
    np.testing.assert_array_equal(got.labels[:, None] == got.labels, wanted.labels[:, None] == wanted.labels)
    np.testing.assert_allclose(
        got.centroids[got.labels], wanted.centroids[wanted.labels] * scale, 1e-5, 2e-45
    )
    np.testing.assert_allclose(got.inertia, float(wanted.inertia) * scale * scale, 1e-4, 2e-45)
    given = pk.kmeans(tiny, 5, init=got.centroids)
    np.testing.assert_array_equal(given.labels, got.labels)


def test_kmeans_of_ordinary_points_is_not_scaled(isa):
    """A power of two changes no bit, on either side of where scaling begins."""
    points = np.random.default_rng(1).standard_normal((200, 7)).astype(np.float32)
    wanted = pk.kmeans(points, 4)
    for exponent in (-40, -34, 47, 52):
        got = pk.kmeans(np.ldexp(points, exponent), 4)
        np.testing.assert_array_equal(got.labels, wanted.labels)
        np.testing.assert_array_equal(got.centroids, np.ldexp(wanted.centroids, exponent))


@pytest.mark.usefixtures("isa")
def test_upsample_argmax_takes_what_can_be_interpolated():
    corners = np.float32([[1, 0], [-1, 0.5], [0.25, -1], [1, 1]]) * np.float32(2.0**125)
    labels, confidence = pk.upsample_argmax(corners, (2, 2), (9, 9), confidence=True)
    assert np.isfinite(confidence).all()
    np.testing.assert_array_equal(labels, pk.upsample_argmax(corners / np.float32(2.0**125), (2, 2), (9, 9)))
    with pytest.raises(ValueError, match=r"^\[upsample_argmax\] assignment must be at most 2\^125"):
        pk.upsample_argmax(corners * np.float32(2), (2, 2), (9, 9))


FRAME = np.random.default_rng(2).integers(0, 256, (40, 50, 3)).astype(np.uint8)
MAP = np.random.default_rng(3).uniform(-1, 1, (40, 50)).astype(np.float32)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("eps", [1e-9, 1e-6, 1e-3])
def test_guided_refine_takes_maps_up_to_1e12(eps):
    frame = FRAME.copy()
    frame[:, 25:] = 7  # a variance of 0
    for radius in (2, 30, 400):
        assert np.isfinite(pk.guided_refine(frame, MAP * np.float32(1e12), radius, eps)).all()
    with pytest.raises(ValueError, match=r"^\[guided_refine\] maps must be at most 1e12 in magnitude"):
        pk.guided_refine(frame, MAP * np.float32(1e13), 2, eps)
    with pytest.raises(ValueError, match=r"^\[guided_refine\] eps must be at least 1e-9"):
        pk.guided_refine(frame, MAP, 2, eps * 1e-7)


@pytest.mark.parametrize(("radius", "subsample"), [(1025, 1), (1500, 64), (5000, 1250), (65536, 65536)])
def test_guided_refine_takes_windows_larger_than_the_frame(ops, radius, subsample):
    """A picture of 16,400 pixels a side asks for them."""
    got = ops.guided_refine(FRAME, MAP, radius, 1e-3, subsample=subsample)
    want = reference.guided_refine(FRAME, MAP, radius, 1e-3, subsample=subsample)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-4)


@pytest.mark.usefixtures("isa")
def test_bilateral_solver_says_where_it_overflows():
    ones = np.ones_like(MAP)
    for changed in (
        {"soft_map": MAP * np.float32(1e38)},
        {"confidence": ones * np.float32(1e37)},
        {"smoothness": 3e38, "soft_map": MAP * np.float32(1e10)},
    ):
        arguments = {"soft_map": MAP, "confidence": ones, **changed}
        try:
            out = pk.bilateral_solver(FRAME, **arguments)
        except ValueError as error:
            assert str(error).startswith("[bilateral_solver] map, confidence and smoothness overflow")
        else:
            assert np.isfinite(out).all()
    with pytest.raises(ValueError, match="overflow"):
        pk.bilateral_solver(FRAME, MAP * np.float32(1e30), ones)


def test_preprocess_says_where_images_overflow():
    frame = np.full((4, 4, 3), 255, np.uint8)
    good = pk.preprocess(frame, 4, (0, 0, 0), (1e-4, 1, 1), dtype=np.float16)
    assert np.isfinite(good).all()
    for std, dtype in ((1e-5, np.float16), (1e-39, np.float32)):
        with pytest.raises(
            ValueError, match=r"^\[preprocess\] (scale and offset must lead to|mean / std and)"
        ):
            pk.preprocess(frame, 4, (0, 0, 0), (std, 1, 1), dtype=dtype)


def test_a_temperature_without_an_inverse_is_refused():
    weights = pk.GcnWeights(
        normalize=False,
        shift=np.zeros(2, np.float32),
        scale=np.ones(2, np.float32),
        layers=[],
        mlp=[pk.LinearLayer(np.eye(2, dtype=np.float32), np.zeros(2, np.float32))],
        temperature=1e-30,
    )
    sure = pk.gcn_forward(np.eye(2, dtype=np.float32), None, weights)
    np.testing.assert_allclose(sure, np.eye(2), rtol=0, atol=1e-6)


# Graphs whose smallest eigenvalue is not a single one: any vector of its space is right.
DEGENERATE = {
    "all alike": np.ones((12, 4), np.float32),
    "all zero": np.zeros((12, 4), np.float32),
    "three groups alike": np.repeat(np.eye(3, dtype=np.float32), 4, axis=0),
    "all apart": np.eye(12, dtype=np.float32),
}


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("name", DEGENERATE)
def test_a_bipartition_of_what_has_no_single_cut_is_one_of_its_cuts(ops, name, connected):
    """Which one depends on the instruction set; that its seed is in it does not."""
    features = DEGENERATE[name]
    got = ops.bipartition(features, (3, 4), connected=connected)
    assert got.mask.shape == (3, 4)
    assert 0 <= got.seed < 12
    assert got.mask.ravel()[int(got.seed)]
    again = ops.bipartition(features, (3, 4), connected=connected)
    np.testing.assert_array_equal(got.mask, again.mask)
    if name == "three groups alike" and not connected:
        groups = got.mask.reshape(3, 4)
        assert all(group.all() or not group.any() for group in groups)  # no group is cut


def test_a_bipartition_with_a_single_cut_is_the_same_on_each_instruction_set(isa):
    rng = np.random.default_rng(5)
    for seed in range(20):
        sides = rng.random(48) < 0.3
        features = (np.where(sides[:, None], [1, 0.1, 0], [0, 0.1, 1]) + rng.normal(0, 0.05, (48, 3))).astype(
            "f4"
        )
        pk.set_isa(isa)
        got = pk.bipartition(features, (6, 8), connected=False, seed=seed)
        pk.set_isa(pk.available_isas()[0])
        np.testing.assert_array_equal(
            got.mask, pk.bipartition(features, (6, 8), connected=False, seed=seed).mask
        )
    pk.set_isa(isa)
