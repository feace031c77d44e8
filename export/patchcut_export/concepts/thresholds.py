"""How alike something must be to have a concept's name: thresholds by held-out photographs.

The space of a head is whitened by how features of one concept differ, too (linear discriminant analysis).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from patchcut_export.concepts.archives import Space, inverse_root
from patchcut_export.concepts.learning import Common, Learnt, centres

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

NONE = -1.0  # the cosine of an image without a region
# Of spread within concepts, in shares of 1: of 1/4 to 3/4 all tell folders that are left out as well. Of
# folders alone, 68 % of photographs of others are refused with this shrinkage, and 53 % with 0.1.
WITHIN, SHRINKAGE = 0.5, 0.3
# Of a concept's own quantile and that of all; either alone refuses fewer photographs of folders left out.
_SHARED = 0.5
_SHARES = 41  # of photographs kept, that are looked at
_FOLDS, _GROUPS = 5, 10


@dataclass(frozen=True, eq=False)
class Thresholds:
    """How alike something must be, and what comes of it on the archives.

    Attributes:
        values: [C] float32, a cosine for each concept.
        kept: share of the concepts' own photographs that keep a region, each held out.
        refused: share of photographs of other things in which nothing is named; None without any.
    """

    values: Float32
    kept: float
    refused: float | None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What concepts are to be.

    Attributes:
        keep, refuse: shares of photographs: of a concept's own that keep a region, and of other things in
            which nothing is named.
        count: vectors of a concept, fewer where there are fewer images.
        seed: of k-means.
    """

    keep: float
    refuse: float
    count: int = 1
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Calibrated:
    """Concepts, the space in which they are compared, and their thresholds."""

    space: Space
    learnt: tuple[Learnt, ...]
    thresholds: Thresholds


def calibrate(
    concepts: Sequence[Common], negatives: Sequence[Common], space: Space, asked: Asked
) -> Calibrated:
    """The vectors of concepts, and thresholds half-way between two that break what is asked.

    The highest are those at which a share `keep` of the concepts' photographs keeps a region, the lowest
    those at which nothing is named in a share `refuse` of others. Where both cannot be had, or there are no
    others, thresholds are the highest.

    Photographs of a concept are held out by fifths: from its vectors, and from how its features differ.
    Others are the photographs of concepts, in up to ten groups, and of the negatives, as if they had never
    been seen: looked at with concepts and cosines that are made without them.

    Args:
        concepts: what the images of each archive have in common, in the order of the space's moments.
        negatives: of archives of anything else, whose moments are next.
        space: of all of them, and maybe of more.
    """
    sharp, own = _held_out(concepts, space, asked)
    groups = [
        _unseen(concepts, places, [concepts[i] for i in places], space, asked)
        for places in np.array_split(np.arange(len(concepts)), min(_GROUPS, len(concepts)))
        if len(places) < len(concepts)
    ]
    if negatives:
        places = np.arange(len(concepts), len(concepts) + len(negatives))
        groups.append(_unseen(concepts, places, negatives, space, asked))
    lowest = _lowest_keep(groups, asked)
    values = _half_way(own, asked.keep, lowest)
    learnt = [
        Learnt(_vectors(one, sharp, asked), one.taken, cosines)
        for one, cosines in zip(concepts, own, strict=True)
    ]
    kept = float(np.mean(np.concatenate(own) > np.repeat(values, [len(one) for one in own])))
    share = None
    if groups:
        named = [(best > _half_way(cosines, asked.keep, lowest)).any(axis=1) for cosines, best in groups]
        share = float(1 - np.mean(np.concatenate(named)))
    return Calibrated(sharp, tuple(learnt), Thresholds(values, kept, share))


def sharpened(concepts: Sequence[Common], space: Space, kept: Sequence[Mask]) -> Space:
    """The space that is whitened by how features differ around concepts and, as much, within them.

        (M / tr(M) + V / tr(V)) / 2 + 0.3 / d is what is whitened

    M is the mean moment of the space and V the mean of the concepts' covariances of regions.

    Args:
        kept: [m] bool, the images of each concept whose regions are looked at.
    """
    around = space.moments.mean(axis=0)
    within = np.zeros_like(around)
    for one, images in zip(concepts, kept, strict=True):
        means = _means(one, images).astype(np.float64)
        if len(means) > 1:
            apart = means - means.mean(axis=0)
            within += apart.T @ apart / (len(means) - 1)
    around /= np.trace(around)
    total = np.trace(within)
    mixed = around if total <= 0 else (1 - WITHIN) * around + WITHIN * within / total
    return replace(space, whitening=inverse_root(mixed, SHRINKAGE))


def context_threshold(
    concepts: Sequence[Common],
    learnt: Sequence[Learnt],
    around: Float32,
    thresholds: Float32,
    lost: float = 0.02,
) -> float:
    """The lowest threshold of the background, from 0, that costs no more than `lost` of own photographs.

    Args:
        concepts: what the images of each archive have in common.
        learnt: what was learnt of each.
        around: [p, d] float32, unit, the vectors of context.
        thresholds: [C] float32, the concepts' own.
        lost: share of photographs in which no region is nearer to its concept than to context any more.
    """
    excess = []
    for common, one, threshold in zip(concepts, learnt, thresholds, strict=True):
        means, images = common.regions.means, common.regions.images
        margins = (means @ one.vectors.T).max(axis=1, initial=NONE) - threshold
        above = (means @ around.T).max(axis=1, initial=NONE) - margins
        least = np.full(len(common.taken), np.inf, np.float32)
        np.minimum.at(least, images[margins > 0], above[margins > 0])
        excess.append(least[np.isfinite(least)])
    every = np.concatenate(excess)
    return max(float(np.quantile(every, 1 - lost)), 0.0) if len(every) else 0.0


def best_cosines(common: Common, vectors: Float32) -> Float32:
    """[m] float32, of each image the best cosine of a region to vectors [p, d]; -1 without a region."""
    best = np.full(len(common.taken), NONE, np.float32)
    if len(common.regions.means):
        np.maximum.at(best, common.regions.images, (common.regions.means @ vectors.T).max(axis=1))
    return best


def _held_out(concepts: Sequence[Common], space: Space, asked: Asked) -> tuple[Space, list[Float32]]:
    """The space of all, and of each concept [m] the best cosine of each image to what is made without it."""
    own = [np.full(len(one.taken), NONE, np.float32) for one in concepts]
    for fold in range(_FOLDS):
        kept = [np.arange(len(one.taken)) % _FOLDS != fold for one in concepts]
        sharp = sharpened(concepts, space, kept)
        for one, images, cosines in zip(concepts, kept, own, strict=True):
            if len(_means(one, images)):
                cosines[~images] = best_cosines(one, _vectors(one, sharp, asked, images))[~images]
    return sharpened(concepts, space, [np.ones(len(one.taken), bool) for one in concepts]), own


def _unseen(
    concepts: Sequence[Common], places: Int64, others: Sequence[Common], space: Space, asked: Asked
) -> tuple[list[Float32], Float32]:
    """Cosines [m] of the concepts that are left, held out; and those [q, c] of photographs of others to them.

    Args:
        places: those of the others among the space's moments; of concepts, those which are left out, too.
    """
    rest = [one for i, one in enumerate(concepts) if i not in places]
    left = np.delete(space.moments, places, axis=0)
    sharp, own = _held_out(rest, replace(space, moments=left), asked)
    vectors = [_vectors(one, sharp, asked) for one in rest]
    best = [np.stack([best_cosines(one, rows) for rows in vectors], axis=1) for one in others]
    return own, np.concatenate(best)


def _lowest_keep(groups: Sequence[tuple[Sequence[Float32], Float32]], asked: Asked) -> float:
    """The largest share of own photographs that can be kept while enough of the others are refused."""
    shares = np.linspace(asked.keep, 1, _SHARES)
    for i, share in enumerate(shares):
        refused = [(best <= _values(own, float(share))).all(axis=1) for own, best in groups]
        if not groups or np.mean(np.concatenate(refused)) < asked.refuse:
            return float(shares[max(0, i - 1)])
    return 1.0


def _half_way(own: Sequence[Float32], keep: float, lowest: float) -> Float32:
    values = (_values(own, keep) + _values(own, lowest)) / 2
    return values.astype(np.float32)


def _values(own: Sequence[Float32], keep: float) -> Float32:
    """[C] float32, the highest thresholds, between a concept's own and those of all, that keep so many."""
    every = np.concatenate(own)
    own_values = np.array([_least(one, one > NONE, keep) for one in own], np.float32)
    between = _SHARED * _least(every, every > NONE, keep) + (1 - _SHARED) * own_values
    margins = every - np.repeat(between, [len(one) for one in own])
    moved = (between + _least(margins, every > NONE, keep)).astype(np.float32)
    lower: Float32 = np.nextafter(moved, np.float32(-2))
    return lower


def _least(cosines: Float32, seen: Mask, keep: float) -> float:
    """What `keep` of the photographs reach, and of those with a region at least one.

    A concept whose thing is often not seen as foreground must not swallow all others.
    """
    return max(float(np.quantile(cosines, 1 - keep, method="lower")), float(cosines[seen].min(initial=1)))


def _vectors(common: Common, space: Space, asked: Asked, images: Mask | None = None) -> Float32:
    """[p, d] float32, unit, the vectors of a concept by all of its images or some."""
    return space.folded(centres(_means(common, images), space, asked.count, asked.seed))


def _means(common: Common, images: Mask | None = None) -> Float32:
    """[q, d] float32, of the regions of a concept, or of those on some of its images."""
    parts = common.parts
    return common.regions.means[parts if images is None else parts[images[common.regions.images[parts]]]]
