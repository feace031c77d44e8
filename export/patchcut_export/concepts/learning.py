"""Co-segmentation: from the photographs of a concept to its prototypes, and how alike something must be.

"ReCo: Retrieve and Co-segment for Zero-shot Transfer" (2206.07045), section 3, and what was found better.
"""

from __future__ import annotations

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


def learn_published(archive: Archive) -> Learnt:
    """The mean of the seeds, by features as they are: the paper's reference embedding.

    No thresholds come of it, and nothing is known of the foreground.
    """
    rows = unit_rows(archive.rows.astype(np.float32))
    found = kernels.cosegment(rows)
    taken = np.arange(rows.shape[1]) == found.seeds[:, None]
    seeds = rows[taken]
    vectors = unit_rows(found.embedding[None])
    own = (seeds @ vectors.T)[:, 0]
    return Learnt(vectors, taken, own)


def find_common(archive: Archive, space: Space) -> Common:
    """The regions that the images of an archive have in common.

    1. co-segmentation of whitened features, where each patch counts as much as it is foreground;
    2. of each image the region of the foreground whose mean is nearest to the embedding.
    """
    regions = find_regions(archive, space)
    weights = np.where(archive.sides > 0.5, archive.sides, 0).astype(np.float32)
    whitened = unit_rows(space.centred(archive.rows) @ space.whitening)
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
