from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import patchcut_kernels as pk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patchcut_kernels import reference


@dataclass
class Video:
    """Features of a frame and of those before it, and soft masks of these."""

    features: np.ndarray  # [n, d]
    memory: np.ndarray  # [m, n, d]
    values: np.ndarray  # [m, n, c]
    grid_hw: tuple[int, int]

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]:
        return self.features, self.memory, self.values, self.grid_hw


def video(rng: np.random.Generator, grid_hw: tuple[int, int], d: int, m: int, c: int) -> Video:
    """A scene that moves by a patch a frame, with noise, and rows of all lengths."""
    scene = rng.standard_normal((*grid_hw, d))
    moved = [np.roll(scene, (t // 2, t), (0, 1)) for t in range(m + 1)]
    frames = [frame + 0.7 * rng.standard_normal(scene.shape) for frame in moved]
    rows = np.stack(frames).reshape(m + 1, -1, d) * rng.uniform(0.1, 10, (m + 1, scene[..., 0].size, 1))
    values = rng.dirichlet(np.full(c, 0.5), (m, rows.shape[1]))
    return Video(*(array.astype(np.float32) for array in (rows[0], rows[1:], values)), grid_hw)


@dataclass
class Dense:
    """All pairs of patches at once, as DINO's eval_video_segmentation.py has it.

    Attributes:
        out: [n, c] float64.
        clear: [n] bool, whether float32 can tell the last patch that is kept from the next one.
    """

    out: np.ndarray
    clear: np.ndarray


def dense(frames: Video, radius: int | None, topk: int, temperature: float = 0.1) -> Dense:
    """A radius of None for no mask. What is equal to the last patch that is kept is kept as well."""
    unit = [
        x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-300)
        for x in (frames.features.astype(np.float64), frames.memory.astype(np.float64))
    ]
    cosines = np.einsum("qd,mkd->qmk", *unit)
    if radius is not None:
        y, x = np.mgrid[: frames.grid_hw[0], : frames.grid_hw[1]].reshape(2, -1)
        far = np.maximum(abs(y[:, None] - y), abs(x[:, None] - x)) > radius
        cosines[np.broadcast_to(far[:, None], cosines.shape)] = -np.inf
    cosines = cosines.reshape(len(y) if radius is not None else len(cosines), -1)
    ranked = -np.sort(-cosines, axis=1)
    kept = min(topk, ranked.shape[1])
    least = ranked[:, kept - 1]
    shares = np.where(cosines >= least[:, None], np.exp((cosines - ranked[:, :1]) / temperature), 0)
    out = shares @ frames.values.reshape(cosines.shape[1], -1) / shares.sum(1, keepdims=True)
    following = ranked[:, kept] if kept < ranked.shape[1] else np.full(len(ranked), -np.inf)
    with np.errstate(invalid="ignore"):
        clear = ~(least - following < 1e-5)
    return Dense(out, clear)


# Tiles are 6 or 8 rows of 2 or 4 patches on the CPU, 4 rows of 8 on CUDA; the depth of one pass is 256.
SIZES = [
    ((1, 1), 1, 1, 1, 0, 1),
    ((1, 2), 3, 1, 2, 0, 1),
    ((1, 13), 5, 2, 3, 2, 3),
    ((9, 1), 4, 3, 2, 1, 64),
    ((5, 7), 33, 3, 4, 2, 5),
    ((4, 8), 16, 2, 4, 12, 5),
    ((7, 5), 257, 2, 9, 1, 12),
    ((9, 9), 24, 1, 17, 3, 33),
    ((13, 11), 12, 4, 3, 20, 64),
    ((17, 18), 384, 2, 5, 4, 5),
]


@pytest.mark.parametrize(("grid_hw", "d", "m", "c", "radius", "topk"), SIZES)
@pytest.mark.parametrize("temperature", [0.1, 3.0])
def test_matches_reference(ops, rng, assert_close, grid_hw, d, m, c, radius, topk, temperature):
    frames = video(rng, grid_hw, d, m, c)
    options = {"radius": radius, "topk": topk, "temperature": temperature}
    got = ops.propagate(*frames.arrays(), **options)
    want = reference.propagate(*frames.arrays(), **options)
    clear = dense(frames, radius, topk).clear
    assert clear.mean() > 0.8
    assert_close("propagate", got[clear], want[clear], scale=1.0 if c > 1 and d > 1 else 1e-9)


@pytest.mark.parametrize(("radius", "topk"), [(0, 1), (0, 9), (1, 5), (3, 5), (3, 64), (8, 20), (100, 5)])
def test_matches_all_pairs_at_once(ops, rng, assert_close, radius, topk):
    frames = video(rng, (9, 12), 48, 4, 4)
    want = dense(frames, radius, topk)
    assert want.clear.all()
    assert_close("propagate", ops.propagate(*frames.arrays(), radius=radius, topk=topk), want.out)


def test_real_size(ops, rng, assert_close):
    frames = video(rng, (28, 28), 384, 3, 4) if ops.backend == "cuda" else video(rng, (37, 37), 384, 6, 4)
    got = ops.propagate(*frames.arrays(), radius=8)
    want = dense(frames, 8, 5)
    assert want.clear.mean() > 0.99
    assert_close("propagate", got[want.clear], want.out[want.clear])


def test_matches_the_code_of_dino(rng, assert_close):
    """label_propagation of eval_video_segmentation.py, in double precision."""
    torch = pytest.importorskip("torch", reason="torch is the oracle's array library")
    frames = video(rng, (6, 9), 32, 3, 4)
    normalize = torch.nn.functional.normalize
    target = normalize(torch.from_numpy(frames.features).double(), dim=1, p=2)
    sources = normalize(torch.from_numpy(frames.memory).double().transpose(1, 2), dim=1, p=2)
    affinity = torch.exp(torch.bmm(target.unsqueeze(0).repeat(3, 1, 1), sources) / 0.1)
    mask = torch.zeros(6, 9, 6, 9, dtype=torch.float64)
    for i in range(6):
        for j in range(9):
            for p in range(5):
                for q in range(5):
                    if 0 <= i - 2 + p < 6 and 0 <= j - 2 + q < 9:
                        mask[i, j, i - 2 + p, j - 2 + q] = 1
    affinity *= mask.reshape(54, 54).unsqueeze(0)
    affinity = affinity.transpose(2, 1).reshape(-1, 54)
    least = torch.topk(affinity, dim=0, k=5)[0].min(dim=0)[0]
    affinity[affinity < least] = 0
    affinity = affinity / torch.sum(affinity, keepdim=True, axis=0)
    segments = torch.from_numpy(frames.values).double().transpose(1, 2)  # [m, c, n]
    want = torch.mm(segments.transpose(2, 1).reshape(-1, 4).T, affinity).T.numpy()
    assert_close("propagate", pk.propagate(*frames.arrays(), radius=2), want)


def test_the_order_of_frames_does_not_matter(ops, rng):
    frames = video(rng, (7, 9), 40, 5, 3)
    order = rng.permutation(5)
    want = ops.propagate(*frames.arrays(), radius=3)
    got = ops.propagate(
        frames.features, frames.memory[order].copy(), frames.values[order].copy(), (7, 9), radius=3
    )
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("radius", [9, 10, 12, 2**31, 2**63 - 1])
def test_a_radius_of_the_grid_is_no_restriction(ops, rng, assert_close, radius):
    frames = video(rng, (4, 10), 40, 3, 3)
    want = dense(frames, None, 5)
    assert want.clear.all()
    assert_close("propagate", ops.propagate(*frames.arrays(), radius=radius), want.out)
    assert np.abs(ops.propagate(*frames.arrays(), radius=1) - want.out).max() > 0.1


def test_rows_on_the_simplex_stay_there(ops, rng):
    frames = video(rng, (11, 13), 17, 4, 6)
    got = ops.propagate(*frames.arrays(), radius=4, topk=20, temperature=0.5)
    assert got.min() >= 0
    np.testing.assert_allclose(got.sum(1), 1, atol=1e-6)
    low, high = frames.values.min((0, 1)), frames.values.max((0, 1))
    assert (got >= low).all() and (got <= high).all()


def test_a_frame_that_was_seen_gives_its_own_values(ops, rng):
    frames = video(rng, (9, 10), 40, 3, 4)
    frames.memory[1] = frames.features * np.float32(3)
    np.testing.assert_array_equal(ops.propagate(*frames.arrays(), topk=1), frames.values[1])


def test_an_object_that_moves_is_followed(ops, rng):
    scene = rng.standard_normal((8, 8, 30)).astype(np.float32)
    mask = np.zeros((8, 8, 1), np.float32)
    mask[2:5, 1:4] = 1
    got = ops.propagate(
        np.roll(scene, (1, 2), (0, 1)).reshape(64, 30),
        scene.reshape(1, 64, 30),
        mask.reshape(1, 64, 1),
        (8, 8),
        radius=3,
        topk=1,
    )
    np.testing.assert_array_equal(got[:, 0].reshape(8, 8)[1:, 2:], np.roll(mask, (1, 2), (0, 1))[1:, 2:, 0])


def test_the_first_in_memory_wins_a_tie(ops, rng):
    """Of patches that are all alike the first ones of each window are taken, with equal shares."""
    row = rng.standard_normal(20).astype(np.float32)
    values = rng.random((2, 35, 3), np.float32)
    got = ops.propagate(np.tile(row, (35, 1)), np.tile(row, (2, 35, 1)), values, (5, 7), radius=1, topk=3)
    for node in range(35):
        y, x = divmod(node, 7)
        window = [
            i * 7 + j
            for i in range(max(0, y - 1), min(5, y + 2))
            for j in range(max(0, x - 1), min(7, x + 2))
        ]
        np.testing.assert_allclose(got[node], values[0][window[:3]].mean(0), atol=1e-6)


def test_zero_rows_are_like_nothing(ops, rng):
    frames = video(rng, (3, 4), 6, 2, 3)
    frames.features[5] = 0
    frames.memory[:, ::2] = 0
    got, want = (o.propagate(*frames.arrays(), radius=1, topk=64) for o in (ops, reference))
    np.testing.assert_allclose(got, want, atol=1e-5)
    first = ops.propagate(*frames.arrays(), radius=1, topk=1)[5]
    np.testing.assert_array_equal(first, frames.values[0, 0])


def test_slots_without_a_frame_are_not_looked_at(ops, rng):
    frames = video(rng, (5, 6), 12, 4, 3)
    want = ops.propagate(frames.features, frames.memory[:2], frames.values[:2], (5, 6), radius=2)
    frames.memory[2:] = np.nan
    frames.values[2:] = np.inf
    np.testing.assert_array_equal(ops.propagate(*frames.arrays(), frames=2, radius=2), want)
    batch = Video(*(np.stack([x, x]) for x in (frames.features, frames.memory, frames.values)), (5, 6))
    together = ops.propagate(*batch.arrays(), frames=2, radius=2)
    np.testing.assert_array_equal(together, np.stack([want, want]))


@pytest.mark.parametrize("factor", [1e-44, 1e-38, 1e-30, 1e15, 1e20, 1e36])
def test_the_length_of_rows_does_not_matter(ops, rng, factor):
    """Of a few rows, so that others are ordinary in the same call."""
    frames = video(rng, (5, 6), 32, 2, 3)
    for rows in (frames.features, frames.memory[0], frames.memory[1]):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        rows[1::3] = (unit.astype(np.float64) * factor)[1::3]
    got = ops.propagate(*frames.arrays(), radius=2)
    want = dense(frames, 2, 5)
    assert want.clear.mean() > 0.9
    np.testing.assert_allclose(got[want.clear], want.out[want.clear], atol=1e-5)


def test_values_at_the_ends_of_float32(ops, rng):
    frames = video(rng, (5, 6), 8, 2, 3)
    largest = np.finfo(np.float32).max
    frames.values[...] = largest
    got = ops.propagate(*frames.arrays(), topk=64)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, largest, rtol=1e-6)
    frames.values[...] = -largest
    np.testing.assert_array_equal(ops.propagate(*frames.arrays(), topk=64), -got)


@pytest.mark.parametrize("temperature", [1e-38, 1e-4, 1e38])
def test_temperature_goes_from_the_nearest_to_the_mean(ops, rng, temperature):
    frames = video(rng, (6, 5), 64, 2, 3)
    got = ops.propagate(*frames.arrays(), radius=1, temperature=temperature)
    if temperature < 1:
        want = ops.propagate(*frames.arrays(), radius=1, topk=1)
    else:
        want = dense(frames, 1, 5, 1e6).out
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_half_rows_are_those_values(ops, rng):
    frames = video(rng, (6, 7), 33, 2, 3)
    half = [x.astype(np.float16) for x in (frames.features, frames.memory)]
    want = ops.propagate(*(x.astype(np.float32) for x in half), frames.values, (6, 7), radius=2)
    for features in (half[0], half[0].astype(np.float32)):
        for memory in (half[1], half[1].astype(np.float32)):
            np.testing.assert_array_equal(
                ops.propagate(features, memory, frames.values, (6, 7), radius=2), want
            )


def test_threads_do_not_change_a_bit(isa, rng, for_thread_counts):
    frames = video(rng, (19, 21), 50, 3, 4)
    for_thread_counts(lambda: pk.propagate(*frames.arrays(), radius=5))


def test_orders_do_not_change_a_bit_on_cuda(rng, for_orders_on_cuda):
    frames = video(rng, (9, 11), 20, 2, 3)
    arrays = [pk.cuda.to_device(x) for x in (frames.features, frames.memory, frames.values)]
    for_orders_on_cuda(lambda: pk.propagate(*arrays, (9, 11), radius=2, topk=40).numpy())


def test_batches_strides_out_and_nothing(ops, rng):
    items = [video(rng, (5, 7), 21, 3, 4) for _ in range(3)]
    batch = [np.stack([getattr(item, name) for item in items]) for name in ("features", "memory", "values")]
    together = ops.propagate(*batch, (5, 7), radius=2)
    for item, got in zip(items, together, strict=True):
        np.testing.assert_array_equal(ops.propagate(*item.arrays(), radius=2), got)
    out = np.empty((3, 35, 4), np.float32)
    assert ops.propagate(*batch, (5, 7), radius=2, out=out) is out
    np.testing.assert_array_equal(out, together)
    if ops.backend != "cuda":
        wide = np.zeros((35, 42), np.float32)
        wide[:, ::2] = items[0].features
        got = ops.propagate(wide[:, ::2], *items[0].arrays()[1:], radius=2)
        np.testing.assert_array_equal(got, together[0])
    assert ops.propagate(*(x[:0] for x in batch), (5, 7)).shape == (0, 35, 4)
    assert ops.propagate(batch[0], batch[1], batch[2][..., :0], (5, 7)).shape == (3, 35, 0)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    grid_hw=st.tuples(st.integers(1, 10), st.integers(1, 10)),
    d=st.integers(2, 40),
    m=st.integers(1, 4),
    c=st.integers(1, 10),
    radius=st.integers(0, 12),
    topk=st.integers(1, 64),
    seed=st.integers(0, 2**32 - 1),
    bad=st.sampled_from([None, None, np.nan, np.inf, -np.inf]),
    where=st.sampled_from(["features", "memory", "values"]),
)
def test_any_input(ops, grid_hw, d, m, c, radius, topk, seed, bad, where):
    rng = np.random.default_rng(seed)
    frames = video(rng, grid_hw, d, m, c)
    if bad is not None:
        if not ops.checks_values:
            return
        array = getattr(frames, where)
        array.flat[rng.integers(array.size)] = bad
        with pytest.raises(ValueError, match=rf"^\[propagate\] {where} must be finite"):
            ops.propagate(*frames.arrays(), radius=radius, topk=topk)
        return
    got = ops.propagate(*frames.arrays(), radius=radius, topk=topk)
    want = dense(frames, radius, topk)
    np.testing.assert_allclose(got[want.clear], want.out[want.clear], atol=2e-5)
    np.testing.assert_allclose(got.sum(1), 1, atol=1e-6)


FRAME, MEMORY, VALUES = (np.ones(shape, np.float32) for shape in ((6, 3), (2, 6, 3), (2, 6, 4)))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"features": [[1.0]]}, TypeError, "features must be an array, got list"),
        ({"features": FRAME[0]}, ValueError, r"features must be \[n, d\] or \[b, n, d\], got shape \(3,\)"),
        (
            {"features": FRAME.astype(float)},
            TypeError,
            "features must be float32 or float16, got float64",
        ),
        ({"features": FRAME[:, :0]}, ValueError, "features must have at least one column"),
        ({"memory": FRAME}, ValueError, r"memory must be \[m, n, d\] or \[b, m, n, d\], got shape \(6, 3\)"),
        ({"memory": MEMORY[:, :5]}, ValueError, r"memory must have shape \(2, 6, 3\), got \(2, 5, 3\)"),
        ({"memory": MEMORY[None]}, ValueError, r"memory must have shape \(2, 6, 3\), got \(1, 2, 6, 3\)"),
        (
            {"memory": MEMORY[:0], "values": VALUES[:0]},
            ValueError,
            r"memory must have at least one slot, got shape \(0, 6, 3\)",
        ),
        ({"values": VALUES.astype(np.float16)}, TypeError, "values must be float32, got float16"),
        ({"values": VALUES[:1]}, ValueError, r"values must have shape \(2, 6, 4\), got \(1, 6, 4\)"),
        ({"grid_hw": (2, 2)}, ValueError, r"grid_hw must hold 6 patches, got \(2, 2\)"),
        ({"grid_hw": 6}, TypeError, r"grid_hw must be \(height, width\), got int"),
        ({"frames": 0}, ValueError, "frames must be 1 to 2, got 0"),
        ({"frames": 3}, ValueError, "frames must be 1 to 2, got 3"),
        ({"frames": 1.0}, TypeError, "frames must be an int, got float"),
        ({"radius": -1}, ValueError, "radius must be at least 0, got -1"),
        ({"topk": 0}, ValueError, "topk must be 1 to 64, got 0"),
        ({"topk": 65}, ValueError, "topk must be 1 to 64, got 65"),
        ({"temperature": 0.0}, ValueError, "temperature must be above 0"),
        ({"temperature": 1e-60}, ValueError, "temperature must be above 0, with a finite"),
        ({"out": np.empty((6, 3), np.float32)}, ValueError, r"out must have shape \(6, 4\), got \(6, 3\)"),
        ({"stream": 1}, ValueError, "stream must be None where the arrays lie in host memory"),
    ],
)
def test_errors(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"features": FRAME, "memory": MEMORY, "values": VALUES, "grid_hw": (2, 3), **changed}
    with pytest.raises(error, match=r"^\[propagate\] " + message):
        pk.propagate(**arguments)


def test_out_over_an_input_is_an_error() -> None:
    values = VALUES.copy()
    with pytest.raises(ValueError, match=r"^\[propagate\] out must not overlap an input"):
        pk.propagate(FRAME, MEMORY, values, (2, 3), out=values[1])
