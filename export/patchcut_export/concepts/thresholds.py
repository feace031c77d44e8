"""How alike something must be to have a concept's name, and to be there at all: by held-out photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from patchcut_export.concepts.archives import Space
from patchcut_export.concepts.held_out import NONE, Asked, compare_unseen, hold_out, vectors_of
from patchcut_export.concepts.learning import Common, Learnt

Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# Of a concept's own quantile and that of all; either alone refuses fewer photographs of folders left out.
_SHARED = 0.5
_SHARES = 41  # of photographs kept, that are looked at
_GROUPS = 10


@dataclass(frozen=True, eq=False)
class Thresholds:
    """How alike something must be, and what comes of it on the archives.

    Attributes:
        values: [C] float32, a cosine for each concept that a region exceeds.
        presence: [C] float32, for each what the presence in one such region of a frame exceeds.
        kept: share of the concepts' own photographs that keep a region, each held out.
        refused: share of photographs of other things in which nothing is named; None without any.
    """

    values: Float32
    presence: Float32
    kept: float
    refused: float | None


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
    others, thresholds are the highest. Limits of the presence are made by the same rule, with the presence
    in regions that exceed these thresholds; a photograph without such a region has lost its name already.

    Photographs of a concept are held out by fifths: from its vectors, and from how its features differ.
    Others are the photographs of concepts, in up to ten groups, and of the negatives, as if they had never
    been seen: looked at with concepts and cosines that are made without them.

    Args:
        concepts: what the images of each archive have in common, in the order of the space's moments.
        negatives: of archives of anything else, whose moments are next.
        space: of all of them, and maybe of more.
    """
    whole = hold_out(concepts, space, asked)
    groups = [
        compare_unseen(concepts, places, [concepts[i] for i in places], space, asked)
        for places in np.array_split(np.arange(len(concepts)), min(_GROUPS, len(concepts)))
        if len(places) < len(concepts)
    ]
    if negatives:
        places = np.arange(len(concepts), len(concepts) + len(negatives))
        groups.append(compare_unseen(concepts, places, negatives, space, asked))
    cosines = [(one.held.cosines(), one.cosines()) for one in groups]
    lowest = _lowest_keep(cosines, asked)
    own = whole.cosines()
    values = _half_way(own, asked.keep, lowest)
    there = [
        (one.held.presence(limits), one.presence(limits))
        for one, (cosine, _) in zip(groups, cosines, strict=True)
        for limits in [_half_way(cosine, asked.keep, lowest)]
    ]
    lowest_there = _lowest_keep(there, asked)
    own_there = whole.presence(values)
    presence = _half_way(own_there, asked.keep, lowest_there)
    learnt = [
        Learnt(vectors_of(one, whole.space, asked), one.taken, each)
        for one, each in zip(concepts, own, strict=True)
    ]
    kept = np.concatenate(own_there) > np.repeat(presence, [len(one) for one in own_there])
    share = None
    if groups:
        named = [(best > _half_way(ours, asked.keep, lowest_there)).any(axis=1) for ours, best in there]
        share = float(1 - np.mean(np.concatenate(named)))
    return Calibrated(whole.space, tuple(learnt), Thresholds(values, presence, float(kept.mean()), share))


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
