from __future__ import annotations

import numpy as np
import patchcut_kernels as pk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patchcut_kernels import reference

from bench.competitors import sparse_bilateral_solver
from tests.kernels.refine.blocks import make_frame, make_map


def make_case(rng: np.random.Generator, size_hw: tuple[int, int]) -> tuple[np.ndarray, ...]:
    return make_frame(rng, size_hw, 17, 5), make_map(rng, size_hw, 23), rng.random(size_hw, np.float32)


# Cells are 24 pixels, blocks of the solver 256 quads of vertices.
SIZES = [(1, 1), (1, 30), (25, 1), (2, 3), (24, 24), (25, 49), (100, 75)]
SIGMA_NAMES = ("sigma_spatial", "sigma_luma", "sigma_chroma")
SIGMAS = [(24, 4, 4), (8, 16, 8), (1, 1, 1), (5.5, 3.3, 7.9), (1000, 300, 400)]


@pytest.mark.parametrize("size_hw", SIZES)
@pytest.mark.parametrize("sigmas", SIGMAS)
@pytest.mark.parametrize("color", ["bgr", "rgb"])
def test_matches_reference(ops, rng, size_hw, sigmas, color):
    case = make_case(rng, size_hw)
    options = {
        **dict(zip(("sigma_spatial", "sigma_luma", "sigma_chroma"), sigmas, strict=True)),
        "color": color,
    }
    got = ops.bilateral_solver(*case, **options)
    want = reference.bilateral_solver(*case, **options)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=0, atol=5e-5)


def test_real_size(ops, rng, assert_close):
    # Without a GPU the larger one takes seconds on CUDA.
    case = make_case(rng, (480, 640) if ops.backend != "cuda" else (160, 200))
    want = reference.bilateral_solver(*case)
    assert_close("bilateral_solver", ops.bilateral_solver(*case), want)
    assert np.abs(want - case[1]).max() > 0.2


@pytest.mark.parametrize("iterations", [0, 1, 2, 60])
@pytest.mark.parametrize("bistochastic_iterations", [0, 1, 30])
@pytest.mark.parametrize("smoothness", [0.0, 1.0, 1000.0])
def test_iterations_and_smoothness(ops, rng, iterations, bistochastic_iterations, smoothness):
    case = make_case(rng, (90, 60))
    options = {
        "iterations": iterations,
        "bistochastic_iterations": bistochastic_iterations,
        "smoothness": smoothness,
    }
    got = ops.bilateral_solver(*case, **options)
    # The smoother, the less of float32 is left for the data.
    np.testing.assert_allclose(got, reference.bilateral_solver(*case, **options), rtol=0, atol=3e-4)


LARGE_CELLS = {"sigma_spatial": 16, "sigma_luma": 8, "sigma_chroma": 8, "bistochastic_iterations": 10}


def test_scipy_as_an_oracle(ops, rng):
    """Its colors are not rounded to whole levels, which moves one pixel in hundreds into another bin."""
    frame, soft, confidence = make_case(rng, (150, 200))
    options = {**LARGE_CELLS, "smoothness": 128, "iterations": 25}
    want = sparse_bilateral_solver.solve(frame, soft, confidence + 0.01, **options)
    apart = np.abs(ops.bilateral_solver(frame, soft, confidence + np.float32(0.01), **options) - want)
    assert np.ptp(want) > 0.2
    assert apart.mean() < 2e-5
    assert (apart > 1e-4).mean() < 0.02


def test_iterations_lead_to_the_minimum(ops, rng):
    case = make_case(rng, (60, 80))
    options = {**LARGE_CELLS, "smoothness": 64}
    want = sparse_bilateral_solver.solve(*case, **options, iterations=2000, tolerance=1e-12)
    apart = [np.abs(ops.bilateral_solver(*case, **options, iterations=i) - want).mean() for i in (1, 5, 25)]
    assert apart == sorted(apart, reverse=True)
    assert apart[-1] < 1e-3 < apart[0]


def test_steps_after_the_end_change_nothing(ops, rng):
    """Residuals of 1e-20 have squares that float32 cannot hold."""
    frame, soft, confidence = make_case(rng, (22, 57))
    for scale in (1.0, 1e-3, 1e-12, 1e12):
        case = frame, soft * np.float32(scale), confidence
        late = ops.bilateral_solver(*case, iterations=1000 if ops.backend != "cuda" else 200)
        np.testing.assert_allclose(late, ops.bilateral_solver(*case, iterations=150), rtol=1e-3, atol=0)


def test_grey_frames_have_no_chroma(ops, rng):
    """All greys are in one bin of chroma, whatever its size, also where they are its border."""
    grey = np.repeat(rng.integers(0, 256, (40, 50, 1)), 3, axis=2).astype(np.uint8)
    _, soft, confidence = make_case(rng, (40, 50))
    results = [ops.bilateral_solver(grey, soft, confidence, sigma_chroma=sigma) for sigma in (1, 4, 128, 500)]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_bins_start_at_whole_levels(ops):
    """Luma 4 is the first of the second bin of 4, and pixel 24 of the second cell of 24."""
    frame = np.repeat(np.arange(8, dtype=np.uint8)[None, :, None], 3, axis=2)
    soft = np.arange(8, dtype=np.float32)[None]
    got = ops.bilateral_solver(frame, soft, np.ones_like(soft), smoothness=0)
    np.testing.assert_allclose(got, [[1.5] * 4 + [5.5] * 4], rtol=1e-6)
    frame, soft = np.zeros((1, 49, 3), np.uint8), np.arange(49, dtype=np.float32)[None]
    got = ops.bilateral_solver(frame, soft, np.ones_like(soft), smoothness=0)
    np.testing.assert_allclose(got, [[11.5] * 24 + [35.5] * 24 + [48]], rtol=1e-6)


def test_what_is_unsure_takes_over_its_surroundings(ops, rng):
    """A mask is known in a few pixels only, of an object of one color on a ground of another."""
    yy, xx = np.mgrid[:96, :120]
    inside = (yy - 50) ** 2 + (xx - 60) ** 2 < 35**2
    frame = np.where(inside[..., None], [50, 190, 60], [200, 90, 140]) + rng.normal(0, 4, (96, 120, 3))
    confidence = (rng.random(inside.shape) < 0.05).astype(np.float32)
    soft = np.where(confidence > 0, inside, 0.5).astype(np.float32)
    got = ops.bilateral_solver(
        np.clip(frame, 0, 255).astype(np.uint8), soft, confidence, sigma_luma=8, iterations=50
    )
    assert ((got > 0.5) == inside).mean() > 0.99


def test_no_confidence_gives_zeros(ops, rng):
    frame, soft, confidence = make_case(rng, (50, 70))
    assert not ops.bilateral_solver(frame, soft, 0 * confidence).any()
    flat = np.zeros_like(frame)
    flat[:, 35:] = 255  # nothing joins black and white
    confidence[:, :35] = 0
    got = ops.bilateral_solver(flat, soft, confidence)
    assert not got[:, :35].any()
    np.testing.assert_allclose(got, reference.bilateral_solver(flat, soft, confidence), rtol=0, atol=5e-5)


def test_every_pixel_a_vertex_of_its_own(ops, rng):
    """Noise in cells of one pixel: nothing is joined but by chance. More than CUDA has threads for."""
    size_hw = (300, 230)
    frame = rng.integers(0, 256, (*size_hw, 3)).astype(np.uint8)
    _, soft, confidence = make_case(rng, size_hw)
    options = {**dict.fromkeys(SIGMA_NAMES, 1), "iterations": 3, "bistochastic_iterations": 2}
    got = ops.bilateral_solver(frame, soft, confidence + np.float32(0.1), **options)
    np.testing.assert_allclose(got, soft, rtol=0, atol=1e-4)


def test_nothing_to_do(ops):
    for shape in ((0, 5), (5, 0), (0, 4, 5), (2, 0, 5)):
        empty = np.zeros(shape, np.float32)
        assert ops.bilateral_solver(np.zeros((*shape, 3), np.uint8), empty, empty).shape == shape


def test_batch_out_strides_and_read_only(ops, rng):
    cases = [make_case(rng, (30, 25)) for _ in range(3)]
    frames, maps, confidence = (np.stack(arrays) for arrays in zip(*cases, strict=True))
    each = np.stack([ops.bilateral_solver(*case) for case in cases])
    np.testing.assert_array_equal(ops.bilateral_solver(frames, maps, confidence), each)
    out = np.empty_like(each)
    assert ops.bilateral_solver(frames, maps, confidence, out=out) is out
    np.testing.assert_array_equal(out, each)
    turned = np.asfortranarray(frames)
    turned.flags.writeable = False
    np.testing.assert_array_equal(ops.bilateral_solver(turned, maps[:, ::-1][:, ::-1], confidence), each)
    np.testing.assert_array_equal(ops.bilateral_solver(frames, maps, confidence, out=confidence), each)
    confidence = np.stack([case[2] for case in cases])
    np.testing.assert_array_equal(ops.bilateral_solver(frames, maps, confidence, out=maps), each)


def test_threads_do_not_change_a_bit(isa, rng, for_thread_counts):
    case = make_case(rng, (300, 210))
    for_thread_counts(lambda: pk.bilateral_solver(*case))
    for_thread_counts(lambda: pk.bilateral_solver(*case, sigma_spatial=3, sigma_luma=2))


def test_orders_do_not_change_a_bit(rng, for_orders_on_cuda):
    case = [pk.cuda.to_device(array) for array in make_case(rng, (60, 70))]
    for_orders_on_cuda(lambda: pk.bilateral_solver(*case).numpy())


def test_confidence_of_any_magnitude(ops, rng):
    """Sums of a vertex do not depend on how large others are."""
    frame, soft, confidence = make_case(rng, (50, 70))
    confidence[:, :24] *= 1e-12
    confidence[:24, 48:] *= 1e12
    want = reference.bilateral_solver(frame, soft, confidence, smoothness=0)
    assert np.ptp(want[:, :24]) > 0.1
    np.testing.assert_allclose(ops.bilateral_solver(frame, soft, confidence, smoothness=0), want, rtol=1e-5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size_hw=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    sigmas=st.tuples(*[st.floats(1, 40, width=32)] * 3),
    noise=st.sampled_from([0, 3, 100]),
    unsure=st.sampled_from([0.0, 0.5, 0.95]),
    seed=st.integers(0, 2**32 - 1),
    bad=st.sampled_from([None, None, None, np.nan, np.inf, -np.inf, -1.0]),
)
def test_any_input(ops, size_hw, sigmas, noise, unsure, seed, bad):
    rng = np.random.default_rng(seed)
    if ops.backend == "cuda":
        size_hw = size_hw[0] // 3 + 1, size_hw[1] // 4 + 1
    _, soft, confidence = make_case(rng, size_hw)
    frame = make_frame(rng, size_hw, 17, noise)
    confidence = np.where(rng.random(size_hw) < unsure, 0, confidence + np.float32(0.1))
    options = {**dict(zip(SIGMA_NAMES, sigmas, strict=True)), "smoothness": 16.0}
    at = rng.integers(size_hw[0]), rng.integers(size_hw[1])
    if bad is not None and ops.checks_values:
        for array in (confidence,) if bad == -1 else (confidence, soft):
            array[at] = bad
            with pytest.raises(ValueError, match=r"^\[bilateral_solver\] .*confidence must be"):
                ops.bilateral_solver(frame, soft, confidence, **options)
            array[at] = 1
        return
    # At the end: on the way there, float32 and float64 may be an iteration apart.
    got = ops.bilateral_solver(frame, soft, confidence, **options, iterations=300)
    want = reference.bilateral_solver(frame, soft, confidence, **options, iterations=300)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-3)
    scaled = ops.bilateral_solver(frame, 8 * soft, confidence, **options, iterations=300)
    np.testing.assert_allclose(scaled, 8 * got, rtol=0, atol=2e-2)
    constant = ops.bilateral_solver(frame, np.full_like(soft, 0.75), confidence + np.float32(0.1), **options)
    np.testing.assert_allclose(constant, 0.75, rtol=0, atol=1e-5)


FRAME = np.zeros((4, 6, 3), np.uint8)
MAP = np.ones((4, 6), np.float32)


@pytest.mark.parametrize(
    ("arrays", "options", "error", "message"),
    [
        ((FRAME.tolist(), MAP, MAP), {}, TypeError, "frame must be an array, got list"),
        (
            (FRAME[0], MAP, MAP),
            {},
            ValueError,
            r"frame must be \[H, W, 3\] or \[b, H, W, 3\], got shape \(6, 3\)",
        ),
        ((FRAME[..., :1], MAP, MAP), {}, ValueError, r"frame must be \[H, W, 3\] or .*got shape \(4, 6, 1\)"),
        ((FRAME.astype(float), MAP, MAP), {}, TypeError, "frame must be uint8, got float64"),
        ((FRAME, MAP[0], MAP), {}, ValueError, r"soft_map must be \[H, W\] or \[b, H, W\], got shape \(6,\)"),
        ((FRAME, MAP[:, :5], MAP), {}, ValueError, r"soft_map must have shape \(4, 6\), got \(4, 5\)"),
        ((FRAME, MAP.astype(float), MAP), {}, TypeError, "soft_map must be float32, got float64"),
        ((FRAME, MAP, MAP[None]), {}, ValueError, r"confidence must have shape \(4, 6\), got \(1, 4, 6\)"),
        ((FRAME, MAP, MAP.astype(int)), {}, TypeError, "confidence must be float32, got int64"),
        ((FRAME, MAP, -MAP), {}, ValueError, "confidence must be at least 0"),
        ((FRAME, MAP * np.nan, MAP), {}, ValueError, "map and confidence must be finite"),
        (
            (FRAME, MAP, MAP),
            {"sigma_spatial": 0.5},
            ValueError,
            "sigma_spatial must be at least 1 and",
        ),
        (
            (FRAME, MAP, MAP),
            {"sigma_luma": np.inf},
            ValueError,
            "sigma_luma must be .*finite, got inf",
        ),
        ((FRAME, MAP, MAP), {"sigma_chroma": np.nan}, ValueError, "sigma_chroma must be at least 1"),
        (
            (FRAME, MAP, MAP),
            {"smoothness": -1},
            ValueError,
            "smoothness must be at least 0 and",
        ),
        ((FRAME, MAP, MAP), {"iterations": -1}, ValueError, "iterations must be 0 to 65536, got -1"),
        ((FRAME, MAP, MAP), {"iterations": 1.0}, TypeError, "iterations must be an int, got float"),
        (
            (FRAME, MAP, MAP),
            {"bistochastic_iterations": -1},
            ValueError,
            "bistochastic_iterations must",
        ),
        ((FRAME, MAP, MAP), {"color": "grey"}, ValueError, "color must be 'bgr' or 'rgb', got 'grey'"),
        (
            (FRAME, MAP, MAP),
            {"out": np.empty((4, 5), np.float32)},
            ValueError,
            r"out must have shape \(4, 6\)",
        ),
        ((FRAME, MAP, MAP), {"out": np.empty((4, 6))}, TypeError, "out must be float32, got float64"),
        ((FRAME, MAP, MAP), {"out": np.empty((6, 4), np.float32).T}, ValueError, "out must be C-contiguous"),
        (
            (FRAME, MAP, MAP),
            {"out": np.broadcast_to(np.float32(0), (4, 6))},
            ValueError,
            "out must be writable",
        ),
        (
            (np.broadcast_to(np.uint8(0), (2**15, 2**14, 3)), MAP, MAP),
            {},
            ValueError,
            r"frame must have fewer than 2\^29 pixels",
        ),
    ],
)
def test_errors(arrays, options, error, message):
    with pytest.raises(error, match=r"^\[bilateral_solver\] " + message):
        pk.bilateral_solver(*arrays, **options)


def test_an_out_that_overlaps_in_part_is_an_error():
    memory = np.ones((5, 6), np.float32)
    with pytest.raises(ValueError, match=r"^\[bilateral_solver\] out must not overlap an input"):
        pk.bilateral_solver(FRAME, memory[:4], MAP, out=memory[1:])
