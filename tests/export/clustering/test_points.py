"""Rows of a collection: selected, centred, read from files, sent to other processes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patchcut.errors import OptionError
from patchcut_export.clustering.points import Points
from patchcut_export.errors import ExportError
from tests.export.clustering.planted import plant


@pytest.fixture
def mapped(tmp_path: Path) -> Any:
    """[40, 50, 3] float16, a memory map, of which the file has more."""
    np.save(tmp_path / "features.npy", plant(2500, 3, 3).reshape(50, 50, 3))
    return np.load(tmp_path / "features.npy", mmap_mode="r")[6:46]


def test_all_rows_are_points_in_order(mapped: Any) -> None:
    points = Points(mapped)
    assert (points.count, points.dim) == (2000, 3)
    np.testing.assert_array_equal(points.read(7, 30), mapped.reshape(-1, 3)[7:30])
    np.testing.assert_array_equal(points.take(np.array([9, 3, 3])), mapped.reshape(-1, 3)[[9, 3, 3]])
    assert points.read(0, 1).dtype == np.float16
    assert points.name(12) == "features[0, 12]"


@pytest.mark.parametrize("kind", ["mask", "flat mask", "numbers", "stretch"])
def test_rows_are_selected_and_centred(mapped: Any, kind: str) -> None:
    mask = np.random.default_rng(0).random(mapped.shape[:2]) < 0.3
    if kind == "stretch":
        mask[:] = np.arange(2000).reshape(mask.shape) // 500 == 2
    selected = {"flat mask": mask.ravel(), "numbers": np.flatnonzero(mask).astype(np.int32)}.get(kind, mask)
    centre = np.float32([0.5, -1, 2])
    expected = mapped[mask].astype(np.float32) - centre
    points = Points(mapped, selected=selected, centre=centre)
    assert points.count == len(expected) > 20
    np.testing.assert_array_equal(points.read(3, 17), expected[3:17])
    np.testing.assert_array_equal(points.take(np.array([19, 0])), expected[[19, 0]])
    assert points.name(4) == f"features[{', '.join(map(str, np.argwhere(mask)[4]))}]"


def test_what_was_read_does_not_change_the_file_and_does_not_stay(mapped: Any) -> None:
    part = Points(mapped).read(0, 10)
    assert not np.shares_memory(part, mapped)


def test_the_digest_is_of_what_is_clustered(mapped: Any) -> None:
    def digest(**changes: Any) -> str:
        return Points(mapped, **changes).sha256(lambda done, total: None)

    mask = np.arange(2000) % 3 == 0
    assert digest(selected=mask) == digest(selected=np.flatnonzero(mask))
    other = mask.copy()
    other[0] = False
    different = {
        digest(),
        digest(selected=mask),
        digest(selected=other),
        digest(centre=np.ones(3, np.float32)),
    }
    assert len(different) == 4


def test_a_memory_map_is_sent_by_its_name(mapped: Any) -> None:
    mask = np.arange(2000) % 7 == 1
    points = Points(mapped, selected=mask, centre=np.float32([1, 2, 3]))
    data = pickle.dumps(points)
    assert len(data) < mapped.nbytes / 2
    np.testing.assert_array_equal(pickle.loads(data).read(0, 20), points.read(0, 20))
    Path(mapped.filename).unlink()
    with pytest.raises(ExportError, match=r"features.npy cannot be read here: .*; put it where every"):
        pickle.loads(data)


def test_an_array_is_sent_whole() -> None:
    features = plant(20, 2, 4)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(Points(features))).read(0, 20), features)


@pytest.mark.parametrize(
    "features, changes, expected",
    [
        ([[1.0]], {}, "[features] must be an array of float16 or float32, got list"),
        (np.zeros((2, 2)), {}, "[features] must be an array of float16 or float32, got float64"),
        (np.zeros(5, np.float32), {}, "[features] must be [N, n, d] or [rows, d], got shape (5,)"),
        (np.zeros((5, 0), np.float32), {}, "[features] must be [N, n, d] or [rows, d], got shape (5, 0)"),
        (np.zeros((4, 4), np.float32)[:, ::2], {}, "[features] must be contiguous, got strides (16, 8)"),
        (None, {"selected": np.ones((2, 3), bool)}, "[selected] must be [4, 2], got shape (2, 3)"),
        (None, {"selected": np.array([1, 1])}, "[selected] must rise, from 0 to 7 at most"),
        (None, {"selected": np.array([-1, 1])}, "[selected] must rise, from 0 to 7 at most"),
        (None, {"selected": np.array([1, 8])}, "[selected] must rise, from 0 to 7 at most"),
        (
            None,
            {"selected": np.array([0.5])},
            "[selected] must be bool, or numbers of rows in one dimension",
        ),
        (
            None,
            {"centre": np.zeros(2, np.float32)},
            "[centre] must be [3] float32 and finite, got float32",
        ),
        (None, {"centre": np.float32([0, 1, np.nan])}, "[centre] must be [3] float32 and finite"),
    ],
)
def test_wrong_arguments(features: Any, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(OptionError) as told:
        Points(np.zeros((4, 2, 3), np.float32) if features is None else features, **changes)
    assert str(told.value).startswith(expected)


@pytest.mark.parametrize("shape, selected", [((0, 3), None), ((4, 3), np.zeros(4, bool))])
def test_no_points_are_an_error(shape: tuple[int, ...], selected: Any) -> None:
    with pytest.raises(ExportError, match=r"\[points\] no row is selected; select at least one"):
        Points(np.zeros(shape, np.float16), selected=selected)
