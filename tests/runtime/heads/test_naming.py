"""Margins of columns that have several directions, against the formula in float64; some of a head's names."""

from __future__ import annotations

import numpy as np
import pytest
from patchcut.heads import ChosenNames
from patchcut.heads.naming import RegionNamer, presence

from tests.runtime.patches import features_of


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize("owners", [[0, 1, 2, 3], [2, 0, 1, 3, 2, 2, 0, 1], [1, 2, 3, 3, 3], [0, 1, 1, 3, 2]])
@pytest.mark.parametrize("bounded", [True, False])
def test_margins_are_the_largest_cosines_less_thresholds(owners: list[int], bounded: bool) -> None:
    rng = np.random.default_rng(len(owners))
    directions = unit(rng.standard_normal((len(owners), 24)))
    rows = rng.standard_normal((50, 24)) * rng.uniform(0.1, 9, (50, 1))
    rows[:5] = directions[:5, :].mean(axis=0) * 3
    thresholds = rng.uniform(0.1, 0.5, 4) if bounded else None
    namer = RegionNamer(
        directions.astype(np.float32),
        np.array(owners, np.int32),
        None if thresholds is None else thresholds.astype(np.float32),
    )
    cosines = unit(rows) @ directions.T
    expected = np.full((50, 4), -np.inf)
    for column in set(owners):
        expected[:, column] = cosines[:, np.array(owners) == column].max(axis=1)
    if thresholds is not None:
        expected -= thresholds
        expected[:, 0] = np.maximum(expected[:, 0], 0)
    found = namer.margins(rows.astype(np.float32))
    assert found.flags.c_contiguous
    there = np.isfinite(expected)
    np.testing.assert_allclose(found[there], expected[there], atol=2e-6)
    assert (found[~there] <= -2).all()


def test_margins_of_several_hundred_classes() -> None:
    rng = np.random.default_rng(0)
    directions = unit(rng.standard_normal((700, 64)))
    rows = rng.standard_normal((9, 64))
    found = RegionNamer(
        directions.astype(np.float32), np.arange(700, dtype=np.int32), np.full(700, 0.2, np.float32)
    ).margins(rows.astype(np.float32))
    expected = unit(rows) @ directions.T - 0.2
    expected[:, 0] = np.maximum(expected[:, 0], 0)
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("patches", [1, 2, 3, 4, 10, 31])
def test_presence_is_the_mean_of_the_closest_patches(patches: int) -> None:
    rng = np.random.default_rng(patches)
    rows = rng.standard_normal((patches, 24)) * rng.uniform(0.1, 9, (patches, 1))
    directions = unit(rng.standard_normal((3, 24)))
    nearest = (unit(rows) @ directions.T).max(axis=1)
    count = -(-3 * patches // 10)
    expected = sorted(nearest)[-count:]
    found = presence(rows.astype(np.float32), directions.astype(np.float32))
    assert found == pytest.approx(np.mean(expected), abs=1e-6)


AXES = np.eye(8, dtype=np.float32)


def two_regions(first: float, second: float) -> tuple[np.ndarray, np.ndarray]:
    """[16, 8] features of two regions of four patches whose means are all AXES[0], and where they are.

    Patches of a region have a cosine to it, and differ in directions that cancel each other.
    """
    rows = np.zeros((4, 4, 8), np.float32)
    rows[:, :, 7] = 1
    for column, cosine in ((0, first), (3, second)):
        rest = np.sqrt(1 - cosine**2) * np.array([1, -1, 1, -1])
        rows[:, column] = cosine * AXES[0] + rest[:, None] * AXES[[1, 1, 2, 2]]
    inside = np.zeros((4, 4), bool)
    inside[:, [0, 3]] = True
    return rows.reshape(16, 8), inside.ravel()


@pytest.mark.parametrize(
    ("cosines", "limit", "named"),
    [
        ((0.9, 0.9), 0.5, {1}),
        ((0.9, 0.4), 0.5, {1}),
        ((0.4, 0.4), 0.5, {0}),
        ((0.4, 0.4), -1.0, {1}),
    ],
)
def test_a_column_is_there_if_one_of_its_regions_has_its_presence(
    cosines: tuple[float, float], limit: float, named: set[int]
) -> None:
    """Means say the same of all of them, so that thresholds cannot tell."""
    rows, inside = two_regions(*cosines)
    owners, thresholds = np.array([1, 2], np.int32), np.float32([0, 0.8, 0.8])
    namer = RegionNamer(AXES[[0, 3]], owners, thresholds, np.float32([-1, limit, 0.99]))
    mean = np.zeros(8, np.float32)
    assert set(namer(rows, mean, inside, (4, 4))[inside]) == named
    without = RegionNamer(AXES[[0, 3]], owners, thresholds)
    assert set(without(rows, mean, inside, (4, 4))[inside]) == {1}


class Fixed:
    name, labels, needs, devices, named = "fixed", ("background", "a", "b", "c"), (), ("cpu",), True
    label_colors = (0, 7, 8, 9)

    def __call__(self, features: object) -> np.ndarray:
        return np.float32([[[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]]])


def test_what_has_another_name_is_background() -> None:
    chosen = ChosenNames(Fixed(), {"a", "c"})
    assert chosen.labels == ("background", "b") and chosen.label_colors == (0, 8) and chosen.named
    features = features_of(np.ones((2, 3), np.float32), (1, 2))
    np.testing.assert_allclose(chosen(features)[0], [[0.7, 0.3], [0.9, 0.1]], atol=1e-6)
