"""Thresholds of concepts by held-out photographs, on made regions."""

from __future__ import annotations

import numpy as np
import pytest
from patchcut_export.concepts.archives import Regions, Space, unit_rows
from patchcut_export.concepts.held_out import Asked, best_cosines, best_presence, sharpened
from patchcut_export.concepts.learning import Common
from patchcut_export.concepts.thresholds import calibrate

DIM, PHOTOS = 24, 60
ASKED = Asked(keep=0.9, refuse=0.8)
RNG = np.random.default_rng(0)
ORIGIN = np.zeros(DIM, np.float32)
THINGS = RNG.standard_normal((6, DIM)).astype(np.float32)


def archive(thing: np.ndarray, spread: float, seed: int, photos: int = PHOTOS) -> Common:
    """A region an image, around a direction [d]."""
    noise = np.random.default_rng(seed).standard_normal((photos, DIM))
    means = unit_rows((thing + spread * noise).astype(np.float32))
    members = np.arange(1, photos + 1, dtype=np.int32)[:, None]
    images = np.arange(photos)
    rows = means[:, None].astype(np.float16)
    return Common(Regions(means, images, members, rows, ORIGIN), images, np.ones((photos, 1), bool))


def space(archives: list[Common]) -> Space:
    moments = np.stack([one.regions.means.T @ one.regions.means / PHOTOS for one in archives]).astype(float)
    return Space(np.zeros(DIM, np.float32), moments, np.eye(DIM, dtype=np.float32))


def test_what_is_promised_holds_on_photographs_never_seen() -> None:
    concepts = [archive(thing, 0.5, i) for i, thing in enumerate(THINGS[:4])]
    made = calibrate(concepts, [], space(concepts), ASKED)
    values = made.thresholds.values
    kept = [
        best_cosines(archive(thing, 0.5, 50 + i), made.learnt[i].vectors) > values[i]
        for i, thing in enumerate(THINGS[:4])
    ]
    assert made.thresholds.kept >= 0.9 and np.mean(kept) >= 0.88
    named = []
    for i, thing in enumerate(THINGS[4:]):
        other = archive(thing, 0.5, 90 + i)
        best = np.stack([best_cosines(other, one.vectors) for one in made.learnt], axis=1)
        named.append((best > values).any(axis=1))
    assert made.thresholds.refused is not None and made.thresholds.refused >= 0.8
    assert np.mean(named) <= 0.2


def test_what_cannot_be_told_apart_keeps_its_name() -> None:
    concepts = [archive(THINGS[0], 2.0, i) for i in range(3)]  # three names for one thing
    told = calibrate(concepts, [], space(concepts), ASKED).thresholds
    assert told.kept >= 0.9 and told.refused is not None and told.refused < 0.5


def test_negatives_tell_what_a_single_concept_is_not() -> None:
    concept, others = archive(THINGS[0], 0.5, 0), archive(THINGS[1], 0.5, 1)
    assert calibrate([concept], [], space([concept]), ASKED).thresholds.refused is None
    told = calibrate([concept], [others], space([concept, others]), ASKED).thresholds
    assert told.kept >= 0.9 and told.refused is not None and told.refused >= 0.8


def test_directions_in_which_photographs_of_one_concept_differ_count_less() -> None:
    concepts = [archive(thing, 0.1, i) for i, thing in enumerate(THINGS[:3])]
    for one in concepts:
        one.regions.means[:, 0] = np.random.default_rng(9).standard_normal(PHOTOS)
    whole = [np.ones(PHOTOS, bool)] * 3
    moments = np.stack([np.eye(DIM) / DIM] * 3)
    sharp = sharpened(concepts, Space(np.zeros(DIM, np.float32), moments, np.eye(DIM)), whole)
    weights = np.diag(sharp.fold)
    assert weights[0] < 0.2 * np.median(weights)
    np.testing.assert_allclose(sharp.fold, sharp.fold.T, atol=1e-5)


@pytest.mark.parametrize("photos", [2, 3, 7])
def test_few_photographs_are_held_out_one_by_one(photos: int) -> None:
    concepts = [archive(thing, 0.1, i, photos) for i, thing in enumerate(THINGS[:2])]
    made = calibrate(concepts, [], space(concepts), ASKED)
    assert all((one.own > 0).all() for one in made.learnt)


def test_photographs_without_a_region_do_not_lower_a_threshold() -> None:
    """A concept whose thing is often not seen as foreground must not swallow all others."""
    seen = archive(THINGS[0], 0.5, 1)
    often = np.arange(PHOTOS) % 3 > 0
    whole = seen.regions
    members = (np.cumsum(often) * often).astype(np.int32)[:, None]
    regions = Regions(whole.means[often], np.flatnonzero(often), members, whole.rows, ORIGIN)
    unseen = Common(regions, np.arange(int(often.sum())), seen.taken & often[:, None])
    concepts = [unseen, archive(THINGS[1], 0.5, 2)]
    told = calibrate(concepts, [], space([seen, concepts[1]]), ASKED).thresholds
    whole = calibrate([seen, concepts[1]], [], space([seen, concepts[1]]), ASKED).thresholds
    assert told.values.min() > whole.values.min() - 0.2


def of_patches(thing: np.ndarray, spread: float, seed: int) -> Common:
    """A region of twenty patches an image, whose mean is near a direction [d] however the patches differ."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((PHOTOS, 20, DIM))
    centre = unit_rows(thing)[None, None] + 0.1 * rng.standard_normal((PHOTOS, 1, DIM))
    rows = unit_rows((centre + spread * (noise - noise.mean(axis=1, keepdims=True))).astype(np.float32))
    members = np.repeat(np.arange(1, PHOTOS + 1, dtype=np.int32)[:, None], 20, axis=1)
    regions = Regions(
        unit_rows(rows.mean(axis=1)), np.arange(PHOTOS), members, rows.astype(np.float16), ORIGIN
    )
    return Common(regions, np.arange(PHOTOS), members > 0)


def test_the_presence_refuses_what_the_mean_of_a_region_cannot_tell() -> None:
    concept, others = of_patches(THINGS[0], 0.1, 0), of_patches(THINGS[0], 1.0, 1)
    told = calibrate([concept], [others], space([concept, others]), ASKED).thresholds
    made = calibrate([concept], [others], space([concept, others]), ASKED).learnt[0]
    same = np.mean(best_cosines(others, made.vectors) > told.values[0])
    assert same > 0.5, "the thresholds alone take them for the concept"
    assert told.kept >= 0.9 and told.refused is not None and told.refused >= 0.8
    there = best_presence(others, made.vectors, threshold=float(told.values[0])) > told.presence[0]
    assert np.mean(there) < 0.2


def test_presence_is_that_of_regions_above_the_threshold() -> None:
    one = of_patches(THINGS[0], 0.4, 3)
    vectors = unit_rows(THINGS[:1])
    cosines = best_cosines(one, vectors)
    limit = float(np.median(cosines))
    found = best_presence(one, vectors, np.arange(PHOTOS) % 2 == 0, threshold=limit)
    patches = one.regions.rows.astype(np.float64)
    patches /= np.linalg.norm(patches, axis=2, keepdims=True)
    closest = np.sort(patches @ vectors[0], axis=1)[:, -6:].mean(axis=1)
    looked = (cosines > limit) & (np.arange(PHOTOS) % 2 == 0)
    np.testing.assert_allclose(found[looked], closest[looked], atol=1e-4)
    assert (found[~looked] == -1).all() and 10 < looked.sum() < 50
