from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import patchcut_kernels as pk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patchcut_kernels import reference


def blobs(rng: np.random.Generator, height: int, width: int, labels: int, block: int = 3) -> np.ndarray:
    blocks = rng.integers(0, labels, (height // block + 1, width // block + 1))
    return np.kron(blocks, np.ones((block, block), int))[:height, :width].astype(np.int32)


def check(ops, label_map: np.ndarray, connectivity: int, min_area: int) -> int:
    ids, count = ops.connected_components(label_map, connectivity=connectivity, min_area=min_area)
    want, want_count = reference.connected_components(label_map, connectivity=connectivity, min_area=min_area)
    assert count == want_count
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, want)
    check_labels_out(ops, label_map, want, connectivity, min_area)
    return count


def check_labels_out(ops, label_map: np.ndarray, ids: np.ndarray, connectivity: int, min_area: int) -> None:
    kept = np.where(ids > 0, label_map, 0)
    copy = label_map.copy()
    for source, labels_out in ((label_map, np.full_like(label_map, -5)), (copy, copy)):
        got, _ = ops.connected_components(
            source, connectivity=connectivity, min_area=min_area, labels_out=labels_out
        )
        np.testing.assert_array_equal(got, ids)
        np.testing.assert_array_equal(labels_out, kept)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (17, 33), (40, 31)])
@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("min_area", [1, 2, 20])
def test_matches_reference(device_ops, rng, size, connectivity, min_area):
    counts = [check(device_ops, blobs(rng, *size, labels, block), connectivity, min_area)
              for labels in (1, 2, 4) for block in (1, 3)]  # fmt: skip
    if size == (40, 31):
        assert max(counts) > 3


@pytest.mark.parametrize("connectivity", [4, 8])
def test_matches_scipy(device_ops, rng, connectivity):
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is the oracle")
    label_map = blobs(rng, 240, 320, 5, 2)
    ids, count = device_ops.connected_components(label_map, connectivity=connectivity)
    structure = np.ones((3, 3)) if connectivity == 8 else None
    total = 0
    for label in range(1, 5):
        want, found = ndimage.label(label_map == label, structure)
        total += found
        pairs = np.unique(np.stack([want[want > 0], ids[want > 0]]), axis=1)
        assert pairs.shape[1] == found, "components and ids do not correspond one to one"
    assert count == total > 100
    assert ((ids == 0) == (label_map == 0)).all()
    first = np.unique(ids[ids > 0], return_index=True)[1]
    assert (np.diff(first) > 0).all(), "ids are not in scan order"


def test_crossing_diagonals(device_ops):
    # Both pairs touch only at the same corner; a walk over runs that drops one too early misses a pair.
    label_map = np.array([[1, 1, 2, 2], [2, 2, 1, 1]], np.int32)
    assert check(device_ops, label_map, 8, 1) == 2
    assert check(device_ops, label_map, 4, 1) == 4


def test_spiral_and_comb(device_ops):
    comb = np.zeros((9, 41), np.int32)
    comb[:, ::2] = 3
    comb[-1] = 3
    assert check(device_ops, comb, 4, 1) == 1
    spiral = np.zeros((15, 15), np.int32)
    for ring in range(0, 7, 2):
        spiral[ring : 15 - ring, ring] = spiral[14 - ring, ring : 15 - ring] = 1
        spiral[ring : 15 - ring, 14 - ring] = spiral[ring, ring + 2 : 15 - ring] = 1
        spiral[ring + 2, ring : ring + 3] = 1
    check(device_ops, spiral, 4, 1)
    check(device_ops, spiral, 8, 1)


def test_extreme_maps(device_ops):
    assert check(device_ops, np.zeros((20, 21), np.int32), 8, 1) == 0
    assert check(device_ops, np.full((20, 21), 7, np.int32), 4, 1) == 1
    assert check(device_ops, np.full((20, 21), 7, np.int32), 4, 421) == 0
    checkers = (np.indices((20, 21)).sum(0) % 2).astype(np.int32)
    assert check(device_ops, checkers, 4, 1) == 210
    assert check(device_ops, checkers, 8, 1) == 1
    assert check(device_ops, np.array([[-1, -1, 0, -2]], np.int32), 8, 1) == 2
    ids, count = device_ops.connected_components(np.empty((0, 4), np.int32))
    assert (ids.shape, count) == ((0, 4), 0)


def test_out_in_place_and_strides(device_ops, rng):
    label_map = blobs(rng, 30, 40, 3)
    want, count = device_ops.connected_components(label_map)
    assert count > 3
    out = np.empty_like(label_map)
    assert device_ops.connected_components(label_map.T.copy().T, out=out)[0] is out
    np.testing.assert_array_equal(out, want)
    kept = np.empty_like(label_map)
    large, _ = device_ops.connected_components(label_map, min_area=20)
    assert 0 < np.count_nonzero(large) < np.count_nonzero(label_map)
    device_ops.connected_components(label_map[:, ::-1], min_area=20, labels_out=kept)
    np.testing.assert_array_equal(kept[:, ::-1], np.where(large, label_map, 0))
    with pytest.raises(ValueError, match="labels_out must not overlap the ids"):
        device_ops.connected_components(label_map, out=out, labels_out=out)
    device_ops.connected_components(label_map, out=label_map)
    np.testing.assert_array_equal(label_map, want)


AFTER_NOISE = """
import resource
import numpy as np
import patchcut_kernels as pk

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

noise = (np.indices((2160, 3840), np.int32).sum(0) % 2).astype(np.int32)
blank = np.zeros((64, 64), np.int32)
out = np.zeros_like(noise)
out.fill(1)
pk.connected_components(blank)
before = resident()
pk.connected_components(noise, connectivity=4, out=out)
pk.connected_components(blank)
print((resident() - before) // 2**20)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system has no /proc")
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer keeps freed memory")
def test_memory_of_a_noisy_frame_is_given_back():
    shown = subprocess.run([sys.executable, "-c", AFTER_NOISE], capture_output=True, text=True, check=True)
    assert int(shown.stdout) < 20


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    labels=st.integers(1, 4),
    connectivity=st.sampled_from([4, 8]),
    min_area=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_map(device_ops, size, labels, connectivity, min_area, seed):
    label_map = np.random.default_rng(seed).integers(0, labels + 1, size).astype(np.int32)
    check(device_ops, label_map, connectivity, min_area)


@pytest.mark.parametrize(
    ("label_map", "options", "error", "message"),
    [
        ("x", {}, TypeError, "label_map must be an array, got str"),
        (
            np.zeros(3, np.int32),
            {},
            ValueError,
            r"label_map must be \[H, W\] or \[b, H, W\], got shape \(3,\)",
        ),
        (np.zeros((3, 3), np.int64), {}, TypeError, "label_map must be int32, got int64"),
        (np.zeros((3, 3), np.int32), {"connectivity": 6}, ValueError, "connectivity must be 4 or 8, got 6"),
        (np.zeros((3, 3), np.int32), {"min_area": 0}, ValueError, "min_area must be at least 1"),
        (np.zeros((3, 3), np.int32), {"min_area": 1.5}, TypeError, "min_area must be an int"),
        (np.zeros((3, 3), np.int32), {"out": np.zeros((3, 4), np.int32)}, ValueError, "out must have shape"),
        (np.zeros((3, 3), np.int32), {"labels_out": np.zeros(3)}, ValueError, "labels_out must have shape"),
    ],
)
def test_errors(label_map, options, error, message):
    with pytest.raises(error, match=r"^\[connected_components\] " + message):
        pk.connected_components(label_map, **options)
