"""Photographs beside concepts that were made without them: their own, held out by fifths, and others.

The space of a head is whitened by how features of one concept differ, too (linear discriminant analysis).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
from patchcut.heads.naming import presence

from patchcut_export.concepts.archives import Space, inverse_root
from patchcut_export.concepts.learning import Common, centres

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

NONE = -1.0  # the cosine of an image without a region
# Of spread within concepts, in shares of 1: of 1/4 to 3/4 all tell folders that are left out as well. Of
# folders alone, 68 % of photographs of others are refused with this shrinkage, and 53 % with 0.1.
WITHIN, SHRINKAGE = 0.5, 0.3
_FOLDS = 5


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


def best_cosines(common: Common, vectors: Float32, images: Mask | None = None) -> Float32:
    """[m] float32, of each image the best cosine of a region to vectors [p, d]; -1 without a region.

    Args:
        images: [m] bool, those that are looked at; None for all. Others may have any number.
    """
    best = np.full(len(common.taken), NONE, np.float32)
    if len(common.regions.means):
        np.maximum.at(best, common.regions.images, (common.regions.means @ vectors.T).max(axis=1))
    return best


def best_presence(
    common: Common, vectors: Float32, images: Mask | None = None, *, threshold: float
) -> Float32:
    """[m] float32, of each image the largest presence in a region whose cosine exceeds a threshold; else -1.

    Args:
        vectors: [p, d] float32, of one concept.
        images: as above.
    """
    best = np.full(len(common.taken), NONE, np.float32)
    regions = common.regions
    if len(regions.means):
        above = (regions.means @ vectors.T).max(axis=1) > threshold
        for region in np.flatnonzero(above if images is None else above & images[regions.images]):
            image = regions.images[region]
            best[image] = max(best[image], presence(regions.patches(int(region)), vectors))
    return best


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Photographs of concepts, held out by fifths.

    Attributes:
        concepts: what the images of each archive have in common.
        space: of all of them.
        vectors: of each concept those made without each fifth; None where that leaves no region.
    """

    concepts: Sequence[Common]
    space: Space
    vectors: list[list[Float32 | None]]

    def cosines(self) -> list[Float32]:
        """Of each concept [m] float32: of each image the best cosine of a region to the vectors."""
        return [self._each(i, best_cosines) for i in range(len(self.concepts))]

    def presence(self, thresholds: Float32) -> list[Float32]:
        """Of each concept [m] float32: of each image the best presence, by thresholds [C]."""
        return [
            self._each(i, partial(best_presence, threshold=float(thresholds[i])))
            for i in range(len(self.concepts))
        ]

    def _each(self, place: int, best: Callable[[Common, Float32, Mask], Float32]) -> Float32:
        one = self.concepts[place]
        found = np.full(len(one.taken), NONE, np.float32)
        for fold, vectors in enumerate(self.vectors[place]):
            if vectors is not None:
                images = _of_fold(one, fold)
                found[images] = best(one, vectors, images)[images]
        return found


@dataclass(frozen=True, eq=False)
class Unseen:
    """Photographs of others, and the concepts that were made without them.

    Attributes:
        held: of the concepts.
        vectors: of each.
        others: what the photographs of each other archive are.
    """

    held: HeldOut
    vectors: list[Float32]
    others: Sequence[Common]

    def cosines(self) -> Float32:
        """[q, c] float32, of each photograph the best cosine of a region to each concept."""
        each = [np.stack([best_cosines(one, rows) for rows in self.vectors], axis=1) for one in self.others]
        return np.concatenate(each)

    def presence(self, thresholds: Float32) -> Float32:
        """[q, c] float32, of each photograph the best presence of each concept, by thresholds [c]."""
        pairs = [*zip(self.vectors, thresholds, strict=True)]
        each = [
            np.stack([best_presence(one, rows, threshold=float(limit)) for rows, limit in pairs], axis=1)
            for one in self.others
        ]
        return np.concatenate(each)


def hold_out(concepts: Sequence[Common], space: Space, asked: Asked) -> HeldOut:
    """The photographs of concepts beside what is made without each fifth of them, and the space of all."""
    vectors: list[list[Float32 | None]] = [[] for _ in concepts]
    for fold in range(_FOLDS):
        kept = [~_of_fold(one, fold) for one in concepts]
        sharp = sharpened(concepts, space, kept)
        for one, images, each in zip(concepts, kept, vectors, strict=True):
            each.append(vectors_of(one, sharp, asked, images) if len(_means(one, images)) else None)
    every = sharpened(concepts, space, [np.ones(len(one.taken), bool) for one in concepts])
    return HeldOut(concepts, every, vectors)


def _of_fold(common: Common, fold: int) -> Mask:
    """[m] bool, the images of one fifth."""
    images: Mask = np.arange(len(common.taken)) % _FOLDS == fold
    return images


def compare_unseen(
    concepts: Sequence[Common], places: Int64, others: Sequence[Common], space: Space, asked: Asked
) -> Unseen:
    """Photographs of others beside the concepts that are left.

    Args:
        places: those of the others among the space's moments; of concepts, those which are left out, too.
    """
    rest = [one for i, one in enumerate(concepts) if i not in places]
    left = np.delete(space.moments, places, axis=0)
    held = hold_out(rest, replace(space, moments=left), asked)
    return Unseen(held, [vectors_of(one, held.space, asked) for one in rest], others)


def vectors_of(common: Common, space: Space, asked: Asked, images: Mask | None = None) -> Float32:
    """[p, d] float32, unit, the vectors of a concept by all of its images or some."""
    return space.folded(centres(_means(common, images), space, asked.count, asked.seed))


def _means(common: Common, images: Mask | None = None) -> Float32:
    """[q, d] float32, of the regions of a concept, or of those on some of its images."""
    parts = common.parts
    return common.regions.means[parts if images is None else parts[images[common.regions.images[parts]]]]
