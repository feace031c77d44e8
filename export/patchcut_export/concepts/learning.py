"""Co-segmentation: from the photographs of a concept to its prototypes, and how alike something must be.

"ReCo: Retrieve and Co-segment for Zero-shot Transfer" (2206.07045), section 3, and what was found better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

from patchcut_export.concepts.archives import Archive, Regions, Space, find_regions, unit_rows

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

_NONE = -1.0  # of an image without a region


@dataclass(frozen=True, eq=False)
class Learnt:
    """What was learnt of a concept.

    Attributes:
        means: [p, d] float32, of the centred features of what was taken.
        vectors: [p, d] float32, unit, of the means.
        taken: [m, n] bool, the patches of each image that they were made of.
        own: [m] float32, the best cosine of each image's regions to vectors made without that image.
        agreement: the median of the whitened cosines of each image's part to those of the others.
        embedding: [d] float32, unit, the mean of the seeds where features are compared.
    """

    means: Float32
    vectors: Float32
    taken: npt.NDArray[np.bool_]
    own: Float32
    agreement: float
    embedding: Float32


def learn_seeds(archive: Archive, space: Space | None, context: Sequence[Learnt] = ()) -> Learnt:
    """The mean of the seeds: of all patches, whatever the foreground; no thresholds come of it.

    Args:
        space: where features are compared; None takes them as they are, as the paper does.
        context: what was learnt in the same space of what is around things.
    """
    rows = unit_rows(archive.rows.astype(np.float32)) if space is None else space.centred(archive.rows)
    alike = rows if space is None else unit_rows(rows @ space.whitening)
    found = kernels.cosegment(alike, weights=_weights(archive, alike, context))
    taken = np.arange(rows.shape[1]) == found.seeds[:, None]
    means = rows[taken].mean(axis=0, keepdims=True)
    vectors = unit_rows(found.embedding[None]) if space is None else space.folded(means)
    own = alike[taken] @ found.embedding
    return Learnt(means, vectors, taken, own, float(np.median(own)), found.embedding)


def learn_context(archives: Sequence[Archive], space: Space | None) -> list[Learnt]:
    """What is around things: of each archive the mean of the seeds, less what those before it are."""
    learnt: list[Learnt] = []
    for archive in archives:
        learnt.append(learn_seeds(archive, space, learnt))
    return learnt


def _weights(archive: Archive, alike: Float32, context: Sequence[Learnt]) -> Float32:
    """[m, n] float32 in [0, 1], how much each patch counts: by its name, and less if it is like context.

        w = sigmoid(10 <y, t>) prod over context embeddings e of (1 - sigmoid(<x, e>))

    Args:
        alike: [m, n, d] float32, unit, in the space of the context's embeddings.
    """
    weights = np.ones(alike.shape[:2], np.float32) if archive.guide is None else archive.guide.copy()
    for one in context:
        weights *= 1 / (1 + np.exp(alike @ one.embedding))
    return weights


def learn(
    archive: Archive, space: Space, count: int = 1, seed: int = 0, context: Sequence[Learnt] = ()
) -> Learnt:
    """The mean, or centres, of the regions that the images have in common.

    1. co-segmentation of whitened features, where each patch counts as much as it is foreground;
    2. of each image the region of the foreground whose mean is nearest to the embedding;
    3. the mean of these regions, or `count` centres of them by k-means, whitened once more.

    Args:
        count: vectors of the concept, fewer where there are fewer images.
        seed: of k-means.
        context: what was learnt of what is around things.
    """
    regions = find_regions(archive, space)
    whitened = unit_rows(space.centred(archive.rows) @ space.whitening)
    weights = np.where(archive.sides > 0.5, archive.sides, 0).astype(np.float32)
    weights *= _weights(archive, whitened, context)
    embedding = kernels.cosegment(whitened, weights=weights).embedding
    parts = _common_parts(regions, embedding, space)
    means = _centres(regions.means[parts], space, count, seed)
    own = np.full(len(archive.images), _NONE, np.float32)
    agreement = []
    for part in parts:
        others = regions.means[parts[parts != part]]
        if not len(others):
            continue
        image = regions.images[part]
        without = space.folded(_centres(others, space, count, seed))
        own[image] = (regions.means[regions.images == image] @ without.T).max()
        pair = unit_rows(np.stack([regions.means[part], others.mean(axis=0)]) @ space.whitening)
        agreement.append(float(pair[0] @ pair[1]))
    taken = np.isin(regions.members, parts + 1)
    agreed = float(np.median(agreement)) if agreement else 0.0
    return Learnt(means, space.folded(means), taken, own, agreed, embedding)


def _common_parts(regions: Regions, embedding: Float32, space: Space) -> Int64:
    """The region of each image that is nearest to a whitened embedding [d]; images without one have none."""
    alike = unit_rows(regions.means @ space.whitening) @ embedding
    order = np.lexsort((-alike, regions.images))
    _, first = np.unique(regions.images[order], return_index=True)
    return order[first].astype(np.int64)


def _centres(means: Float32, space: Space, count: int, seed: int) -> Float32:
    """[p, d] float32, the mean of regions [m, d], or of clusters of them."""
    if min(count, len(means)) < 2:
        mean: Float32 = means.mean(axis=0, keepdims=True)
        return mean
    whitened = np.ascontiguousarray(unit_rows(means @ space.whitening))
    labels = kernels.kmeans(whitened, min(count, len(means)), metric="cosine", restarts=8, seed=seed).labels
    each = [means[labels == k].mean(axis=0) for k in np.unique(labels)]
    return np.stack(each)


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


def best_cosines(archive: Archive, space: Space, learnt: Sequence[Learnt]) -> Float32:
    """[m, C] float32, of each image the best cosine of a region to each concept's vectors; -1 without one.

    Args:
        space: where the concepts' means are folded anew.
    """
    regions = find_regions(archive, space)
    best = np.full((len(archive.images), len(learnt)), _NONE, np.float32)
    for c, one in enumerate(learnt):
        np.maximum.at(best[:, c], regions.images, (regions.means @ space.folded(one.means).T).max(axis=1))
    return best


def calibrate(own: Sequence[Float32], foreign: Float32, keep: float, refuse: float) -> Thresholds:
    """The lowest thresholds at which so many photographs of other things are refused.

    They never exceed those at which so many of the concept's own are kept: what is asked for is not lost.

    Args:
        own: of each concept [m] float32, cosines of its own photographs.
        foreign: [q, C] float32, cosines of photographs of other things; -inf where one is of the concept.
        keep: the least share of a concept's own photographs.
        refuse: the least share of the others.
    """
    most = np.array([_least_kept(one, keep) for one in own], np.float32)
    most = np.nextafter(most, np.float32(-2))
    values = most
    if len(foreign):
        for share in np.linspace(refuse, 1, 33):
            needed = [_quantile(column, share) for column in foreign.T]
            values = np.minimum(most, np.array(needed, np.float32))
            if (foreign <= values).all(axis=1).mean() >= refuse:
                break
    kept = np.mean([np.mean(one > value) for one, value in zip(own, values, strict=True)])
    refused = float((foreign <= values).all(axis=1).mean()) if len(foreign) else None
    return Thresholds(values, float(kept), refused)


def _least_kept(own: Float32, keep: float) -> float:
    """The cosine that `keep` of a concept's photographs reach, and of those with a region at least one."""
    lowest = float(own[own > _NONE].min(initial=1))
    return max(float(np.quantile(own, 1 - keep, method="lower")), lowest)


def context_threshold(
    archives: Sequence[Archive],
    space: Space,
    learnt: Sequence[Learnt],
    context: Sequence[Learnt],
    thresholds: Float32,
    lost: float = 0.02,
) -> float:
    """The lowest threshold of the background, from 0, that costs no more than `lost` of own photographs.

    Args:
        archives: those of the concepts.
        learnt: what was learnt of each.
        context: of what is around things, at least one.
        thresholds: [C] float32, the concepts' own.
        lost: share of photographs in which no region is nearer to its concept than to context any more.
    """
    around = np.concatenate([one.vectors for one in context])
    excess = []
    for archive, one, threshold in zip(archives, learnt, thresholds, strict=True):
        regions = find_regions(archive, space)
        margins = (regions.means @ one.vectors.T).max(axis=1, initial=_NONE) - threshold
        above = (regions.means @ around.T).max(axis=1, initial=_NONE) - margins
        images = np.full(len(archive.images), np.inf, np.float32)
        np.minimum.at(images, regions.images[margins > 0], above[margins > 0])
        excess.append(images[np.isfinite(images)])
    every = np.concatenate(excess)
    return max(float(np.quantile(every, 1 - lost)), 0.0) if len(every) else 0.0


def _quantile(column: Float32, share: float) -> float:
    of_others = column[np.isfinite(column)]
    return float(np.quantile(of_others, share)) if len(of_others) else 1.0
