"""Assignments on a grid that is finer than the patches', and what patches get of them."""

from __future__ import annotations

import numpy as np
import pytest
from patchcut.cells import cells_of, finer_grid, on_cells, patch_means, with_means

GRID = (3, 5)


def simplex(rng: np.random.Generator, *shape: int, sure: float = 1.0) -> np.ndarray:
    """Rows on the simplex, float32; the larger `sure`, the nearer to its corners."""
    exponents = np.exp(sure * rng.standard_normal(shape))
    return (exponents / exponents.sum(axis=-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("cells", [1, 2, 3, 8])
def test_the_number_of_rows_tells_the_grid(cells: int) -> None:
    assert cells_of(cells**2 * 15, GRID) == cells
    assert finer_grid(cells**2 * 15, GRID) == (3 * cells, 5 * cells)


@pytest.mark.parametrize("rows", [0, 1, 14, 16, 30, 45, 61])
def test_other_numbers_of_rows_are_refused(rows: int) -> None:
    what = rf"\[assignment\] must have 15 rows for a grid of \(3, 5\), or 4, 9, \.\.\. .*, got {rows}$"
    with pytest.raises(ValueError, match=what):
        cells_of(rows, GRID)


@pytest.mark.parametrize("cells", [2, 3])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_a_patch_has_the_mean_of_the_cells_that_lie_in_it(cells: int, batch: tuple[int, ...]) -> None:
    rng = np.random.default_rng(cells)
    assignment = simplex(rng, *batch, cells**2 * 15, 4)
    means = patch_means(assignment, GRID)
    assert means.shape == (*batch, 15, 4) and means.dtype == np.float32
    grid = assignment.reshape(*batch, 3 * cells, 5 * cells, 4)
    for i in range(3):
        for j in range(5):
            inside = grid[..., i * cells : (i + 1) * cells, j * cells : (j + 1) * cells, :]
            np.testing.assert_allclose(means[..., 5 * i + j, :], inside.mean(axis=(-3, -2)), atol=1e-6)


def test_a_row_a_patch_stays_as_it_is() -> None:
    rng = np.random.default_rng(0)
    assignment, wanted = simplex(rng, 15, 2), simplex(rng, 15, 2)
    assert patch_means(assignment, GRID) is assignment
    assert on_cells(assignment, GRID, 1) is assignment
    assert with_means(assignment, wanted, GRID) is wanted


@pytest.mark.parametrize("values", [np.arange(15), np.arange(30.0).reshape(15, 2)], ids=["labels", "rows"])
def test_cells_have_what_their_patch_has(values: np.ndarray) -> None:
    spread = on_cells(values, GRID, 3)
    assert spread.dtype == values.dtype and spread.shape == (135, *values.shape[1:])
    grid = spread.reshape(9, 15, *values.shape[1:])
    for i in range(9):
        for j in range(15):
            np.testing.assert_array_equal(grid[i, j], values[5 * (i // 3) + j // 3])


@pytest.mark.parametrize("columns", [2, 3, 5])
@pytest.mark.parametrize("sure", [0.5, 3.0, 40.0])
def test_what_is_shifted_stays_on_the_simplex(columns: int, sure: float) -> None:
    rng = np.random.default_rng(columns)
    assignment, wanted = simplex(rng, 4 * 15, columns, sure=sure), simplex(rng, 15, columns, sure=sure)
    before = np.abs(patch_means(assignment, GRID) - wanted)
    assert before.max() > 0.2, "there must be something to shift"
    shifted = with_means(assignment, wanted, GRID)
    assert shifted.dtype == np.float32 and shifted.shape == assignment.shape
    np.testing.assert_allclose(shifted.sum(axis=1), 1, atol=2e-6)
    assert shifted.min() >= 0
    assert np.abs(patch_means(shifted, GRID) - wanted).mean() < 0.6 * before.mean()


def test_patches_that_have_their_means_stay() -> None:
    rng = np.random.default_rng(1)
    assignment = simplex(rng, 9 * 15, 3, sure=2)
    shifted = with_means(assignment, patch_means(assignment, GRID), GRID)
    np.testing.assert_allclose(shifted, assignment, atol=1e-6)


@pytest.mark.parametrize("cells", [2, 4, 7])
def test_cells_keep_their_detail(cells: int) -> None:
    """What all patches are to have more is added to all cells; what changes slowly is met almost exactly."""
    rng = np.random.default_rng(cells)
    side = rng.uniform(0.35, 0.65, 15 * cells**2).astype(np.float32)
    assignment = np.stack([1 - side, side], axis=1)
    means = patch_means(assignment, GRID)
    more = np.float32([-0.25, 0.25])
    np.testing.assert_allclose(with_means(assignment, means + more, GRID), assignment + more, atol=1e-6)
    slowly = 0.2 * np.sin(np.arange(3)[:, None] + 0.7 * np.arange(5)).astype(np.float32).ravel()
    wanted = means + np.stack([-slowly, slowly], axis=1)
    shifted = with_means(assignment, wanted, GRID)
    assert np.abs(patch_means(shifted, GRID) - wanted).max() < 0.03
    steps = np.abs(np.diff((shifted - assignment)[:, 1].reshape(3 * cells, 5 * cells), axis=1))
    assert steps.max() < 0.27 / cells, "no step where one patch ends"
