from __future__ import annotations

from functools import partial

import cv2
import numpy as np
import patchcut_kernels as pk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patchcut_kernels import reference
from scipy.ndimage import uniform_filter

from tests.kernels.refine import blocks

make_frame = partial(blocks.make_frame, cell=9, noise=6)
make_map = partial(blocks.make_map, cell=13)

# Strips are 64 rows, or 32 of what subsampling leaves; vectors have up to 16 pixels.
# Tiles on CUDA are 16 x 128.
SIZES = [(1, 1), (1, 40), (40, 1), (2, 3), (17, 15), (64, 16), (65, 33), (17, 129), (131, 70)]


@pytest.mark.parametrize("size_hw", SIZES)
@pytest.mark.parametrize(("radius", "subsample"), [(1, 1), (4, 1), (8, 1), (21, 1), (3, 2), (8, 3), (16, 4)])
def test_matches_reference(ops, rng, size_hw, radius, subsample):
    frame, soft = make_frame(rng, size_hw), make_map(rng, size_hw)
    got = ops.guided_refine(frame, soft, radius, 1e-3, subsample=subsample)
    want = reference.guided_refine(frame, soft, radius, 1e-3, subsample=subsample)
    assert got.dtype == np.float32
    assert min(size_hw) < 40 or np.ptp(want) > 0.1
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)


@pytest.mark.parametrize("subsample", [1, 4])
def test_real_size(ops, rng, assert_close, subsample):
    frame, soft = make_frame(rng, (480, 640)), make_map(rng, (480, 640), cell=40)
    want = reference.guided_refine(frame, soft, 8, 1e-3, subsample=subsample)
    assert_close("guided_refine", ops.guided_refine(frame, soft, 8, 1e-3, subsample=subsample), want)
    assert np.abs(want - soft).max() > 0.2


def check_labels(got: np.ndarray, frame: np.ndarray, labels: np.ndarray, radius: int, subsample: int) -> None:
    """The same as the reference's wherever its best label leads by more than rounding."""
    names = np.unique(labels)
    indicators = np.stack(
        [
            reference.guided_filter(
                frame / 255, (labels == name).astype(float), radius, 1e-3, subsample=subsample
            )
            for name in names
        ]
    )
    ranked = np.sort(indicators, axis=0)
    clear = np.ones(labels.shape, bool) if len(names) == 1 else ranked[-1] - ranked[-2] > 1e-4
    want = names[indicators.argmax(0)]
    assert got.dtype == np.int32
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(got[clear], want[clear])


@pytest.mark.parametrize(
    "names", [[4], [0, 1], [-3, 0, 7], list(range(9)), [5, 2**31 - 1, -(2**31), 3, 4, 0]]
)
@pytest.mark.parametrize(("radius", "subsample"), [(3, 1), (9, 1), (8, 4)])
def test_label_maps_match_reference(ops, rng, names, radius, subsample):
    size_hw = (99, 140)
    frame = make_frame(rng, size_hw)
    indices = (make_map(rng, size_hw, cell=19) * len(names)).astype(np.int32)
    # On CUDA labels are counted.
    labels = indices if ops.backend == "cuda" else np.array(names, np.int32)[indices]
    got = ops.guided_refine(frame, labels, radius, 1e-3, subsample=subsample, count=len(names))
    check_labels(got, frame, labels, radius, subsample)
    assert len(names) == 1 or 0.01 < (got != labels).mean() < 0.5


def test_a_label_in_a_corner_and_one_of_a_single_pixel(ops, rng):
    """Labels are filtered where they are, not in the whole frame."""
    frame = make_frame(rng, (90, 120))
    labels = np.zeros((90, 120), np.int32)
    labels[:7, :9] = 3
    labels[80:, 100:] = 1
    labels[70, 30] = 2
    labels[63:66, 50:90] = 5
    for subsample in (1, 2, 5):
        got = ops.guided_refine(frame, labels, 6, 1e-3, subsample=subsample, count=7)
        check_labels(got, frame, labels, 6, subsample)


def scipy_guided_filter(frame: np.ndarray, soft: np.ndarray, radius: int, eps: float) -> np.ndarray:
    """The filter as its paper's pseudocode has it, by another library's box filter."""

    def mean(values: np.ndarray) -> np.ndarray:
        size = [2 * radius + 1] * 2 + [1] * (values.ndim - 2)
        return uniform_filter(values, size, mode="reflect")

    guide, p = frame / 255, soft.astype(np.float64)
    mean_i, mean_p = mean(guide), mean(p)
    covariance = mean(guide[..., None] * guide[..., None, :]) - mean_i[..., None] * mean_i[..., None, :]
    cross = mean(guide * p[..., None]) - mean_i * mean_p[..., None]
    a = np.einsum("yxij,yxj->yxi", np.linalg.inv(covariance + eps * np.eye(3)), cross)
    b = mean_p - (a * mean_i).sum(-1)
    return (mean(a) * guide).sum(-1) + mean(b)


@pytest.mark.parametrize(("radius", "eps"), [(2, 1e-2), (8, 1e-3), (8, 1e-4), (33, 1e-3), (70, 1e-3)])
def test_scipy_as_an_oracle(ops, rng, radius, eps):
    frame, soft = make_frame(rng, (120, 160)), make_map(rng, (120, 160))
    got = ops.guided_refine(frame, soft, radius, eps)
    np.testing.assert_allclose(got, scipy_guided_filter(frame, soft, radius, eps), rtol=0, atol=1e-5)


@pytest.mark.parametrize("radius", [4, 8, 16])
def test_opencv_as_an_oracle(isa, rng, radius):
    if not hasattr(cv2, "ximgproc"):
        pytest.skip("cv2.ximgproc is in opencv-contrib-python-headless, see CONTRIBUTING.md")
    frame, soft = make_frame(rng, (480, 640)), make_map(rng, (480, 640), cell=40)
    theirs = cv2.ximgproc.guidedFilter(frame, soft, radius, 1e-3 * 255**2)
    np.testing.assert_allclose(pk.guided_refine(frame, soft, radius, 1e-3), theirs, rtol=0, atol=1e-4)


def test_subsampling_stays_near_the_full_filter(ops, rng):
    """Of smooth maps, such as heads make."""
    frame = make_frame(rng, (240, 320))
    soft = cv2.resize(rng.random((8, 10)).astype(np.float32), (320, 240))
    exact = ops.guided_refine(frame, soft, 8, 1e-3)
    for subsample in (2, 4):
        fast = ops.guided_refine(frame, soft, 8, 1e-3, subsample=subsample)
        assert 0 < np.abs(fast - exact).mean() < 2 / 255
    assert np.abs(exact - soft).mean() > 2 / 255


def test_grey_frames(ops, rng):
    """All channels the same: the covariance has rank 1."""
    frame = np.repeat(make_frame(rng, (60, 80))[..., :1], 3, axis=2)
    frame[:30] = np.where(frame[:30] > 128, 255, 0)
    soft = make_map(rng, (60, 80))
    for eps in (1e-2, 1e-4):
        got = ops.guided_refine(frame, soft, 5, eps)
        np.testing.assert_allclose(got, reference.guided_refine(frame, soft, 5, eps), rtol=0, atol=5e-4)


def test_a_map_whose_sums_are_zero(ops, rng):
    """Down each column of each window; the frame's products with the map are not."""
    frame = make_frame(rng, (30, 40))
    soft = np.tile(np.float32([1, -0.5, -0.5]), 10)[:, None] * np.ones((30, 40), np.float32)
    want = reference.guided_refine(frame, soft, 1, 1e-3)
    assert np.ptp(want) > 0.2
    np.testing.assert_allclose(ops.guided_refine(frame, soft, 1, 1e-3), want, rtol=0, atol=2e-5)


def test_a_mask_follows_the_edge_of_an_object(ops, rng):
    yy, xx = np.mgrid[:160, :200]
    inside = (yy - 80) ** 2 + (xx - 95) ** 2 < 50**2
    frame = np.where(inside[..., None], [40, 180, 60], [200, 90, 140]) + rng.normal(0, 5, (160, 200, 3))
    frame = np.clip(frame, 0, 255).astype(np.uint8)
    low = np.kron(inside[8::16, 8::16], np.ones((16, 16))).astype(np.int32)[:160, :200]
    low = np.pad(low, ((0, 0), (0, 200 - low.shape[1])), mode="edge")
    before = (low == inside).mean()
    for subsample in (1, 4):
        refined = ops.guided_refine(frame, low, 12, 1e-3, subsample=subsample, count=2)
        assert (refined == inside).mean() > 1 - (1 - before) / 3


def test_planes_and_batches(ops, rng):
    frames = np.stack([make_frame(rng, (40, 50)) for _ in range(2)])
    maps = np.stack([[make_map(rng, (40, 50)) for _ in range(6)] for _ in range(2)])
    labels = (maps[:, 0] * 4).astype(np.int32)
    each = np.stack(
        [[ops.guided_refine(f, m, 5, 1e-3) for m in ms] for f, ms in zip(frames, maps, strict=True)]
    )
    np.testing.assert_array_equal(ops.guided_refine(frames, maps, 5, 1e-3), each)
    np.testing.assert_array_equal(ops.guided_refine(frames[0], maps[0], 5, 1e-3), each[0])
    np.testing.assert_array_equal(ops.guided_refine(frames, maps[:, 3], 5, 1e-3), each[:, 3])
    both = np.stack([ops.guided_refine(frames[b], labels[b], 5, 1e-3, count=4) for b in range(2)])
    np.testing.assert_array_equal(ops.guided_refine(frames, labels, 5, 1e-3, count=4), both)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 4, 5), (3, 0, 5)])
def test_nothing_to_do(ops, shape):
    frame, label_map = np.zeros((*shape[-2:], 3), np.uint8), np.zeros(shape, np.int32)
    assert ops.guided_refine(frame, np.zeros(shape, np.float32), 3, 0.1).shape == shape
    if len(shape) == 2:
        assert ops.guided_refine(frame, label_map, 3, 0.1, subsample=3, count=2).shape == shape
    no_frames, no_labels = np.zeros((0, 4, 5, 3), np.uint8), np.zeros((0, 4, 5), np.int32)
    assert ops.guided_refine(no_frames, no_labels, 3, 0.1, count=2).shape == (0, 4, 5)


def test_labels_are_counted_on_cuda(rng):
    if not pk.cuda.is_available():
        pytest.skip(pk.cuda.why_unavailable())
    frame = make_frame(rng, (40, 50))
    labels = (make_map(rng, (40, 50)) * 5).astype(np.int32)
    on_device = pk.cuda.to_device(frame), pk.cuda.to_device(labels)
    with pytest.raises(
        TypeError, match=r"^\[guided_refine\] count must be an int where label maps lie on CUDA"
    ):
        pk.guided_refine(*on_device, 3, 1e-3)
    few = pk.guided_refine(*on_device, 3, 1e-3, count=3).numpy()
    check_labels(few, frame, np.minimum(labels, 2), 3, 1)


def test_out_strides_and_read_only(isa, rng):
    frame, soft = make_frame(rng, (30, 44)), make_map(rng, (30, 44))
    want = pk.guided_refine(frame, soft, 4, 1e-3)
    out = np.empty_like(soft)
    assert pk.guided_refine(frame, soft, 4, 1e-3, out=out) is out
    np.testing.assert_array_equal(out, want)
    wide = np.repeat(soft, 2, axis=1)[:, ::2]
    turned = np.asfortranarray(frame)
    turned.flags.writeable = False
    np.testing.assert_array_equal(pk.guided_refine(turned, wide, 4, 1e-3), want)


@pytest.mark.parametrize("subsample", [1, 4])
def test_threads_do_not_change_a_bit(isa, rng, for_thread_counts, subsample):
    frame, maps = make_frame(rng, (300, 210)), np.stack([make_map(rng, (300, 210)) for _ in range(5)])
    labels = (maps[0] * 7).astype(np.int32)
    for_thread_counts(lambda: pk.guided_refine(frame, maps, 6, 1e-3, subsample=subsample))
    for_thread_counts(lambda: pk.guided_refine(frame, labels, 6, 1e-3, subsample=subsample))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size_hw=st.tuples(st.integers(1, 80), st.integers(1, 40)),
    radius=st.integers(1, 45),
    subsample=st.integers(1, 9),
    eps=st.sampled_from([1e-3, 1e-2, 1.0, 1e4]),
    seed=st.integers(0, 2**32 - 1),
    bad=st.sampled_from([None, None, None, np.nan, np.inf, -np.inf]),
)
def test_any_input(ops, size_hw, radius, subsample, eps, seed, bad):
    rng = np.random.default_rng(seed)
    frame, soft = make_frame(rng, size_hw), make_map(rng, size_hw, cell=5)
    options = {"subsample": subsample}
    if bad is not None and ops.checks_values:
        soft[rng.integers(size_hw[0]), rng.integers(size_hw[1])] = bad
        with pytest.raises(ValueError, match=r"^\[guided_refine\] maps must be finite"):
            ops.guided_refine(frame, soft, radius, eps, **options)
        return
    got = ops.guided_refine(frame, soft, radius, eps, **options)
    want = reference.guided_refine(frame, soft, radius, eps, **options)
    # Windows of one pixel leave only the rounding errors of products in its covariances.
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)
    scaled = ops.guided_refine(frame, 8 * soft - 2, radius, eps, **options)
    np.testing.assert_allclose(scaled, 8 * got - 2, rtol=0, atol=8e-4)
    mirrored = ops.guided_refine(frame[::-1], soft[::-1], radius, eps)[::-1]
    np.testing.assert_allclose(mirrored, ops.guided_refine(frame, soft, radius, eps), rtol=0, atol=2e-5)
    labels = (3 * soft).astype(np.int32)
    refined = ops.guided_refine(frame, labels, radius, eps, **options, count=3)
    assert np.isin(refined, labels).all()


FRAME = np.zeros((4, 6, 3), np.uint8)
MAP = np.zeros((4, 6), np.float32)


@pytest.mark.parametrize(
    ("frame", "maps", "options", "error", "message"),
    [
        (FRAME.tolist(), MAP, {}, TypeError, "frame must be an array, got list"),
        (FRAME[0], MAP, {}, ValueError, r"frame must be \[H, W, 3\] or \[b, H, W, 3\], got shape \(6, "),
        (
            FRAME[..., :2],
            MAP,
            {},
            ValueError,
            r"frame must be \[H, W, 3\] or \[b, H, W, 3\], got shape \(4, 6, 2\)",
        ),
        (FRAME.astype(np.float32), MAP, {}, TypeError, "frame must be uint8, got float32"),
        (FRAME, [0.0], {}, TypeError, "maps must be an array, got list"),
        (
            FRAME,
            MAP[0],
            {},
            ValueError,
            r"maps must be \[H, W\] or \[k, H, W\] or \[b, k, H, W\], got",
        ),
        (
            FRAME[None],
            MAP,
            {},
            ValueError,
            r"maps must be \[b, H, W\] or \[b, k, H, W\] for a batch of frames",
        ),
        (FRAME, MAP[None, None], {}, ValueError, r"maps must be \[H, W\] or \[k, H, W\] for one frame, got"),
        (FRAME, MAP.astype(np.int32)[None], {}, ValueError, r"label maps must be \[H, W\] for one frame"),
        (FRAME, MAP[:, :5], {}, ValueError, r"maps must have shape \(4, 6\), got \(4, 5\)"),
        (FRAME[None], MAP[None, None, :2], {}, ValueError, r"maps must have shape \(1, 1, 4, 6\)"),
        (
            FRAME[None],
            np.stack([MAP, MAP]),
            {},
            ValueError,
            r"maps must have shape \(1, 4, 6\), got \(2, 4, 6\)",
        ),
        (FRAME, MAP.astype(np.float64), {}, TypeError, "maps must be float32 or int32, got float64"),
        (FRAME, MAP, {"radius": 0}, ValueError, "radius must be 1 to 65536, got 0"),
        (FRAME, MAP, {"radius": 2.0}, TypeError, "radius must be an int, got float"),
        (FRAME, MAP, {"eps": 0.0}, ValueError, "eps must be above 0"),
        (FRAME, MAP, {"eps": float("nan")}, ValueError, "eps must be above 0"),
        (FRAME, MAP, {"subsample": 0}, ValueError, "subsample must be 1 to 65536, got 0"),
        (FRAME, MAP.astype(np.int32), {"count": 0}, ValueError, "count must be 1 to 2147483647, got 0"),
        (FRAME, MAP, {"out": MAP}, ValueError, "out must not overlap an input"),
        (FRAME, MAP, {"out": MAP.astype(np.int32)}, TypeError, "out must be float32, got int32"),
        (FRAME, MAP, {"out": np.empty((6, 4), np.float32)}, ValueError, r"out must have shape \(4, 6\)"),
        (FRAME, MAP, {"out": np.empty((6, 4), np.float32).T}, ValueError, "out must be C-contiguous"),
        (FRAME, MAP, {"out": np.broadcast_to(np.float32(0), (4, 6))}, ValueError, "out must be writable"),
    ],
)
def test_errors(frame, maps, options, error, message):
    with pytest.raises(error, match=r"^\[guided_refine\] " + message):
        pk.guided_refine(frame, maps, **{"radius": 2, "eps": 0.1, **options})
