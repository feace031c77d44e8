"""The last stage: a frame's assignment to label map, components, scores and boxes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels
from patchcut_kernels import cuda

from patchcut.cells import cells_of, finer_grid
from patchcut.features import Array, to_host
from patchcut.frames import Frame
from patchcut.stages.canvas import Canvas
from patchcut.stages.parts import DividedPatches
from patchcut.stages.refiners import PatchLabels, refine
from patchcut.stages.regions import Components, Regions, Rules, divide, find_components, rank

# Statistics come down for as many components as there may be, 28 bytes each.
MAX_PACKED_COMPONENTS = 65_536
# Given label map [H, W], confidence [H, W], assignment [n, k] and canvas, it may change the first two in
# place, and returns the pixels where it did, as flat indices.
KeepLabels = Callable[
    [npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.float32], Canvas],
    npt.NDArray[np.intp],
]


@dataclass(frozen=True, eq=False)
class FoundOnDevice:
    """The components of b frames of one size, on the GPU.

    Attributes:
        packed: what comes down in one copy: ids [b, H, W] int32 and counts [b] int32, then for up to m
            components areas [b, m] int64, boxes [b, m, 4] float32, mean confidences [b, m] float32, labels
            [b, m] int32.
        label_map: [b, H, W] int32, 0 is background and what was too small.
        confidence: [b, H, W] float32 in [0, 1], of the label that each pixel had.
    """

    packed: cuda.PackedArrays
    label_map: cuda.DeviceArray
    confidence: cuda.DeviceArray

    def components(
        self, host: tuple[npt.NDArray[Any], ...], confidence: cuda.DeviceArray
    ) -> list[Components]:
        """The components of each frame.

        Args:
            host: the arrays of `packed` in host memory that nobody else writes.
            confidence: as the attribute, in memory that nobody else writes; it stays there until it is read.
        """
        all_ids, counts, *columns = host
        found = []
        for i, count in enumerate(counts.tolist()):
            stats = kernels.RegionStats(*(column[i, :count] for column in columns))
            assert stats.label is not None
            table = np.concatenate([np.zeros(1, np.int32), stats.label])
            label_map = kernels.relabel(all_ids[i], table)
            found.append(Components(label_map, all_ids[i], confidence[i], stats))
        return found


@dataclass(frozen=True)
class Masks:
    """From patches to regions at the frame's own size.

    An assignment on a GPU stays there until the components are known, and comes down in one copy, where the
    borders are not refined and nothing is divided; else it comes down itself.

    Attributes:
        min_area_patches: components smaller than this many patches are background.
        rules: which of the others are regions, and how they score.
        refiner: a key of `patchcut.stages.refiners.REFINERS`.
    """

    min_area_patches: float
    rules: Rules
    refiner: str = "none"

    def __call__(self, frame: Frame, assignment: Array, canvas: Canvas) -> Regions:
        """The regions of a frame, best first.

        Args:
            frame: a refiner looks at its edges.
            assignment: [n, k] float32, rows on the simplex, column 0 is background; on any device. Or
                [c * c * n, k], of c times c cells of each patch.
            canvas: where the frame lies.
        Examples:
            >>> regions = seg.masks(patchcut.Frame(frame), seg.head(features)[0], canvas)
            >>> regions.label_map.shape
            (512, 512)
        """
        return rank(self.components(frame, assignment, canvas), self.rules)

    def divided(
        self, objects: Regions, frame: Frame, patches: DividedPatches, canvas: Canvas
    ) -> tuple[Regions, npt.NDArray[np.int32]]:
        """The regions of a frame whose objects, and maybe its background, are divided; and whose they are.

        Args:
            objects: the regions of `patches.foreground`.
        Returns:
            Them, and [m] int32, i + 1 where a region is of object i, 0 of the background.
        Examples:
            >>> objects = seg.masks(patchcut.Frame(frame), patches.foreground, canvas)
            >>> regions, owners = seg.masks.divided(objects, patchcut.Frame(frame), patches, canvas)
            >>> set(regions.region_labels.tolist()) <= {1, 2, 3}
            True
        """
        return divide(
            objects,
            _seen(patches.label_map(objects.label_map > 0, canvas), frame),
            objects.confidence,
            min_area=canvas.min_area(self.min_area_patches),
            background=patches.background_columns,
        )

    def stays_on_device(self, canvas: Canvas) -> bool:
        """Whether components of an assignment on a GPU are found there, without bringing it down.

        Examples:
            >>> patchcut.stages.Masks(0.5, patchcut.stages.Rules(), "guided").stays_on_device(canvas)
            False
        """
        few = self._largest_count(canvas) <= MAX_PACKED_COMPONENTS
        return self.refiner == "none" and canvas.is_frame and few

    def _largest_count(self, canvas: Canvas) -> int:
        """How many components of the smallest size there is room for."""
        return math.prod(canvas.size_hw) // canvas.min_area(self.min_area_patches)

    def components(
        self, frame: Frame, assignment: Array, canvas: Canvas, keep_labels: KeepLabels | None = None
    ) -> Components:
        """The components of a frame's label map that are large enough, not scored yet; arguments as above.

        Args:
            keep_labels: of a video, may give pixels the label that they had after the borders are refined. An
                assignment is brought to the host for it.
        Examples:
            >>> seg.masks.components(patchcut.Frame(frame), seg.head(features)[0], canvas).ids.shape
            (512, 512)
        """
        if (
            isinstance(assignment, cuda.DeviceArray)
            and self.stays_on_device(canvas)
            and frame.visible is None
            and keep_labels is None
        ):
            found = self.find_on_device(assignment.reshape(1, *assignment.shape), canvas)
            return found.components(found.packed.numpy(), found.confidence)[0]
        rows = to_host(assignment)
        label_map, confidence = canvas.upsample(rows)
        min_area = canvas.min_area(self.min_area_patches)
        if self.refiner != "none":
            # Of a patch of 2 x 2 cells "guided" reaches a cell: J 0.633 on 48 frames of DAVIS, a patch 0.624.
            side = canvas.patch_side / cells_of(len(rows), canvas.grid_hw)
            # Not held by a name here: it is let go where the refined one is made.
            label_map, confidence = refine(
                self.refiner,
                PatchLabels(label_map, confidence, rows.shape[1] == 2, side),
                frame,
                min_area,
            )
        kept = None if keep_labels is None else keep_labels(label_map, confidence, rows, canvas)
        return find_components(_seen(label_map, frame), confidence, min_area, kept)

    def find_on_device(self, assignment: cuda.DeviceArray, canvas: Canvas) -> FoundOnDevice:
        """The same of b frames on the GPU, where all of it stays; nothing is waited for.

        Args:
            assignment: [b, n, k] float32, or [b, c * c * n, k] of the cells of the patches.
            canvas: of each of them; `stays_on_device`.
        Examples:
            >>> seg.masks.find_on_device(seg.head(features), canvas).packed.numpy()  # doctest: +SKIP
        """
        batch, (height, width) = assignment.shape[0], canvas.size_hw
        count = self._largest_count(canvas)
        packed = cuda.pack(
            [
                ((batch, height, width), np.int32),
                ((batch,), np.int32),
                ((batch, count), np.int64),
                ((batch, count, 4), np.float32),
                ((batch, count), np.float32),
                ((batch, count), np.int32),
            ],
            device=assignment.device,
            stream=assignment.stream,
        )
        ids, counts, *statistics = packed.arrays
        grid_hw = finer_grid(assignment.shape[1], canvas.grid_hw)
        label_map, confidence = kernels.upsample_argmax(assignment, grid_hw, canvas.size_hw, confidence=True)
        kernels.connected_components(
            label_map,
            min_area=canvas.min_area(self.min_area_patches),
            out=ids,
            labels_out=label_map,
            counts_out=counts,
        )
        kernels.region_stats(
            ids,
            count,
            label_map=label_map,
            confidence=confidence,
            out=kernels.RegionStats(*cast("Any", statistics)),
        )
        on_device = cast("tuple[cuda.DeviceArray, cuda.DeviceArray]", (label_map, confidence))
        return FoundOnDevice(packed, *on_device)


def _seen(label_map: npt.NDArray[np.int32], frame: Frame) -> npt.NDArray[np.int32]:
    """The label map itself, [H, W], background where nothing of the frame can be seen."""
    if frame.visible is not None:
        label_map[~frame.visible] = 0
    return label_map
