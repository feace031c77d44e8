"""Concepts shown to a head whose features are compared where they are whitened."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from patchcut.concepts.columns import joined
from patchcut.concepts.learning import folded, learn, unfolded
from patchcut.concepts.shown import Shown
from patchcut.heads.naming import presence
from patchcut.heads.prototypes import Prototypes

DIM, NUISANCE = 32, 6
GRID = (6, 6)
RNG = np.random.default_rng(3)
THINGS = RNG.standard_normal((4, DIM)).astype(np.float32)
LOUD = np.ones(DIM, np.float32)
LOUD[:NUISANCE] = 5  # in which all images differ, whatever they show


def image(thing: int, seed: int) -> Shown:
    """Nine patches of a thing in the middle."""
    rng = np.random.default_rng(seed)
    rows = (0.3 * rng.standard_normal((36, DIM)) + rng.standard_normal(DIM) * LOUD).astype(np.float32)
    inside = np.zeros(GRID, bool)
    inside[1:4, 1:4] = True
    rows[inside.ravel()] += 2.5 * THINGS[thing]
    return Shown(rows, inside.ravel(), ~inside.ravel(), inside.ravel().astype(np.float32), GRID)


def region(shown: Shown) -> np.ndarray:
    rows = shown.rows[shown.inside]
    mean = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)
    made: np.ndarray = mean / np.linalg.norm(mean)
    return made


def head(fold: np.ndarray | None) -> Prototypes:
    """Two concepts of thirty images each, whose thresholds keep nine in ten."""
    vectors, thresholds = [], [0.0]
    for thing in (0, 1):
        regions = np.stack([region(image(thing, 1000 * thing + i)) for i in range(30)])
        mean = regions.mean(axis=0, keepdims=True)
        vectors.append(folded(mean / np.linalg.norm(mean), fold))
        thresholds.append(float(np.quantile(regions @ vectors[-1][0], 0.1)))
    owners = np.array([1, 2], np.int32)
    return Prototypes(
        np.concatenate(vectors), np.zeros(DIM, np.float32), owners, np.float32(thresholds), fold
    )


def named(head: Prototypes, thing: int) -> np.ndarray:
    """[k] the share of forty other images of a thing that has each column's name."""
    assert head.thresholds is not None
    columns = []
    for i in range(40):
        cosines = head.vectors @ region(image(thing, 5000 + 100 * thing + i))
        best = [cosines[head.owners == c].max(initial=-2) for c in range(len(head.thresholds))]
        margins = np.array(best) - head.thresholds
        margins[0] = max(margins[0], 0)
        columns.append(int(margins.argmax()))
    return np.bincount(columns, minlength=len(head.thresholds)) / 40


FOLD = np.diag(1 / LOUD**2).astype(np.float32)


def test_what_is_shown_is_found_and_takes_nothing_from_the_others() -> None:
    before = head(FOLD)
    learnt = learn([image(2, 300 + i) for i in range(6)], before, by_region=True)
    after = joined(before, learnt, 3)
    assert after.fold is before.fold
    assert named(after, 2)[3] > 0.8
    for thing in (0, 1):
        assert named(before, thing)[thing + 1] >= 0.7
        assert named(after, thing)[thing + 1] >= 0.7 and named(after, thing)[3] < 0.1
    assert named(after, 3)[3] < 0.3


def test_directions_that_were_folded_are_told() -> None:
    root = np.random.default_rng(0).standard_normal((8, 8))
    fold = (root @ root.T + np.eye(8)).astype(np.float32)
    directions = np.eye(8, dtype=np.float32)[:3]
    np.testing.assert_allclose(unfolded(folded(directions, fold), fold), directions, atol=1e-4)
    assert folded(directions, None) is directions and unfolded(directions, None) is directions


def test_one_image_has_the_smallest_threshold_of_the_others() -> None:
    before = head(FOLD)
    assert before.thresholds is not None
    learnt = learn([image(2, 7)], before, by_region=True)
    assert learnt.threshold == float(before.thresholds[1:].min()) and learnt.presence == -1
    asking = replace(before, presence=np.float32([-1, 0.4, 0.3]))
    assert learn([image(2, 7)], asking, by_region=True).presence == np.float32(0.3)


def test_what_is_shown_has_to_be_there() -> None:
    """By how much of each image is like the others; neither above a bound nor beyond the head's limits."""
    shown = [image(2, 300 + i) for i in range(6)]
    empty = replace(head(None), vectors=np.zeros((0, DIM), np.float32), owners=np.zeros(0, np.int32))
    limit = learn(shown, empty, by_region=True).presence
    assert -1 < limit <= 0.75
    assert learn(shown, empty, by_region=False).presence == -1
    other = image(2, 400)
    vectors = learn(shown, empty, by_region=True).vectors
    assert presence(other.rows[other.inside], vectors) > limit > presence(other.rows[other.around], vectors)
    asking = replace(head(FOLD), presence=np.float32([-1, 0.05, 0.1]))
    assert learn(shown, asking, by_region=True).presence == np.float32(0.1)
