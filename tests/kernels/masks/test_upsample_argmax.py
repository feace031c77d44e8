from __future__ import annotations

import numpy as np
import patchcut_kernels as pk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patchcut_kernels import reference


def soft_assignment(rng: np.random.Generator, n: int, k: int, sharpness: float = 2.0) -> np.ndarray:
    e = np.exp(sharpness * rng.standard_normal((n, k)))
    return (e / e.sum(axis=1, keepdims=True)).astype(np.float32)


def check(assignment, grid_hw, size_hw) -> None:
    labels, confidence = pk.upsample_argmax(assignment, grid_hw, size_hw, confidence=True)
    values = reference.upsample(assignment, grid_hw, size_hw)
    assert labels.dtype == np.int32
    assert confidence.dtype == np.float32
    np.testing.assert_allclose(confidence, values.max(axis=2), rtol=0, atol=1e-6)
    chosen = np.take_along_axis(values, labels[:, :, None].astype(np.intp), axis=2)[:, :, 0]
    clear = values.max(axis=2) - chosen >= 1e-6
    assert not clear.any(), "a class was chosen that is clearly not the largest"
    np.testing.assert_array_equal(pk.upsample_argmax(assignment, grid_hw, size_hw), labels)


@pytest.mark.parametrize(
    ("grid_hw", "size_hw"),
    [
        ((1, 1), (1, 1)),
        ((1, 1), (5, 33)),
        ((1, 4), (3, 65)),
        ((5, 1), (64, 2)),
        ((3, 7), (3, 7)),
        ((16, 16), (17, 15)),
        ((16, 16), (5, 9)),
        ((14, 14), (225, 223)),
        ((37, 37), (480, 640)),
    ],
)
@pytest.mark.parametrize("k", [1, 2, 3, 8, 33])
@pytest.mark.parametrize("sharpness", [0.3, 6.0])
def test_matches_reference(ops, rng, grid_hw, size_hw, k, sharpness):
    check(soft_assignment(rng, grid_hw[0] * grid_hw[1], k, sharpness), grid_hw, size_hw)


def test_real_size_matches_opencv(ops, rng):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is the oracle")
    blocks = rng.standard_normal((7, 7, 8)).astype(np.float32)
    grid = np.exp(cv2.resize(blocks, (28, 28), interpolation=cv2.INTER_CUBIC))
    grid /= grid.sum(axis=2, keepdims=True)
    planes = np.stack([cv2.resize(np.ascontiguousarray(grid[:, :, c]), (1920, 1080)) for c in range(8)])
    top = np.sort(planes, axis=0)[-2:]
    clear = top[1] - top[0] > 1e-4
    labels = ops.upsample_argmax(grid.reshape(-1, 8), (28, 28), (1080, 1920))
    np.testing.assert_array_equal(labels[clear], planes.argmax(axis=0)[clear])
    assert clear.mean() > 0.98
    assert np.unique(labels).size > 3


def test_ties_go_to_the_first_column(ops, rng):
    column = rng.random((30, 1)).astype(np.float32)
    assert not ops.upsample_argmax(np.repeat(column, 5, axis=1), (5, 6), (50, 61)).any()
    other = soft_assignment(rng, 30, 2)
    labels = ops.upsample_argmax(other[:, [0, 1, 0, 1]], (5, 6), (50, 61))
    np.testing.assert_array_equal(labels, ops.upsample_argmax(other, (5, 6), (50, 61)))
    assert set(np.unique(labels)) == {0, 1}


def test_one_hot_rows(ops, rng):
    hot = np.eye(6, dtype=np.float32)[rng.integers(0, 6, 12 * 9)]
    check(hot, (12, 9), (130, 77))


def test_out_strides_and_read_only(ops, rng):
    assignment = soft_assignment(rng, 20, 3)
    want = ops.upsample_argmax(assignment, (4, 5), (31, 33))
    out = np.empty((31, 33), np.int32)
    assert ops.upsample_argmax(np.asfortranarray(assignment), (4, 5), (31, 33), out=out) is out
    np.testing.assert_array_equal(out, want)
    values = np.empty((31, 33), np.float32)
    for wanted in (True, values):
        labels, confidence = ops.upsample_argmax(assignment, (4, 5), (31, 33), out=out, confidence=wanted)
        assert labels is out
        np.testing.assert_array_equal(labels, want)
        np.testing.assert_allclose(
            confidence, reference.upsample(assignment, (4, 5), (31, 33)).max(2), rtol=0, atol=1e-6
        )
    assert confidence is values
    with pytest.raises(ValueError, match=r"\[upsample_argmax\] out must not overlap an input"):
        pk.upsample_argmax(assignment, (4, 5), (31, 33), out=out, confidence=out.view(np.float32))
    with pytest.raises(ValueError, match=r"\[upsample_argmax\] out must not overlap an input"):
        square = np.ones((4, 4), np.float32)
        pk.upsample_argmax(square, (2, 2), (4, 4), out=square.view(np.int32))
    assignment.flags.writeable = False
    np.testing.assert_array_equal(ops.upsample_argmax(assignment, (4, 5), (31, 33)), want)


def test_threads_do_not_change_a_bit(isa, rng, for_thread_counts):
    assignment = soft_assignment(rng, 196, 5)
    for_thread_counts(lambda: pk.upsample_argmax(assignment, (14, 14), (301, 400), confidence=True)[1])
    for_thread_counts(lambda: pk.upsample_argmax(assignment, (14, 14), (301, 400)))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    grid_hw=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    size_hw=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    k=st.integers(1, 12),
    sharpness=st.sampled_from([0.01, 1.0, 20.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_size(ops, grid_hw, size_hw, k, sharpness, seed):
    rng = np.random.default_rng(seed)
    check(soft_assignment(rng, grid_hw[0] * grid_hw[1], k, sharpness), grid_hw, size_hw)


GOOD = np.full((6, 2), 0.5, np.float32)
BAD = np.where(np.arange(12).reshape(6, 2) == 7, np.nan, GOOD).astype(np.float32)


@pytest.mark.parametrize(
    ("assignment", "grid_hw", "size_hw", "options", "error", "message"),
    [
        ([], (2, 3), (4, 4), {}, TypeError, "assignment must be an array"),
        (GOOD[0], (2, 3), (4, 4), {}, ValueError, r"assignment must be \[n, k\]"),
        (GOOD.astype(np.float64), (2, 3), (4, 4), {}, TypeError, "assignment must be float32"),
        (GOOD, (2, 2), (4, 4), {}, ValueError, r"assignment must have 4 rows for a grid of \(2, 2\), got 6"),
        (GOOD[:, :0], (2, 3), (4, 4), {}, ValueError, "assignment must have at least one column"),
        (BAD, (2, 3), (4, 4), {}, ValueError, "assignment must be finite"),
        (GOOD, 6, (4, 4), {}, TypeError, r"grid_hw must be \(height, width\)"),
        (GOOD, (2, 3), (0, 4), {}, ValueError, r"size_hw\[0\] must be at least 1"),
        (GOOD, (2, 3), (4, 4), {"out": np.empty((4, 5), np.int32)}, ValueError, "out must have shape"),
        (GOOD, (2, 3), (4, 4), {"out": np.empty((4, 4), np.int64)}, TypeError, "out must be int32"),
        (GOOD, (2, 3), (4, 4), {"confidence": np.empty((4, 4))}, TypeError, "confidence must be float32"),
        (GOOD, (2, 3), (4, 4), {"confidence": GOOD}, ValueError, r"confidence must have shape \(4, 4\)"),
    ],
)
def test_errors(assignment, grid_hw, size_hw, options, error, message):
    with pytest.raises(error, match=r"^\[upsample_argmax\] " + message):
        pk.upsample_argmax(assignment, grid_hw, size_hw, **options)
