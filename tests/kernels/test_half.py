"""Half precision is no op: products of two features, one a power of two, show how it is read and written."""

from __future__ import annotations

import numpy as np
import patchcut_kernels as pk
import pytest

HALVES = np.arange(2**16, dtype=np.uint16).view(np.float16)
FINITE = HALVES[np.isfinite(HALVES)]


def products(x: np.ndarray, y: np.ndarray, **options: object) -> np.ndarray:
    """x * y where that is positive, else 0; by pairs of nodes with one feature each."""
    nodes = np.stack([x, y.astype(x.dtype)], axis=1)[..., None]
    return pk.affinity(nodes, kind="dot", **options)[:, 0, 1]


def test_every_half_is_read(isa):
    sign = np.copysign(np.float16(1), FINITE)
    got = products(FINITE, sign)
    np.testing.assert_array_equal(got, np.abs(FINITE.astype(np.float32)))
    assert not products(FINITE, -sign).any()


def test_rows_of_any_length_are_read(isa, rng):
    for d in range(1, 70):
        features = rng.standard_normal((5, d)).astype(np.float16)
        np.testing.assert_array_equal(pk.affinity(features), pk.affinity(features.astype(np.float32)))


def test_halves_that_are_not_finite_are_an_error(isa):
    features = np.ones((3, 23), np.float16)
    for bad in HALVES[~np.isfinite(HALVES)][::7]:
        features[1, 20] = bad
        with pytest.raises(ValueError, match=r"^\[affinity\] features must be finite"):
            pk.affinity(features)


def test_every_half_and_every_tie_is_written(isa):
    """Each half below 2^15, half-way to the next one, and the floats around both."""
    exact = np.arange(0x7800, dtype=np.uint16).view(np.float16).astype(np.float32)
    tie = (exact[1:] + exact[:-1]) / 2
    x = np.concatenate([exact, tie])
    x = np.concatenate([x, np.nextafter(x, np.float32(np.inf)), np.nextafter(x[1:], np.float32(0))])
    x = x[x < 32760]
    assert len(x) > 180_000
    # Both factors stay below 256, so that their squares fit too.
    out = np.empty((len(x), 2, 2), np.float16)
    got = products(x / 128, np.full_like(x, 128), out=out)
    np.testing.assert_array_equal(got.view(np.uint16), x.astype(np.float16).view(np.uint16))


def test_large_and_negative_halves_are_written(isa):
    x = np.linspace(-255.9, 255.9, 20_001).astype(np.float32)
    nodes = x.reshape(-1, 1, 1)
    out = np.empty((len(x), 1, 1), np.float16)
    square = x * x
    np.testing.assert_array_equal(pk.affinity(nodes, kind="dot", out=out).ravel(), square.astype(np.float16))
    # One node alone is its own maximum S, and alpha = 1/2 makes that S - 2 S.
    got = pk.affinity(nodes, kind="dot", mode="cc", alpha=0.5, out=out).ravel()
    np.testing.assert_array_equal(got, (-square).astype(np.float16))


def test_what_does_not_fit_is_an_error(isa):
    out = np.empty((1, 1), np.float16)
    largest = np.nextafter(np.float32(65520), np.float32(0))
    root = np.nextafter(np.sqrt(largest), np.float32(0)).reshape(1, 1)
    assert pk.affinity(root, kind="dot", out=out) == 65504
    with pytest.raises(ValueError, match=r"^\[affinity\] features overflow: affinities must fit float16"):
        pk.affinity(np.full((1, 1), 256, np.float32), kind="dot", out=out)
    assert pk.affinity(np.full((1, 1), 256, np.float32), kind="dot") == 65536
