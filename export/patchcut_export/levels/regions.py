"""The regions that the levels find in the images of a collection, and what they look like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels
from patchcut.bundle import BackboneSpec, GraphSpec
from patchcut.features import Features
from patchcut.heads.levels import LevelsHead
from patchcut.heads.naming import region_means
from patchcut.sources.photos import read_frame
from patchcut.stages import Canvas, Masks, Rules

from patchcut_export.training.feature_cache import CachedFeatures

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

# A patch belongs to a refined region that covers so much of it.
_COVERED = 0.5


@dataclass(frozen=True, eq=False)
class FoundRegions:
    """R regions of N images.

    Attributes:
        images: [R] int64, the image of each.
        means: [R, s] float32, unit; the mean of its patches' features, less what all have in common.
        boxes: [R, 4] float32, xyxy, in shares of the image's width and height.
        areas: [R] int64, patches.
        as_concepts: [R, s] float32, unit; the mean of unit features less what concepts are less. None
            without concepts.
    """

    images: npt.NDArray[np.int64]
    means: Float32
    boxes: Float32
    areas: npt.NDArray[np.int64]
    as_concepts: Float32 | None = None


class RegionFinder:
    """Finds the regions of images whose features are cached.

    Args:
        head: votes for the foreground.
        backbone, graph: of the features.
        root: the images' folder, for a refiner.
        refiner: moves the regions' borders before patches are told inside from outside; "none" for patches.
        min_patches: smaller regions are left out.
        concepts_mean: [s] float32, what the features of concepts are less; None without concepts.
    """

    def __init__(
        self,
        head: LevelsHead,
        backbone: BackboneSpec,
        graph: GraphSpec,
        root: Path,
        refiner: str = "none",
        min_patches: int = 3,
        concepts_mean: Float32 | None = None,
    ) -> None:
        self._head = head
        self._backbone = backbone
        self._graph = graph
        self._root = root
        self._refiner = refiner
        self._min_patches = min_patches
        self._concepts_mean = concepts_mean

    def find(self, cached: CachedFeatures, advance: Callable[[int, int], None]) -> FoundRegions:
        """The regions of all images, in their order.

        Args:
            cached: with the sets that the head needs.
            advance: called after each image with (done, total).
        Raises:
            SourceError: a refiner's image cannot be read any more.
        """
        images: list[int] = []
        found: list[tuple[Float32, Float32, npt.NDArray[np.int64]]] = []
        as_concepts: list[Float32] = []
        for i, name in enumerate(cached.images):
            sets = {one: cached.take(slice(i, i + 1), one).astype(np.float32) for one in self._head.needs}
            assignment = self._head(Features(sets, cached.grid_hw))[0]
            side = np.ascontiguousarray(1 - assignment[:, 0])
            members, count = self._members(side, self._root / name, name, cached.grid_hw)
            if count:
                semantic = sets[self._head.sets[2]][0]
                means = region_means(semantic, members, count, self._head.centres.name_mean)
                stats = kernels.region_stats(members.reshape(cached.grid_hw), count)
                h, w = cached.grid_hw
                boxes: Float32 = (stats.boxes_xyxy / np.array([w, h, w, h], np.float32)).astype(np.float32)
                images += [i] * count
                found.append((means, boxes, stats.area))
                if self._concepts_mean is not None:
                    centred = semantic - self._concepts_mean
                    as_concepts.append(
                        region_means(centred, members, count, np.zeros_like(self._concepts_mean))
                    )
            advance(i + 1, len(cached.images))
        dim = cached.sets[self._head.sets[2]].shape[2]
        empty = (np.zeros((0, dim), np.float32), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
        means, boxes, areas = (np.concatenate(each) for each in zip(empty, *found, strict=True))
        seen = None if self._concepts_mean is None else np.concatenate([empty[0], *as_concepts])
        return FoundRegions(np.array(images, np.int64), means, boxes, areas, seen)

    def _members(self, side: Float32, path: Path, name: str, grid_hw: tuple[int, int]) -> tuple[Int32, int]:
        """The region [n] int32 of each patch, from 1; 0 of none; and how many they are."""
        if self._refiner == "none":
            ids, count = kernels.connected_components(
                (side > 0.5).astype(np.int32).reshape(grid_hw), min_area=self._min_patches
            )
            return ids.ravel(), count
        frame = read_frame(path, name)
        height, width = frame.image.shape[:2]
        canvas = Canvas.of((height, width), self._backbone, self._graph)
        masks = Masks(self._min_patches, Rules(), self._refiner)
        components = masks.components(frame, np.stack([1 - side, side], axis=1), canvas)
        cover = canvas.cover(components.ids, len(components.stats.area))
        inside = np.append(np.full((1, cover.shape[1]), _COVERED, np.float32), cover, axis=0)
        best = inside.argmax(axis=0)
        kept, members = np.unique(best, return_inverse=True)
        members = members.astype(np.int32) + np.int32(kept[0] != 0)
        return members, int(members.max())
