from __future__ import annotations

import numpy as np
import patchcut_kernels as pk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patchcut_kernels import reference

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

SIZES = [
    ((1, 1), (1, 1)),
    ((1, 1), (5, 3)),
    ((7, 5), (7, 5)),
    ((9, 30), (4, 7)),
    ((30, 9), (7, 20)),
    ((65, 129), (64, 64)),
    ((64, 96), (65, 97)),
    ((480, 640), (224, 224)),
    ((100, 120), (224, 448)),
    ((448, 448), (224, 224)),
]


def random_frame(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("frame_hw", "size_hw"), SIZES)
@pytest.mark.parametrize("color", ["bgr", "rgb"])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_matches_reference(ops, rng, assert_close, frame_hw, size_hw, color, fit):
    frame = random_frame(rng, *frame_hw)
    got = ops.preprocess(frame, size_hw, MEAN, STD, color=color, fit=fit)
    assert_close("preprocess", got, reference.preprocess(frame, size_hw, MEAN, STD, color=color, fit=fit))


@pytest.mark.parametrize(("frame_hw", "size_hw"), SIZES)
def test_matches_opencv(ops, rng, frame_hw, size_hw):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is the oracle")
    frame = random_frame(rng, *frame_hw)
    resized = frame.astype(np.float32)
    for axis, size in enumerate(size_hw):
        to = (resized.shape[1], size) if axis == 0 else (size, resized.shape[0])
        how = cv2.INTER_AREA if size < frame_hw[axis] else cv2.INTER_LINEAR
        resized = cv2.resize(resized, to, interpolation=how).reshape(to[1], to[0], 3)
    want = (resized[:, :, ::-1] / 255 - MEAN) / STD
    got = ops.preprocess(frame, size_hw, MEAN, STD)
    # OpenCV rounds its bilinear coordinates to float32.
    np.testing.assert_allclose(got, want.transpose(2, 0, 1), rtol=0, atol=2e-4)


@pytest.mark.parametrize(("frame_hw", "size_hw"), [((2, 2), (3, 5)), ((48, 64), (32, 33)), ((240, 320), 112)])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_nv12(ops, rng, assert_close, frame_hw, size_hw, fit, dtype):
    height, width = frame_hw
    frames = rng.integers(0, 256, (2, height * 3 // 2, width), dtype=np.uint8)
    got = ops.preprocess(frames, size_hw, MEAN, STD, color="nv12", fit=fit, dtype=dtype)
    assert got.dtype == dtype
    hw = size_hw if isinstance(size_hw, tuple) else (size_hw, size_hw)
    for image, frame in zip(got, frames, strict=True):
        want = reference.preprocess(frame, hw, MEAN, STD, color="nv12", fit=fit)
        if dtype == np.float32:
            assert_close("preprocess", image, want)
        np.testing.assert_allclose(image, want, rtol=1e-3, atol=1e-3)


def test_nv12_colors_are_those_of_opencv(rng):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is the oracle")
    y, u, v = np.meshgrid(*[np.r_[0:256:17, 1, 16, 127, 128, 235]] * 3, indexing="ij")
    count = y.size
    frame = np.empty((6, 2 * count), np.uint8)
    frame[:4] = np.repeat(y.reshape(-1), 2)
    frame[4:] = np.stack([u.reshape(-1), v.reshape(-1)], axis=1).reshape(-1)
    np.testing.assert_array_equal(reference.nv12_to_rgb(frame), cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_NV12))


def test_nv12_rows_of_any_stride(isa, rng):
    wide = rng.integers(0, 256, (3, 36, 40), dtype=np.uint8)
    view = wide[::2, :, 4:36]
    got = pk.preprocess(view, (16, 20), MEAN, STD, color="nv12")
    np.testing.assert_array_equal(got, pk.preprocess(view.copy(), (16, 20), MEAN, STD, color="nv12"))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_half_images(ops, rng, dtype):
    frame = random_frame(rng, 40, 50)
    want = reference.preprocess(frame, (16, 24), MEAN, STD)
    got = ops.preprocess(frame, (16, 24), MEAN, STD, dtype=dtype)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def test_strides(isa, rng):
    frame = random_frame(rng, 41, 67)
    want = pk.preprocess(frame, 32, MEAN, STD)

    def same(view: np.ndarray, expected: np.ndarray, **options: str) -> None:
        np.testing.assert_array_equal(pk.preprocess(view, 32, MEAN, STD, **options), expected)

    same(frame[:, :, ::-1], want, color="rgb")
    same(np.asfortranarray(frame), want)
    same(frame[::-1].copy()[::-1], want)
    same(frame[:, ::-1].copy()[:, ::-1], want)
    same(np.dstack([frame, frame[:, :, :1]])[:, :, :3], want)
    same(np.dstack([frame[:, :, ::-1], frame])[:, :, 2::-1], want)
    same(np.repeat(frame, 2, axis=1)[:, ::2], want)
    same(np.pad(frame, ((3, 3), (5, 5), (0, 0)))[3:-3, 5:-5], want)
    assert not np.array_equal(pk.preprocess(frame, 32, MEAN, STD, color="rgb"), want)
    grey = np.broadcast_to(frame[:, :, :1], frame.shape)
    same(grey, pk.preprocess(grey.copy(), 32, MEAN, STD))


def test_batch_and_out(ops, rng):
    frames = np.stack([random_frame(rng, 20, 30) for _ in range(3)])
    frames.flags.writeable = False
    each = np.stack([ops.preprocess(frame, (16, 24), MEAN, STD) for frame in frames])
    out = np.full_like(each, np.nan)
    assert ops.preprocess(frames, (16, 24), MEAN, STD, out=out) is out
    np.testing.assert_array_equal(out, each)
    out[:] = np.nan
    ops.preprocess(frames, (16, 24), MEAN, STD, out=out, fit="letterbox")
    assert np.isfinite(out).all()
    assert ops.preprocess(frames[:0], 8, MEAN, STD).shape == (0, 3, 8, 8)


def test_threads_do_not_change_a_bit(isa, rng, for_thread_counts):
    frame = random_frame(rng, 301, 400)
    for_thread_counts(lambda: pk.preprocess(frame, 224, MEAN, STD, fit="letterbox"))


@pytest.mark.parametrize(
    ("frame_hw", "size_hw", "want"),
    [
        ((480, 640), (224, 224), (0, 28, 224, 196)),
        ((640, 480), (224, 224), (28, 0, 196, 224)),
        ((10, 10), (224, 448), (112, 0, 336, 224)),
        ((1, 1000), (8, 8), (0, 3, 8, 4)),
        ((3, 2), (7, 7), (1, 0, 6, 7)),
    ],
)
def test_letterbox_xyxy(frame_hw, size_hw, want):
    assert pk.letterbox_xyxy(frame_hw, size_hw) == want


def test_letterbox_pads_with_the_mean(rng):
    image = pk.preprocess(random_frame(rng, 480, 640), 224, MEAN, STD, fit="letterbox")
    assert not image[:, :28].any()
    assert not image[:, 196:].any()
    assert np.abs(image[:, 28:196]).max(axis=(0, 2)).all()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frame_hw=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    size_hw=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    fit=st.sampled_from(["stretch", "letterbox"]),
    steps=st.tuples(*[st.sampled_from([1, -1, 2, -3])] * 2, st.sampled_from([1, -1])),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_size_and_stride(isa, frame_hw, size_hw, fit, steps, seed):
    frame = random_frame(np.random.default_rng(seed), *frame_hw)[tuple(slice(None, None, s) for s in steps)]
    got = pk.preprocess(frame, size_hw, MEAN, STD, fit=fit)
    want = reference.preprocess(frame, size_hw, MEAN, STD, fit=fit)
    np.testing.assert_allclose(got, want, rtol=0, atol=4e-6)


FRAME = np.zeros((4, 5, 3), np.uint8)
NV12 = np.zeros((6, 8), np.uint8)


@pytest.mark.parametrize(
    ("frame", "options", "error", "message"),
    [
        (None, {}, TypeError, "frames must be an array, got NoneType"),
        (FRAME[0], {}, ValueError, r"frames must be \[H, W, 3\] or \[b, H, W, 3\], got shape \(5, 3\)"),
        (FRAME[:, :, :2], {}, ValueError, "frames must be"),
        (FRAME[:0], {}, ValueError, "frames must not be empty"),
        (FRAME.astype(np.float32), {}, TypeError, "frames must be uint8, got float32"),
        (FRAME, {"color": "rgba"}, ValueError, "color must be 'bgr' or 'rgb' or 'nv12'"),
        (
            np.zeros((6, 8), np.uint8)[:, ::2],
            {"color": "nv12"},
            ValueError,
            "frames must have their pixels side",
        ),
        (
            FRAME[:, :, 0].copy(),
            {"color": "nv12"},
            ValueError,
            r"frames must be \[H \* 3 / 2, W\] or .* even",
        ),
        (FRAME, {"dtype": np.float64}, TypeError, "dtype must be float32 or float16, got float64"),
        (FRAME, {"fit": "crop"}, ValueError, "fit must be"),
        (FRAME, {"size": 0}, ValueError, "size must be at least 1"),
        (FRAME, {"size": 2.5}, TypeError, "size must be an int, got float"),
        (FRAME, {"size": (4, 0)}, ValueError, r"size\[1\] must be at least 1"),
        (FRAME, {"size": (4, 4, 4)}, ValueError, r"size must be \(height, width\)"),
        (FRAME, {"mean": (0.5,)}, ValueError, "mean must be three numbers"),
        (FRAME, {"mean": (0.5, np.nan, 0.5)}, ValueError, "mean must be finite"),
        (FRAME, {"std": (0.5, 0, 0.5)}, ValueError, "std must be above 0"),
        (FRAME, {"std": (0.5, 1e-60, 0.5)}, ValueError, "mean / std and 1 / std must fit float32"),
        (FRAME, {"mean": (0, 0, 1e39)}, ValueError, "mean / std and 1 / std must fit float32"),
        (FRAME, {"out": np.empty((3, 4, 4))}, ValueError, r"out must have shape \(3, 8, 8\)"),
        (FRAME, {"out": np.empty((3, 8, 8))}, TypeError, "out must be float32"),
    ],
)
def test_errors(frame, options, error, message):
    with pytest.raises(error, match=r"^\[preprocess\] " + message):
        pk.preprocess(frame, **{"size": 8, "mean": MEAN, "std": STD, **options})


@settings(max_examples=300, deadline=None)
@given(
    frame_hw=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    size_hw=st.tuples(st.integers(1, 1500), st.integers(1, 1500)),
)
def test_letterbox_is_that_of_the_reference(frame_hw, size_hw):
    assert pk.letterbox_xyxy(frame_hw, size_hw) == reference.content_xyxy(frame_hw, size_hw, "letterbox")
    assert reference.content_xyxy(frame_hw, size_hw, "stretch") == (0, 0, *size_hw[::-1])
