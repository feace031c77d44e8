"""rle_encode and rle_decode, which are each other's inverse."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import patchcut_kernels as pk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patchcut_kernels import reference

from tests.kernels.backends import ops_on_cuda


def blobs(rng: np.random.Generator, count: int, size_hw: tuple[int, int]) -> np.ndarray:
    """[count, H, W] bool, blocks of about 30 pixels."""
    height, width = size_hw
    blocks = rng.random((count, height // 30 + 1, width // 30 + 1)) > 0.6
    return np.kron(blocks, np.ones((1, 30, 30), bool))[:, :height, :width]


def encode(ops, masks: np.ndarray, count: int | None = None, *, compressed: bool = True) -> list:
    """Rles as `pk.rle_encode` gives them on the CPU, in one flat list."""
    stacked = masks if masks.ndim == 3 else masks[None]
    if ops.backend != "cuda":
        rles = ops.rle_encode(stacked, count, compressed=compressed)
        return rles if count is None else [rle for item in rles for rle in item]
    lengths = ops.rle_encode(stacked, count)
    if lengths.offsets[-1] > len(lengths.runs):
        with pytest.raises(ValueError, match=rf"^\[RunLengths\] .* for {lengths.offsets[-1]} runs, got"):
            lengths.rles()
        lengths = ops.rle_encode(
            stacked, count, out=room(lengths.size_hw, len(lengths.offsets) - 1, lengths.offsets[-1])
        )
    return lengths.rles(compressed=compressed)


def room(size_hw: tuple[int, int], items: int, capacity: int) -> pk.RunLengths:
    return pk.RunLengths(size_hw, np.zeros(capacity, np.uint32), np.empty(items + 1, np.int64))


def run_lengths(size_hw: tuple[int, int], counts: list[list[int]]) -> pk.RunLengths:
    runs = np.array([run for item in counts for run in item], np.uint32)
    return pk.RunLengths(size_hw, runs, np.cumsum([0, *map(len, counts)], dtype=np.int64))


# Steps are 64 bytes of a row, words 64 rows of a column, 32 on CUDA, groups 16 masks.
SIZES = [(0, 0), (0, 3), (3, 0), (1, 1), (1, 70), (70, 1), (5, 7), (63, 64), (64, 65), (65, 63), (129, 127)]


@pytest.mark.parametrize("size_hw", SIZES)
@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
def test_matches_reference(device_ops, rng, size_hw, density):
    masks = rng.random((3, *size_hw)) < density
    rles = encode(device_ops, masks)
    assert rles == [reference.rle_encode(mask) for mask in masks]
    assert encode(device_ops, masks[1]) == [rles[1]]
    counts = [reference.run_lengths(mask) for mask in masks]
    assert [rle["counts"] for rle in encode(device_ops, masks, compressed=False)] == counts
    for rle, mask in zip(rles, masks, strict=True):
        np.testing.assert_array_equal(reference.rle_decode(rle), mask)
    np.testing.assert_array_equal(device_ops.rle_decode(run_lengths(size_hw, counts)), masks)


def test_lists_and_single_masks(rng):
    masks = blobs(rng, 3, (50, 70))
    rles = pk.rle_encode(masks)
    assert pk.rle_encode(masks[1]) == rles[1]
    np.testing.assert_array_equal(pk.rle_decode(rles[1]), masks[1])
    np.testing.assert_array_equal(pk.rle_decode(rles), masks)


def test_run_lengths_go_out_and_back_in(device_ops, rng):
    masks = blobs(rng, 5, (130, 170))
    out = room((130, 170), 5, 9000)
    assert device_ops.rle_encode(masks, out=out) is out
    assert out.rles() == pk.rle_encode(masks)
    decoded = np.ones_like(masks)
    assert device_ops.rle_decode(out, out=decoded) is decoded
    np.testing.assert_array_equal(decoded, masks)


def test_bytes_are_those_of_pycocotools(rng):
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is in the extra `test`")
    noise = rng.random((4, 71, 90)) < np.array([0.001, 0.1, 0.5, 0.999])[:, None, None]
    for masks in (noise, blobs(rng, 40, (480, 640)), np.ones((1, 300, 400), bool)):
        rles = pk.rle_encode(masks)
        theirs = coco.encode(np.asfortranarray(masks.transpose(1, 2, 0).view(np.uint8)))
        assert rles == theirs
        np.testing.assert_array_equal(coco.decode(rles), masks.transpose(1, 2, 0))
        np.testing.assert_array_equal(coco.area(rles), masks.sum((1, 2)))
        np.testing.assert_array_equal(pk.rle_decode(theirs), masks)


def test_ids_are_read_once_for_all_masks(device_ops, rng):
    ids = np.kron(rng.integers(0, 6, (7, 9)), np.ones((21, 17), int)).astype(np.int32)
    ids[ids == 4] = 0
    wanted = pk.rle_encode(ids[None] == np.arange(1, 6)[:, None, None])
    assert encode(device_ops, ids, 5) == wanted
    assert encode(device_ops, ids, 7) == wanted + pk.rle_encode(np.zeros((2, *ids.shape), bool))
    flipped = encode(device_ops, np.ascontiguousarray(ids[::-1]), 5)
    assert encode(device_ops, np.stack([ids, ids[::-1]]), 5) == wanted + flipped
    assert pk.rle_encode(np.stack([ids, ids[::-1]]), 5) == [wanted, flipped]
    assert encode(device_ops, np.zeros_like(ids), 0) == []
    assert encode(device_ops, np.zeros((0, 3, 4), np.int32), 2) == []


def test_more_runs_than_guessed(device_ops):
    """A chessboard has a run for each pixel."""
    board = np.indices((150, 4)).sum(0) % 2 == 1
    rles = encode(device_ops, board, compressed=False)
    assert len(rles[0]["counts"]) > 4 * 4 + 64
    assert rles[0]["counts"] == reference.run_lengths(board)
    assert encode(device_ops, board.astype(np.int32), 1, compressed=False) == rles


def test_more_counts_than_are_kept(device_ops, rng):
    """On CUDA 2^20 counts of ids and columns are kept, and more columns are counted together."""
    ids = rng.integers(0, 300, (2, 4000)).astype(np.int32)
    rles = encode(device_ops, ids, 299, compressed=False)
    assert [rle["counts"] for rle in rles] == [reference.run_lengths(ids == i) for i in range(1, 300)]


def test_values_that_cuda_does_not_check():
    ops = ops_on_cuda()
    ids = np.array([[0, 1, 9], [-1, 2, -(2**31)]], np.int32)
    assert encode(ops, ids, 2) == pk.rle_encode(np.stack([ids == 1, ids == 2]))
    runs = np.array([2, 3, 0, 2**32 - 1, 2**32 - 1, 1, 4, 1], np.uint32)
    offsets = np.array([0, 2, 5, 7, 100, -5])
    masks = ops.rle_decode(pk.RunLengths((2, 3), runs, offsets))
    assert masks.transpose(0, 2, 1).reshape(5, 6).astype(int).tolist() == [
        [0, 0, 1, 1, 1, 0],
        [1, 1, 1, 1, 1, 1],
        [0, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]


def test_threads_do_not_change_a_bit(rng, for_thread_counts):
    masks = blobs(rng, 37, (130, 170))
    ids = masks.astype(np.int32).argmax(0).astype(np.int32)
    for_thread_counts(lambda: np.frombuffer(b"".join(rle["counts"] for rle in pk.rle_encode(masks)), "u1"))
    for_thread_counts(lambda: np.frombuffer(b"".join(rle["counts"] for rle in pk.rle_encode(ids, 36)), "u1"))
    rles = pk.rle_encode(masks)
    for_thread_counts(lambda: pk.rle_decode(rles))


def test_strides_out_and_bytes_that_are_not_one(device_ops, rng):
    masks = blobs(rng, 3, (90, 110))
    wanted = pk.rle_encode(masks)
    assert pk.rle_encode(np.asfortranarray(masks)) == wanted
    assert pk.rle_encode(np.repeat(masks, 2, axis=2)[:, :, ::2]) == wanted
    loud = (masks * rng.integers(1, 256, masks.shape)).astype(np.uint8).view(np.bool_)
    assert encode(device_ops, loud) == wanted
    out = np.empty_like(masks)
    assert pk.rle_decode(wanted, out=out) is out
    np.testing.assert_array_equal(out, masks)


def test_text_that_json_takes(rng):
    masks = blobs(rng, 2, (50, 40))
    ids = masks.argmax(0).astype(np.int32)
    rles = json.loads(json.dumps(pk.rle_encode(masks, text=True)))
    assert rles == [{**rle, "counts": rle["counts"].decode()} for rle in pk.rle_encode(masks)]
    np.testing.assert_array_equal(pk.rle_decode(rles), masks)
    assert json.loads(json.dumps(pk.rle_encode(ids, 1, text=True))) == [pk.rle_encode(ids == 1, text=True)]
    assert pk.rle_encode(masks, compressed=False, text=True) == pk.rle_encode(masks, compressed=False)
    out = pk.rle_encode(masks, out=room((50, 40), 2, 9000))
    assert out.rles(text=True) == rles


def test_uint8_masks_as_pycocotools_has_them(rng):
    masks = blobs(rng, 3, (63, 70))
    for ones in (1, 255):
        theirs = masks.astype(np.uint8) * np.uint8(ones)
        assert pk.rle_encode(theirs) == pk.rle_encode(masks)
        assert (
            pk.rle_encode(theirs[1]) == pk.rle_encode(np.asfortranarray(theirs[1])) == pk.rle_encode(masks[1])
        )
        assert pk.rle_encode(theirs[:, ::-2, ::3]) == pk.rle_encode(masks[:, ::-2, ::3])
        frozen = theirs[0].copy()
        frozen.flags.writeable = False
        assert pk.rle_encode(frozen) == pk.rle_encode(masks[0])


@pytest.mark.parametrize(
    "counts", [[3, 1, 4, 1, 3], [3, 0, 0, 1, 4, 1, 3], [3, 1, 4, 1, 3, 0, 0], [0, 0, 3, 1, 2, 0, 2, 1, 3]]
)
def test_runs_of_zero_may_be_anywhere(device_ops, counts):
    (mask,) = device_ops.rle_decode(run_lengths((4, 3), [counts]))
    np.testing.assert_array_equal(np.flatnonzero(mask.T), [3, 8])
    text = reference.rle_text(counts)
    np.testing.assert_array_equal(pk.rle_decode({"size": [4, 3], "counts": text}), mask)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size_hw=st.tuples(st.integers(0, 80), st.integers(0, 80)),
    count=st.integers(0, 20),
    density=st.sampled_from([0.01, 0.5, 0.99]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_masks(device_ops, size_hw, count, density, seed):
    rng = np.random.default_rng(seed)
    masks = rng.random((count, *size_hw)) < density
    rles = encode(device_ops, masks, compressed=False)
    counts = [rle["counts"] for rle in rles]
    assert counts == [reference.run_lengths(mask) for mask in masks]
    assert encode(device_ops, masks) == [reference.rle_encode(mask) for mask in masks]
    np.testing.assert_array_equal(device_ops.rle_decode(run_lengths(size_hw, counts)), masks)
    ids = (masks.any(0) * rng.integers(0, 4, size_hw)).astype(np.int32)
    assert encode(device_ops, ids, 3) == pk.rle_encode(ids[None] == np.arange(1, 4)[:, None, None])


@settings(max_examples=300, deadline=None)
@given(
    counts=st.one_of(
        st.binary(max_size=12), st.binary(max_size=12).map(lambda b: bytes(48 + c % 64 for c in b))
    )
)
def test_any_text(counts):
    """Damaged text is an error or a mask of the right size, never more."""
    try:
        mask = pk.rle_decode({"size": [9, 7], "counts": counts})
    except ValueError as error:
        assert str(error).startswith("[rle_decode] counts")
    else:
        assert mask.shape == (9, 7)


MASK = np.ones((3, 4), bool)
IDS = np.array([[0, 1], [2, 3]], np.int32)


@pytest.mark.parametrize(
    ("masks", "count", "error", "message"),
    [
        (MASK.tolist(), None, TypeError, "masks must be an array, got list"),
        (MASK[0], None, ValueError, r"masks must be \[H, W\] or \[m, H, W\], got shape \(4,\)"),
        (
            MASK.astype(float),
            None,
            TypeError,
            "masks must be bool or uint8, or int32 with count, got float64",
        ),
        (IDS, None, TypeError, "masks must be bool or uint8, or int32 with count, got int32"),
        (MASK, 1, TypeError, "masks must be bool or uint8, or int32 with count, got bool"),
        (MASK.view(np.uint8), 1, TypeError, "masks must be .* or int32 with count, got uint8"),
        (np.broadcast_to(True, (2**16, 2**16)), None, ValueError, r"masks must be below 2\^31 - 1 pixels"),
        (IDS, -1, ValueError, "count must be at least 0, got -1"),
        (IDS, 1.5, TypeError, "count must be an int, got float"),
        (IDS, 2, ValueError, r"ids must be in \[0, 2\], got 3"),
        (-IDS, 3, ValueError, r"ids must be in \[0, 3\], got -"),
    ],
)
def test_encode_errors(masks, count, error, message):
    with pytest.raises(error, match=r"^\[rle_encode\] " + message):
        pk.rle_encode(masks, count)


def rle(size: object, counts: object) -> dict:
    return {"size": size, "counts": counts}


@pytest.mark.parametrize(
    ("rles", "error", "message"),
    [
        ("x", TypeError, "rles must be an Rle or a list of them, got str"),
        (["x"], TypeError, "an Rle must be a dict with"),
        ({"size": [1, 2]}, TypeError, "an Rle must be a dict with"),
        (rle([1], b""), ValueError, r"size must be \[height, width\], got \[1\]"),
        (rle([1, 2.0], b""), TypeError, r"size\[1\] must be an int, got float"),
        (rle([-1, 2], b""), ValueError, r"size\[0\] must be 0 to "),
        (rle([2**16, 2**16], b""), ValueError, r"size must be below 2\^31 - 1 pixels"),
        (
            [rle([1, 2], [2]), rle([2, 1], [2])],
            ValueError,
            r"size of all rles must be \[1, 2\], got \[2, 1\]",
        ),
        (rle([1, 2], 2), TypeError, "counts must be bytes, str or a list of ints, got int"),
        (rle([1, 2], [2.0]), TypeError, "counts must be an int, got float"),
        (rle([1, 2], [3, -1]), ValueError, "counts must be 0 to 4294967295, got -1"),
        (rle([1, 2], [2**32, 2]), ValueError, "counts must be 0 to 4294967295, got 4294967296"),
        (rle([1, 2], [1]), ValueError, "counts of item 0 must sum to 2 pixels, got 1"),
        (
            [rle([1, 2], [2]), rle([1, 2], [2**31] * 2)],
            ValueError,
            "counts of item 1 must sum to 2 pixels, got",
        ),
        (rle([1, 2], b"2 "), ValueError, "counts must be letters of COCO's text"),
        (rle([1, 2], "2é"), ValueError, "counts must be letters of COCO's text"),
        (rle([1, 2], b"2o"), ValueError, "counts end within a number"),
        (rle([1, 2], b"oooooooo"), ValueError, "counts hold a number of more than 7 letters"),
        (rle([1, 2], b"O"), ValueError, "counts hold a run of -1 pixels"),
    ],
)
def test_decode_errors(rles, error, message):
    with pytest.raises(error, match=r"^\[rle_decode\] " + message):
        pk.rle_decode(rles)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ([0], TypeError, "out must be an array"),
        (np.empty((4, 3), bool), ValueError, r"out must have shape \(3, 4\)"),
        (np.empty((3, 4), np.uint8), TypeError, "out must be bool, got uint8"),
        (np.broadcast_to(False, (3, 4)), ValueError, "out must be writable"),
        (np.empty((4, 3), bool).T, ValueError, "out must be C-contiguous"),
    ],
)
def test_decode_refuses_an_out_of_another_kind(out, error, message):
    with pytest.raises(error, match=r"^\[rle_decode\] " + message):
        pk.rle_decode(pk.rle_encode(MASK), out=out)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ([], TypeError, "out must be RunLengths, got list"),
        (room((4, 3), 1, 5), ValueError, r"out.size_hw must be \(3, 4\), got \(4, 3\)"),
        (room((3, 4), 2, 5), ValueError, r"out.offsets must have shape \(2,\), got \(3,\)"),
        (pk.RunLengths((3, 4), MASK, IDS), ValueError, r"out.runs must have shape \(12,\), got \(3, 4\)"),
        (pk.RunLengths((3, 4), IDS[0], IDS[0]), TypeError, "out.runs must be uint32, got int32"),
    ],
)
def test_encode_refuses_an_out_of_another_kind(out, error, message):
    with pytest.raises(error, match=r"^\[rle_encode\] " + message):
        pk.rle_encode(MASK, out=out)


LENGTHS = run_lengths((3, 4), [[0, 12]])


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"size_hw": (3, -4)}, ValueError, r"size_hw\[1\] must be 0 to "),
        ({"runs": [0, 12]}, TypeError, "runs must be an array, got list"),
        ({"runs": IDS[0]}, TypeError, "runs must be uint32, got int32"),
        ({"offsets": np.empty(0, np.int64)}, ValueError, r"offsets must be \[m \+ 1\], got shape \(0,\)"),
        ({"offsets": np.array([0, 3])}, ValueError, "offsets must be 0 to 2, the capacity, and never fall"),
        ({"offsets": np.array([2, 0])}, ValueError, "offsets must be 0 to 2, the capacity, and never fall"),
        ({"offsets": np.array([0, 1])}, ValueError, "counts of item 0 must sum to 12 pixels, got 0"),
    ],
)
def test_decode_refuses_bad_run_lengths(changed, error, message):
    with pytest.raises(error, match=r"^\[rle_decode\] " + message):
        pk.rle_decode(dataclasses.replace(LENGTHS, **changed))


@pytest.mark.parametrize(
    ("runs", "offsets", "error", "message"),
    [
        (np.zeros(3), [0, 3], TypeError, "runs must be uint32, got float64"),
        (np.zeros(3, np.uint32), [], ValueError, "offsets must begin with 0 and never fall"),
        (np.zeros(3, np.uint32), [0, 2, 1], ValueError, "offsets must begin with 0 and never fall"),
        (np.zeros(3, np.uint32), [-1, 3], ValueError, "offsets must begin with 0 and never fall"),
        (np.zeros(3, np.uint32), [0, 4], ValueError, "runs must have room for 4 runs, got 3"),
    ],
)
def test_bad_run_lengths_give_no_rles(runs, offsets, error, message):
    with pytest.raises(error, match=r"^\[RunLengths\] " + message):
        pk.RunLengths((1, 2), runs, np.array(offsets, np.int64)).rles()
