"""Steady assignments of a head that answers on a finer grid: a disc that moves, under noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from patchcut import Features
from patchcut.cells import cells_of, patch_means
from patchcut.video import Continuity, FrameMemory

GRID, FRAMES = (12, 16), 14
CELLS = 4
LABELS = ("background", "disc")


def disc(frame: int, cells: int = CELLS) -> np.ndarray:
    """[c * h, c * w] float32: how much of each cell a disc covers that goes to the right, by 64 samples."""
    side = 8 * cells
    y, x = np.mgrid[: GRID[0] * side, : GRID[1] * side] / side
    inside = (y - 6) ** 2 + (x - 4.3 - 0.45 * frame) ** 2 < 3.2**2
    h, w = (cells * length for length in GRID)
    return inside.reshape(h, 8, w, 8).mean(axis=(1, 3)).astype(np.float32)


def features(frame: int) -> Features:
    """Two directions, of the disc and of the ground, and a little noise of each patch."""
    rng = np.random.default_rng(frame)
    share = disc(frame, 1).reshape(-1, 1)
    rows = share * np.eye(1, 12) + (1 - share) * np.eye(1, 12, 1) + 0.02 * rng.standard_normal((192, 12))
    return Features({"key": rows.astype(np.float32)[None]}, GRID)


def assigned(side: np.ndarray) -> np.ndarray:
    """[n, 2] float32, of how much is foreground."""
    flat = np.clip(side, 0, 1).ravel().astype(np.float32)
    return np.stack([1 - flat, flat], axis=1)


def noisy(frame: int, cells: int = CELLS) -> np.ndarray:
    """What a head says that mistakes patches: of one in seven it says the opposite, more or less."""
    rng = np.random.default_rng(100 + frame)
    wrong = rng.uniform(0.5, 0.8, GRID) * (rng.random(GRID) < 0.15)
    blocks = wrong.repeat(cells, axis=0).repeat(cells, axis=1)
    side = disc(frame, cells)
    return assigned(side + blocks * (1 - 2 * side))


def steady(each: Sequence[np.ndarray]) -> list[np.ndarray]:
    continuity, made = Continuity(), []
    for frame, assignment in enumerate(each):
        continuity.begin(features(frame))
        made.append(continuity.steady(assignment, LABELS))
        remember(continuity, made[-1])
    return made


def remember(continuity: Continuity, made: np.ndarray) -> None:
    """As `Continuity.regions` does where no object is tracked."""
    assert continuity._memory is not None
    continuity._memory.add(continuity._features, continuity._steady)


def iou(assignment: np.ndarray, frame: int) -> float:
    cells = cells_of(len(assignment), GRID)
    one, other = assignment[:, 1] > 0.5, disc(frame, cells).ravel() > 0.5
    return float((one & other).sum() / (one | other).sum())


def test_noise_goes_and_the_cells_detail_stays() -> None:
    said = [noisy(frame) for frame in range(FRAMES)]
    made = steady(said)
    coarse = steady([noisy(frame, 1) for frame in range(FRAMES)])
    spread = [one.reshape(*GRID, 2).repeat(CELLS, 0).repeat(CELLS, 1).reshape(-1, 2) for one in coarse]
    after = range(4, FRAMES)
    before, now, blocks = (np.mean([iou(one[i], i) for i in after]) for one in (said, made, spread))
    assert before < 0.6 and now > 0.9, (before, now)
    assert now > blocks + 0.03, "finer than patches"
    for one in made:
        assert one.dtype == np.float32 and one.shape == (192 * CELLS**2, 2) and one.min() >= 0
        np.testing.assert_allclose(one.sum(axis=1), 1, atol=1e-5)


def test_a_head_that_is_right_stays_right() -> None:
    made = steady([assigned(disc(frame)) for frame in range(FRAMES)])
    assert min(iou(one, frame) for frame, one in enumerate(made)) > 0.93


def test_a_thing_that_a_frame_misses_is_still_there() -> None:
    """All cells of one frame say background: what is carried says where it is, to a patch."""
    said = [assigned(disc(frame)) for frame in range(8)]
    said[6] = assigned(np.zeros_like(disc(6)))
    made = steady(said)
    assert iou(made[6], 6) > 0.8
    assert iou(made[7], 7) > 0.9


def test_what_is_carried_is_of_patches() -> None:
    continuity = Continuity()
    for frame in range(3):
        continuity.begin(features(frame))
        assignment = noisy(frame)
        made = continuity.steady(assignment, LABELS)
        remember(continuity, made)
        if frame == 0:
            assert made is assignment, "the first frame is judged by itself"
            np.testing.assert_array_equal(continuity._steady, patch_means(assignment, GRID))
    assert continuity._steady.shape == (192, 2)


@pytest.mark.parametrize("columns", [2, 3])
def test_a_row_a_patch_is_joined_as_ever(columns: int) -> None:
    """The same bits as 0.8 of what is carried and 0.2 of what the head says."""
    rng = np.random.default_rng(0)
    continuity, memory = Continuity(), FrameMemory(GRID, recent=3, kept=0, topk=10)
    for frame in range(6):
        one = features(frame)
        said = rng.dirichlet(np.ones(columns), 192).astype(np.float32)
        continuity.begin(one)
        made = continuity.steady(said, tuple("abc")[:columns])
        carried = memory.carry(continuity._features)
        expected = said if carried is None else 0.8 * carried + np.float32(1 - 0.8) * said
        np.testing.assert_array_equal(made, expected)
        memory.add(continuity._features, expected)
        remember(continuity, made)
