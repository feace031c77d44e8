from __future__ import annotations

import numpy as np
import patchcut_kernels as pk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patchcut_kernels import reference


def check(ops, labels: np.ndarray, table: np.ndarray) -> np.ndarray:
    before = labels.copy()
    got = ops.relabel(labels, table)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, reference.relabel(labels, table))
    np.testing.assert_array_equal(labels, before)
    return got


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    count=st.integers(1, 9),
    block=st.sampled_from([1, 7]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_map(device_ops, size, count, block, seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.integers(0, count, size), block, axis=1).astype(np.int32)
    table = rng.integers(-(2**31), 2**31, count).astype(np.int32)
    check(device_ops, labels, table)
    labels_in_place = labels.copy()
    assert device_ops.relabel(labels_in_place, table, out=labels_in_place) is labels_in_place
    np.testing.assert_array_equal(labels_in_place, table[labels])


def test_real_map_and_threads(device_ops, rng, for_thread_counts):
    labels = np.kron(rng.integers(0, 30, (27, 48)), np.ones((40, 40))).astype(np.int32)
    table = np.concatenate([[0], 1 + rng.permutation(29)]).astype(np.int32)
    got = check(device_ops, labels, table)
    assert np.unique(got).size > 20
    for_thread_counts(lambda: device_ops.relabel(labels, table))
    back = np.argsort(table).astype(np.int32)
    np.testing.assert_array_equal(device_ops.relabel(got, back, out=got), labels)


def test_strides_and_read_only(device_ops, rng):
    labels = rng.integers(0, 4, (30, 40)).astype(np.int32)
    table = np.array([3, 9, 1, 9, 7, 7], np.int32)
    labels.flags.writeable = False
    check(device_ops, labels[::-1, ::3], table[:4])
    check(device_ops, labels.T, table[::-1])
    with pytest.raises(ValueError, match=r"\[relabel\] out must not overlap an input"):
        memory = np.zeros((3, 4), np.int32)
        pk.relabel(memory[:2], table, out=memory[1:])
    with pytest.raises(ValueError, match=r"\[relabel\] out must not overlap an input"):
        memory = np.zeros((1, 6), np.int32)
        pk.relabel(np.zeros((1, 6), np.int32), memory[0], out=memory)


LABELS = np.array([[0, 1], [2, 3]], np.int32)
TABLE = np.arange(4, dtype=np.int32)


@pytest.mark.parametrize(
    ("labels", "table", "options", "error", "message"),
    [
        (LABELS.tolist(), TABLE, {}, TypeError, "labels must be an array, got list"),
        (LABELS[0], TABLE, {}, ValueError, r"labels must be \[H, W\]"),
        (LABELS.astype(np.int64), TABLE, {}, TypeError, "labels must be int32, got int64"),
        (LABELS, TABLE[None], {}, ValueError, r"table must be \[m\]"),
        (LABELS, TABLE.astype(np.float32), {}, TypeError, "table must be int32, got float32"),
        (LABELS, TABLE[:0], {}, ValueError, "table must have at least one entry"),
        (LABELS, TABLE[:3], {}, ValueError, r"labels must be in \[0, 2\], got 3"),
        (-LABELS[:, ::-1], TABLE, {}, ValueError, r"labels must be in \[0, 3\], got -"),
        (LABELS, TABLE, {"out": np.zeros((2, 3), np.int32)}, ValueError, "out must have shape"),
    ],
)
def test_errors(labels, table, options, error, message):
    with pytest.raises(error, match=r"^\[relabel\] " + message):
        pk.relabel(labels, table, **options)
