"""From patches that show a concept to its prototypes, its limits, and what is around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

from patchcut.concepts.shown import Shown
from patchcut.heads.naming import ANYWHERE, mean_of_closest, unit
from patchcut.heads.prototypes import Prototypes

Float32 = npt.NDArray[np.float32]

# Directions of a concept beside the mean of all, and of what is around it; a direction has so many patches.
PIECES, AROUND, PATCHES_EACH = 3, 3, 8
# Of thresholds and presence. Of 22 concepts, each shown on 5 photographs, 92 % of other photographs of it
# keep it, and 15 % of those of another are taken for it; shown on 2 it is 87 and 19 %, on one 80 and 19 %.
_ALONE, _MOST, _DEVIATION, _MORE = 0.61, 0.75, 0.06, 2
# A patch is so much closer to prototypes that it is a part of; what is around is below this quantile.
_CLOSER, _REST, _MOST_OF_PATCHES = 0.15, 0.9, 0.55


@dataclass(frozen=True, eq=False)
class Learnt:
    """What was learnt of a concept.

    Attributes:
        vectors: [p, d] float32, unit, of features less the mean.
        threshold: cosine that it must exceed.
        context: [c, d] float32, unit, of what is around it.
        presence: what `patchcut.heads.naming.presence` of it must exceed; -1 asks for nothing.
    """

    vectors: Float32
    threshold: float
    context: Float32
    presence: float = ANYWHERE


def common_mean(means: Sequence[Float32]) -> Float32:
    """[d] float32, the mean of the mean features [d] of images."""
    mean: Float32 = np.mean(np.stack(means), axis=0, dtype=np.float32)
    return mean


def learn(shown: Sequence[Shown], old: Prototypes, *, by_region: bool) -> Learnt:
    """The prototypes of what is shown, the limits above which something is it, and what is around it.

    The prototypes are the mean direction of the concept's patches and up to three clusters of them, folded
    as those of the head are.

    Args:
        shown: images of the concept, whose patches inside are of it.
        old: what the head knows: the mean of all features, how they are compared, and other thresholds.
        by_region: whether regions are named, by the mean of their patches, or each patch by itself.
    """
    inside = [centred(one.rows, old.mean)[one.inside] for one in shown]
    around = np.concatenate([centred(one.rows, old.mean)[one.around] for one in shown])
    vectors = folded(directions(np.concatenate(inside)), old.fold)
    if old.fold is not None and by_region:
        threshold = folded_threshold(inside, old)
    else:
        threshold = region_threshold(inside) if by_region else patch_threshold(inside, around, old.fold)
    context = clusters(around, AROUND)
    context = folded(context[nearest(context, vectors) <= threshold], old.fold)
    return Learnt(vectors, threshold, context, presence_limit(inside, old) if by_region else ANYWHERE)


def folded(directions: Float32, fold: Float32 | None) -> Float32:
    """[p, d] float32, unit, what features are compared to for directions [p, d]; those without a fold."""
    return directions if fold is None else unit(directions @ fold)


def unfolded(vectors: Float32, fold: Float32 | None) -> Float32:
    """[p, d] float32, unit, the directions that were folded to vectors [p, d]."""
    return vectors if fold is None else unit(np.linalg.solve(fold, vectors.T).T.astype(np.float32))


def folded_threshold(inside: Sequence[Float32], old: Prototypes) -> float:
    """The cosine that the region of a concept exceeds where features are whitened.

    As `region_threshold` has it, but no more than the largest threshold of the head's concepts, and no less
    than their smallest, which is taken where one image has none to be compared with.

    Args:
        inside: of each image its patches [m, d] float32 of the concept, unit.
        old: prototypes with a fold.
    """
    known = np.zeros(1) if old.thresholds is None or len(old.thresholds) < 2 else old.thresholds[1:]
    if len(inside) < 2:
        return float(known.min())
    return float(np.clip(_low(_held_out_cosines(inside, old.fold)), known.min(), known.max()))


def region_threshold(inside: Sequence[Float32]) -> float:
    """The cosine that the region of a concept exceeds, by how much the images that show it are alike.

    Two deviations below the mean of each image's cosine to the prototypes of the others; the deviation is
    that of these numbers and of two more that are 0.06 away. Images of one scene are more alike than the
    concept will be elsewhere, so it is 0.75 at most; 0.61 where one image has none to be compared with.

    Args:
        inside: of each image its patches [m, d] float32 of the concept, unit.
    """
    if len(inside) < 2:
        return _ALONE
    return min(_low(_held_out_cosines(inside)), _MOST)


def presence_limit(inside: Sequence[Float32], old: Prototypes) -> float:
    """What the presence of a concept exceeds, from that of each image to the prototypes of the others.

    Two deviations below their mean, as for thresholds: 0.75 at most, or between the limits of the head's own
    concepts where features are whitened. One image asks for nothing, or for the smallest of theirs.

    Args:
        inside: of each image its patches [m, d] float32 of the concept, unit.
        old: what the head knows.
    """
    limits = np.zeros(0, np.float32) if old.fold is None or old.presence is None else old.presence[1:]
    known = limits[limits > ANYWHERE]
    if len(inside) < 2:
        return float(known.min()) if len(known) else ANYWHERE
    pairs = zip(inside, _held_out(inside, old.fold), strict=True)
    low = _low(np.array([mean_of_closest(nearest(rows, those)) for rows, those in pairs], np.float32))
    return float(np.clip(low, known.min(), known.max())) if len(known) else min(low, _MOST)


def patch_threshold(inside: Sequence[Float32], around: Float32, fold: Float32 | None = None) -> float:
    """The cosine that patches of a concept exceed: between those of half its patches and of what is around.

    Args:
        inside: as above.
        around: [m, d] float32, unit, patches around the concept.
        fold: [d, d] float32, of the head's prototypes.
    """
    if len(inside) < 2:
        own = float(np.median(nearest(inside[0], folded(directions(inside[0]), fold)))) - _CLOSER
    else:
        each = zip(inside, _held_out(inside, fold), strict=True)
        own = float(np.median(np.concatenate([nearest(rows, those) for rows, those in each])))
    vectors = folded(directions(np.concatenate(list(inside))), fold)
    rest = float(np.quantile(nearest(around, vectors), _REST)) if len(around) else 0.0
    return min((own + rest) / 2, _MOST_OF_PATCHES)


def _held_out(inside: Sequence[Float32], fold: Float32 | None = None) -> list[Float32]:
    """For each image the prototypes of all the others."""
    others = (np.concatenate([*inside[:i], *inside[i + 1 :]]) for i in range(len(inside)))
    return [folded(directions(rows), fold) for rows in others]


def _held_out_cosines(inside: Sequence[Float32], fold: Float32 | None = None) -> Float32:
    """[m] float32, of each image's region to the prototypes of the others."""
    regions = (unit(rows.mean(axis=0, keepdims=True)) for rows in inside)
    each = zip(regions, _held_out(inside, fold), strict=True)
    return np.array([nearest(region, vectors)[0] for region, vectors in each], np.float32)


def _low(cosines: Float32) -> float:
    """Two deviations below their mean; the deviation is theirs, and that of two more that are 0.06 away."""
    squares = float(np.sum(np.square(cosines - cosines.mean()))) + _MORE * _DEVIATION**2
    return float(np.mean(cosines) - 2 * np.sqrt(squares / (len(cosines) - 1 + _MORE)))


def centred(rows: Float32, mean: Float32) -> Float32:
    """[n, d] float32, unit rows of features less their mean; rows of zeros stay."""
    return unit(rows - mean)


def directions(rows: Float32) -> Float32:
    """[1 + k, d] float32, unit: the mean of unit rows, and their clusters where there are several."""
    return np.concatenate([unit(rows.mean(axis=0, keepdims=True)), clusters(rows, PIECES)])


def clusters(rows: Float32, most: int) -> Float32:
    """[k, d] float32, unit centres of up to `most` clusters of unit rows, of eight patches or more each."""
    k = min(most, len(rows) // PATCHES_EACH)
    if k < 2:
        return np.zeros((0, rows.shape[1]), np.float32)
    return kernels.kmeans(np.ascontiguousarray(rows), k, metric="cosine").centroids


def nearest(rows: Float32, vectors: Float32) -> Float32:
    """[n] float32, the largest cosine of unit rows to unit vectors."""
    if not len(rows):
        return np.zeros(0, np.float32)
    return kernels.assign(np.ascontiguousarray(rows), np.ascontiguousarray(vectors)).similarity
