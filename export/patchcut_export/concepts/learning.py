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


@dataclass(frozen=True, eq=False)
class Learnt:
    """What was learnt of a concept.

    Attributes:
        vectors: [p, d] float32, unit, of centred features.
        taken: [m, n] bool, the patches of each image that they were made of.
        own: [m] float32, the best cosine of each image's regions to vectors made without that image.
    """

    vectors: Float32
    taken: npt.NDArray[np.bool_]
    own: Float32

    @property
    def agreement(self) -> float:
        """How alike the images are: the median of `own`."""
        return float(np.median(self.own))


@dataclass(frozen=True, eq=False)
class Common:
    """What the m images of an archive have in common.

    Attributes:
        regions: of the foreground.
        parts: [q] int64, the regions that are of the concept, at most one an image.
        taken: [m, n] bool, their patches.
    """

    regions: Regions
    parts: Int64
    taken: npt.NDArray[np.bool_]

    @classmethod
    def nothing(cls, archive: Archive, space: Space) -> Common:
        """That of an archive of anything: its regions, none of which is of a concept."""
        regions = find_regions(archive, space)
        return cls(regions, np.zeros(0, np.int64), np.zeros(archive.sides.shape, bool))


@dataclass(frozen=True, eq=False)
class Seeds:
    """The seeds of the m images of an archive: of all patches, whatever the foreground.

    Attributes:
        mean: [1, d] float32, of their features, centred where there is a space.
        embedding: [d] float32, unit, their mean where features are compared.
        taken: [m, n] bool, the seeds.
        own: [m] float32, the cosine of each to the embedding.
    """

    mean: Float32
    embedding: Float32
    taken: npt.NDArray[np.bool_]
    own: Float32

    def learnt(self, space: Space | None) -> Learnt:
        """A concept with one vector, the mean seed: without a space the paper's reference embedding."""
        vectors = self.embedding[None] if space is None else space.folded(self.mean)
        return Learnt(vectors, self.taken, self.own)


def find_seeds(archive: Archive, space: Space | None, context: Sequence[Seeds] = ()) -> Seeds:
    """Co-segmentation as published.

    Args:
        space: where features are compared; None takes them as they are, as the paper does.
        context: of what is around things, found in the same space.
    """
    rows = unit_rows(archive.rows.astype(np.float32)) if space is None else space.centred(archive.rows)
    alike = rows if space is None else unit_rows(rows @ space.whitening)
    weights = _weights(archive, alike, context)
    found = kernels.cosegment(alike, weights=weights * archive.sides if archive.boxed else weights)
    taken = np.arange(rows.shape[1]) == found.seeds[:, None]
    mean = rows[taken].mean(axis=0, keepdims=True)
    return Seeds(mean, found.embedding, taken, alike[taken] @ found.embedding)


def find_context(archives: Sequence[Archive], space: Space | None) -> list[Seeds]:
    """What is around things: the seeds of each archive, less what those before it are."""
    found: list[Seeds] = []
    for archive in archives:
        found.append(find_seeds(archive, space, found))
    return found


def _weights(archive: Archive, alike: Float32, context: Sequence[Seeds]) -> Float32:
    """[m, n] float32 in [0, 1], how much each patch counts: by its name, and less if it is like context.

        w = sigmoid(10 <y, t>) prod over context embeddings e of (1 - sigmoid(<x, e>))

    Args:
        alike: [m, n, d] float32, unit, in the space of the context's embeddings.
    """
    weights = np.ones(alike.shape[:2], np.float32) if archive.guide is None else archive.guide.copy()
    for one in context:
        weights *= 1 / (1 + np.exp(alike @ one.embedding))
    return weights


def find_common(archive: Archive, space: Space, context: Sequence[Seeds] = ()) -> Common:
    """The regions that the images of an archive have in common.

    1. co-segmentation of whitened features, where each patch counts as much as it is foreground;
    2. of each image the region of the foreground whose mean is nearest to the embedding.

    Args:
        context: of what is around things.
    """
    regions = find_regions(archive, space)
    whitened = unit_rows(space.centred(archive.rows) @ space.whitening)
    weights = np.where(archive.sides > 0.5, archive.sides, 0).astype(np.float32)
    weights *= _weights(archive, whitened, context)
    embedding = kernels.cosegment(whitened, weights=weights).embedding
    parts = _common_parts(regions, embedding, space)
    taken = np.isin(regions.members, parts + 1)
    return Common(regions, parts, taken)


def _common_parts(regions: Regions, embedding: Float32, space: Space) -> Int64:
    """The region of each image that is nearest to a whitened embedding [d]; images without one have none."""
    alike = unit_rows(regions.means @ space.whitening) @ embedding
    order = np.lexsort((-alike, regions.images))
    _, first = np.unique(regions.images[order], return_index=True)
    return order[first].astype(np.int64)


def centres(means: Float32, space: Space, count: int, seed: int) -> Float32:
    """[p, d] float32, the mean of regions [m, d], or of `count` clusters of them by k-means, if so many."""
    if min(count, len(means)) < 2:
        mean: Float32 = means.mean(axis=0, keepdims=True)
        return mean
    whitened = np.ascontiguousarray(unit_rows(means @ space.whitening))
    labels = kernels.kmeans(whitened, min(count, len(means)), metric="cosine", restarts=8, seed=seed).labels
    each = [means[labels == k].mean(axis=0) for k in np.unique(labels)]
    return np.stack(each)
