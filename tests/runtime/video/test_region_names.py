"""Names of regions in a stream: they change only where another is clearly it, and when names come and go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pytest
from patchcut import Features, Frame
from patchcut.stages import Canvas, Masks, Rules
from patchcut.stages.regions import Regions
from patchcut.video import Continuity

GRID_HW, SIDE = (8, 8), 64
LABELS = ("background", "cup", "bowl")
CANVAS = Canvas((SIDE, SIDE), (0, 0), (SIDE, SIDE), GRID_HW)
MASKS = Masks(0.5, Rules())
INSIDE = np.zeros(GRID_HW, bool)
INSIDE[2:6, 2:6] = True


def shares(**of: float) -> np.ndarray:
    """[n, k]: background, but for one thing that is so much of each name."""
    values = np.zeros((*GRID_HW, len(LABELS)), np.float32)
    values[..., 0] = 1
    values[INSIDE] = [0.1, *(0.9 * of.get(name, 0.0) for name in LABELS[1:])]
    return values.reshape(-1, len(LABELS))


def results(
    assignments: Sequence[np.ndarray], labels: Sequence[tuple[str, ...]] = (), *, named: bool = True
) -> Iterator[tuple[np.ndarray, Regions, list[int]]]:
    """What each frame of a still scene becomes: its steady assignment, its regions and their ids."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((len(INSIDE.ravel()), 16)).astype(np.float32)
    rows[INSIDE.ravel()] += 4
    features = Features({"key": rows[None]}, GRID_HW)
    continuity = Continuity()
    frame = Frame(np.zeros((SIDE, SIDE, 3), np.uint8))
    for i, assignment in enumerate(assignments):
        own = labels[i] if labels else LABELS
        continuity.begin(features)
        steady = continuity.steady(assignment, own)
        components = MASKS.components(frame, steady, CANVAS)
        found, ids = continuity.regions(components, CANVAS, MASKS.rules, 1, own if named else ())
        yield steady, found, ids.tolist()


CUP, BARELY_BOWL, BOWL = shares(cup=1.0), shares(cup=0.48, bowl=0.52), shares(bowl=1.0)


def test_a_name_stays_while_another_is_barely_more() -> None:
    found = [one for _, one, _ in results([CUP] * 3 + [BARELY_BOWL] * 30)]
    assert {int(one.region_labels[0]) for one in found} == {1}
    for one in found:
        np.testing.assert_array_equal(one.label_map, np.where(one.region_ids > 0, 1, 0))
    without = [one for _, one, _ in results([CUP] * 3 + [BARELY_BOWL] * 30, named=False)]
    assert int(without[-1].region_labels[0]) == 2


def test_a_name_changes_where_another_is_clearly_it() -> None:
    made = list(results([CUP] * 3 + [BOWL] * 20))
    assert [int(one.region_labels[0]) for _, one, _ in made][::22] == [1, 2]
    assert {tuple(ids) for _, _, ids in made} == {(1,)}


def test_a_name_that_wavers_changes_once_at_most() -> None:
    wavering = [BOWL if i % 2 else CUP for i in range(40)]
    names = [int(one.region_labels[0]) for _, one, _ in results(wavering)]
    assert sum(a != b for a, b in pairwise(names)) <= 1


def test_names_that_come_and_go_leave_tracks_alone_and_are_there_at_once() -> None:
    """A column is put before the others, and later the thing's own is taken away."""
    more = ("background", "plate", "cup", "bowl")
    wider = np.insert(BOWL, 1, 0, axis=1)
    narrow = shares(cup=1.0)[:, :2]
    labels = [LABELS] * 5 + [more] * 5 + [LABELS[:2]] * 5
    made = list(results([CUP] * 5 + [wider] * 5 + [narrow] * 5, labels))
    names = [one_labels[one.region_labels[0]] for (_, one, _), one_labels in zip(made, labels, strict=True)]
    assert names == ["cup"] * 5 + ["bowl"] * 5 + ["cup"] * 5
    assert {tuple(ids) for _, _, ids in made} == {(1,)}
    for steady, _, _ in made:
        np.testing.assert_allclose(steady.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("k", [2, 3])
def test_the_first_frame_is_what_the_head_says(k: int) -> None:
    steady, _, _ = next(results([CUP[:, :k]], [LABELS[:k]]))
    np.testing.assert_array_equal(steady, CUP[:, :k])
