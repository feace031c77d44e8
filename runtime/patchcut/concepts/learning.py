"""From patches that show a concept to its prototypes, its threshold, and what is around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

from patchcut.concepts.shown import Mask, Shown

Float32 = npt.NDArray[np.float32]

# Directions of a concept beside the mean of all, and of what is around it; a direction has so many patches.
PIECES, AROUND, PATCHES_EACH = 3, 3, 8


@dataclass(frozen=True, eq=False)
class Learnt:
    """What was learnt of a concept.

    Attributes:
        vectors: [p, d] float32, unit, of features less the mean.
        threshold: cosine that it must exceed.
        context: [c, d] float32, unit, of what is around it.
    """

    vectors: Float32
    threshold: float
    context: Float32


def common_mean(images: Sequence[Shown]) -> Float32:
    """[d] float32, the mean of the images' mean features."""
    mean: Float32 = np.mean([one.rows[one.inside | one.around].mean(axis=0) for one in images], axis=0)
    return mean.astype(np.float32)


def learn(shown: Sequence[Shown], others: Sequence[Shown], mean: Float32, *, by_region: bool) -> Learnt:
    """The prototypes of what is shown, and the threshold that tells it from what is around and from others.

    The prototypes are the mean direction of the concept's patches and up to three clusters of them. The
    threshold is in the middle of the gap that tells best the cosines of the concept from those of all else;
    where several images show it, those of each image are to the prototypes of the others.

    Args:
        shown: images of the concept, whose patches inside are of it.
        others: images without it.
        mean: [d] float32, what all features have in common.
        by_region: whether regions are named, by the mean of their patches, or each patch by itself.
    """
    inside = [centred(one.rows, mean)[one.inside] for one in shown]
    around = [centred(one.rows, mean)[one.around] for one in [*shown, *others]]
    vectors = directions(np.concatenate(inside))
    held_out = [
        directions(np.concatenate(inside[:i] + inside[i + 1 :])) if len(inside) > 1 else vectors
        for i in range(len(inside))
    ]
    own = [
        nearest(regions_of(rows) if by_region else rows, those)
        for rows, those in zip(inside, held_out, strict=True)
    ]
    rest = [nearest(regions_of(rows) if by_region else rows, vectors) for rows in around if len(rows)]
    if by_region:
        rest += [nearest(rows, vectors) for one in others if len(rows := foreground_of(one, mean))]
    threshold = between(np.concatenate(own), np.concatenate(rest) if rest else np.zeros(0, np.float32))
    beside = np.concatenate([centred(one.rows, mean)[one.around] for one in shown])
    context = clusters(beside, AROUND)
    return Learnt(vectors, threshold, context[nearest(context, vectors) <= threshold])


def centred(rows: Float32, mean: Float32) -> Float32:
    """[n, d] float32, unit rows of features less their mean; rows of zeros stay."""
    return _unit(rows - mean)


def directions(rows: Float32) -> Float32:
    """[1 + k, d] float32, unit: the mean of unit rows, and their clusters where there are several."""
    return np.concatenate([_unit(rows.mean(axis=0, keepdims=True)), clusters(rows, PIECES)])


def clusters(rows: Float32, most: int) -> Float32:
    """[k, d] float32, unit centres of up to `most` clusters of unit rows, of eight patches or more each."""
    k = min(most, len(rows) // PATCHES_EACH)
    if k < 2:
        return np.zeros((0, rows.shape[1]), np.float32)
    return kernels.kmeans(np.ascontiguousarray(rows), k, metric="cosine").centroids


def regions_of(rows: Float32) -> Float32:
    """[1, d] float32, the mean direction of patches that are one region."""
    return _unit(rows.mean(axis=0, keepdims=True))


def foreground_of(image: Shown, mean: Float32) -> Float32:
    """[0 or 1, d] float32, the mean direction of an image's foreground."""
    found: Mask = np.zeros(len(image.rows), bool) if image.foreground is None else image.foreground > 0.5
    rows = centred(image.rows, mean)[found & image.around]
    return regions_of(rows) if len(rows) else rows


def nearest(rows: Float32, vectors: Float32) -> Float32:
    """[n] float32, the largest cosine of unit rows to unit vectors."""
    if not len(rows):
        return np.zeros(0, np.float32)
    return kernels.assign(np.ascontiguousarray(rows), np.ascontiguousarray(vectors)).similarity


def between(own: Float32, rest: Float32) -> float:
    """The value above which are most of the own numbers, by share, and below which most of the rest.

    It is in the middle of the widest gap of those that tell them apart equally well; with no rest half of the
    least own number.
    """
    if not len(rest):
        return float(own.min()) / 2
    values = np.unique(np.concatenate([own, rest]))
    if len(values) < 2:
        return float(values[0])
    middles, gaps = (values[1:] + values[:-1]) / 2, np.diff(values)
    told = (own[:, None] > middles).mean(axis=0) + (rest[:, None] <= middles).mean(axis=0)
    best = np.flatnonzero(told >= told.max() - 1e-9)
    return float(middles[best[gaps[best].argmax()]])


def _unit(rows: Float32) -> Float32:
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    made: Float32 = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return made
