"""What a memory carries, against the kernel's reference on the frames that it should hold."""

from __future__ import annotations

import numpy as np
import patchcut_kernels as kernels
import pytest
from patchcut.video import FrameMemory

GRID = (4, 5)


def frames(count: int, columns: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(count)
    return [
        (
            rng.standard_normal((20, 16)).astype(np.float32),
            rng.random((20, columns)).astype(np.float32),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("kept", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 3, 9])
def test_the_last_frames_and_the_kept_ones_are_carried(count: int, kept: int) -> None:
    memory = FrameMemory(GRID, recent=3, kept=kept, radius=2)
    shown = frames(count)
    for i, (features, values) in enumerate(shown):
        memory.add(features, values, keep=i < kept)
    held = shown[:kept] + shown[kept:][-3:]
    now = frames(count + 1)[-1][0]
    expected = kernels.reference.propagate(
        now, np.stack([one for one, _ in held]), np.stack([one for _, one in held]), GRID, radius=2
    )
    carried = memory.carry(now)
    assert carried is not None and len(memory) == len(held)
    np.testing.assert_allclose(carried, expected, atol=1e-5)
    assert np.ptp(expected) > 0.1


def test_a_kept_frame_gives_way_to_the_next_kept_one() -> None:
    memory = FrameMemory((1, 1), recent=1, kept=1)
    features = np.ones((1, 4), np.float32)
    for value in (1, 2):
        memory.add(features, np.full((1, 1), value, np.float32), keep=True)
    assert len(memory) == 1
    assert memory.carry(features) == pytest.approx(2)


def test_new_columns_are_zero_on_frames_before() -> None:
    memory = FrameMemory((1, 1), recent=2, kept=0)
    features = np.ones((1, 4), np.float32)
    memory.add(features, np.float32([[1]]))
    memory.add(features, np.float32([[1, 1]]))
    np.testing.assert_allclose(memory.carry(features), [[1, 0.5]])
    memory.add(features, np.float32([[0]]))  # fewer columns: the others are 0
    np.testing.assert_allclose(memory.carry(features), [[0.5, 0.5]])


def test_what_is_remembered_is_a_copy() -> None:
    memory = FrameMemory((1, 1))
    features, values = np.ones((1, 4), np.float32), np.ones((1, 1), np.float32)
    memory.add(features, values)
    values[:] = features[:] = 0
    assert memory.carry(np.ones((1, 4), np.float32)) == pytest.approx(1)


def test_a_cleared_memory_takes_other_grids_of_values() -> None:
    memory = FrameMemory((1, 1))
    memory.add(np.ones((1, 4), np.float32), np.ones((1, 3), np.float32))
    memory.clear()
    assert memory.carry(np.ones((1, 4), np.float32)) is None and memory.columns == 0
    memory.add(np.ones((1, 8), np.float32), np.ones((1, 1), np.float32))
    assert memory.columns == 1
