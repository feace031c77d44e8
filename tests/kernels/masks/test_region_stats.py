from __future__ import annotations

import numpy as np
import patchcut_kernels as pk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patchcut_kernels import reference


def check(ops, ids, count, label_map, confidence) -> pk.RegionStats:
    got = ops.region_stats(ids, count, label_map=label_map, confidence=confidence)
    want = reference.region_stats(ids, count, label_map=label_map, confidence=confidence)
    np.testing.assert_array_equal(got.area, want.area)
    np.testing.assert_array_equal(got.boxes_xyxy, want.boxes_xyxy)
    if confidence is None:
        assert got.mean_confidence is None
    else:
        np.testing.assert_allclose(got.mean_confidence, want.mean_confidence, rtol=0, atol=1e-6)
    if label_map is None:
        assert got.label is None
    else:
        np.testing.assert_array_equal(got.label, want.label)
    return got


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    count=st.integers(0, 7),
    with_labels=st.booleans(),
    with_confidence=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_ids(device_ops, size, count, with_labels, with_confidence, seed):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, count + 1, size).astype(np.int32)
    label_map = rng.integers(0, 9, size).astype(np.int32) if with_labels else None
    confidence = rng.random(size).astype(np.float32) if with_confidence else None
    check(device_ops, ids, count, label_map, confidence)


def test_real_map(device_ops, rng):
    label_map = np.kron(rng.integers(0, 3, (12, 16)), np.ones((40, 40))).astype(np.int32)
    ids, count = device_ops.connected_components(label_map)
    stats = check(device_ops, ids, count, label_map, rng.random(label_map.shape).astype(np.float32))
    assert count > 4
    assert stats.area.sum() == (label_map > 0).sum()
    assert (stats.label > 0).all()
    assert stats.area.dtype == np.int64
    assert stats.boxes_xyxy.dtype == np.float32


def test_missing_ids_and_strides(device_ops, rng):
    ids = np.zeros((6, 8), np.int32)
    ids[1:4, 2:7] = 2
    stats = check(device_ops, ids, 3, None, rng.random((6, 8)).astype(np.float32))
    assert stats.area.tolist() == [0, 15, 0]
    assert stats.boxes_xyxy.tolist() == [[0, 0, 0, 0], [2, 1, 7, 4], [0, 0, 0, 0]]
    check(device_ops, ids[::-1, ::2], 2, ids[::-1, ::2], None)


def test_orders_do_not_change_a_bit(rng, for_orders_on_cuda):
    """Of sums of 0: they show all that float64 would round away, which depends on the order."""
    half = np.kron(rng.integers(0, 4, (6, 8)), np.ones((10, 10))).astype(np.int32)
    terms = rng.standard_normal(half.shape) * 10 ** rng.uniform(0, 18, half.shape)
    ids = pk.cuda.to_device(np.concatenate([half, half]))
    confidence = pk.cuda.to_device(np.concatenate([terms, -terms]).astype(np.float32))

    def compute() -> np.ndarray:
        return pk.region_stats(ids, 3, confidence=confidence).mean_confidence.numpy()

    for_orders_on_cuda(compute)


def test_confidence_of_any_magnitude(device_ops, rng):
    ids = rng.integers(0, 4, (20, 30)).astype(np.int32)
    confidence = rng.random(ids.shape, np.float32) * np.float32([1, 1e-30, -1e30, 1e-42])[ids]
    got = device_ops.region_stats(ids, 3, confidence=confidence).mean_confidence
    want = reference.region_stats(ids, 3, confidence=confidence).mean_confidence
    np.testing.assert_allclose(got, want, rtol=1e-6)
    # One that is not finite is not in the mean of another region.
    confidence[ids == 2] = np.nan
    got = device_ops.region_stats(ids, 3, confidence=confidence).mean_confidence
    assert np.isnan(got).tolist() == [False, True, False]
    np.testing.assert_allclose(np.delete(got, 1), np.delete(want, 1), rtol=1e-6)


IDS = np.array([[0, 1], [2, 3]], np.int32)


@pytest.mark.parametrize(
    ("ids", "count", "options", "error", "message"),
    [
        (IDS.tolist(), 3, {}, TypeError, "ids must be an array, got list"),
        (IDS[0], 3, {}, ValueError, r"ids must be \[H, W\]"),
        (IDS.astype(np.int64), 3, {}, TypeError, "ids must be int32"),
        (IDS, 2, {}, ValueError, r"ids must be in \[0, 2\], got 3"),
        (-IDS, 3, {}, ValueError, r"ids must be in \[0, 3\], got -1"),
        (IDS, -1, {}, ValueError, "count must be at least 0"),
        (IDS, 3, {"label_map": IDS[:1]}, ValueError, r"label_map must have shape \(2, 2\), got \(1, 2\)"),
        (IDS, 3, {"confidence": IDS}, TypeError, "confidence must be float32, got int32"),
    ],
)
def test_errors(ids, count, options, error, message):
    with pytest.raises(error, match=r"^\[region_stats\] " + message):
        pk.region_stats(ids, count, **options)
