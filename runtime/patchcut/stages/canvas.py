"""The canvas: where a frame lies in the backbone's image, and its patches at the frame's own size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

from patchcut.bundle import BackboneSpec, GraphSpec
from patchcut.cells import finer_grid

Scalar = TypeVar("Scalar", bound=np.generic)

_SAMPLES = 4  # pixels along a patch by which it is told what covers it


@dataclass(frozen=True)
class Canvas:
    """The area that the patch grid covers, in pixels of the frame.

    It is larger than the frame where that was letterboxed, and may be smaller where patches overlap: the
    outermost ones then stand for their middle.

    Attributes:
        size_hw: size of the canvas.
        corner_yx: corner of the frame on it; negative where the frame begins before it.
        frame_hw: size of the frame.
        grid_hw: rows and columns of the patch grid, n = h * w.
    Examples:
        >>> canvas = patchcut.stages.Canvas((480, 640), (0, 0), (480, 640), (16, 16))
        >>> canvas.is_frame, canvas.patch_area
        (True, 1200.0)
    """

    size_hw: tuple[int, int]
    corner_yx: tuple[int, int]
    frame_hw: tuple[int, int]
    grid_hw: tuple[int, int]

    @classmethod
    def of(cls, frame_hw: tuple[int, int], backbone: BackboneSpec, graph: GraphSpec) -> Canvas:
        """The canvas of a frame that `patchcut_kernels.preprocess` fitted into a graph's image.

        Examples:
            >>> backbone = bundle.spec.backbone
            >>> patchcut.stages.Canvas.of((480, 640), backbone, backbone.graphs[0]).grid_hw
            (16, 16)
        """
        size_hw, corner_yx = _image_on_frame(frame_hw, graph.size_hw, backbone.fit)
        covered = backbone.covered(graph.size_hw)
        if covered is not None:
            sides = zip(size_hw, corner_yx, graph.size_hw, covered, strict=True)
            (height, top), (width, left) = (
                (max(1, round(whole * length / side)), corner - round(whole * begin / side))
                for whole, corner, side, (begin, length) in sides
            )
            size_hw, corner_yx = (height, width), (top, left)
        return cls(size_hw, corner_yx, frame_hw, graph.grid_hw)

    @property
    def is_frame(self) -> bool:
        """Whether the canvas is just the frame."""
        return self.size_hw == self.frame_hw and self.corner_yx == (0, 0)

    @property
    def patch_area(self) -> float:
        """Pixels of the frame that a patch stands for."""
        return math.prod(self.size_hw) / math.prod(self.grid_hw)

    @property
    def patch_side(self) -> float:
        """Side of a patch in pixels of the frame."""
        return math.sqrt(self.patch_area)

    def min_area(self, patches: float) -> int:
        """Pixels of the smallest region, at least 1, that `patches` patches allow.

        Examples:
            >>> patchcut.stages.Canvas((480, 640), (0, 0), (480, 640), (16, 16)).min_area(0.5)
            600
        """
        return max(1, math.ceil(patches * self.patch_area))

    def on_frame(self, values: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """[H, W] of the frame from values [size_hw] of the canvas, whose border is repeated beyond it.

        Returns:
            `values` itself where the frame is all of the canvas.
        Examples:
            >>> canvas = patchcut.stages.Canvas((4, 4), (1, 0), (2, 4), (2, 2))
            >>> canvas.on_frame(np.arange(16).reshape(4, 4)).tolist()
            [[4, 5, 6, 7], [8, 9, 10, 11]]
        """
        if self.is_frame:
            return values
        sides = list(zip(self.corner_yx, self.frame_hw, self.size_hw, strict=True))
        rows, columns = (slice(max(0, begin), begin + length) for begin, length, _ in sides)
        beyond = [(max(0, -begin), max(0, begin + length - size)) for begin, length, size in sides]
        if np.any(beyond):
            return np.pad(values[rows, columns], beyond, "edge")
        return np.ascontiguousarray(values[rows, columns])

    def upsample(
        self, assignment: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """The label map [H, W] int32 of the frame, and the winning value [H, W] float32 at each pixel.

        Args:
            assignment: [n, k] float32, or [c * c * n, k] of the cells of the patches.
        Examples:
            >>> canvas = patchcut.stages.Canvas((2, 4), (0, 0), (2, 4), (1, 2))
            >>> canvas.upsample(np.eye(2, dtype=np.float32))[0].tolist()
            [[0, 0, 1, 1], [0, 0, 1, 1]]
        """
        grid_hw = finer_grid(len(assignment), self.grid_hw)
        labels, confidence = kernels.upsample_argmax(assignment, grid_hw, self.size_hw, confidence=True)
        return self.on_frame(labels), self.on_frame(confidence)

    def upsample_labels(self, labels: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.int32]:
        """The label [H, W] int32 of each pixel of the frame, by the bilinear majority of its patches.

        Args:
            labels: [n] int32 in [0, count).
        Examples:
            >>> canvas = patchcut.stages.Canvas((2, 4), (0, 0), (2, 4), (1, 2))
            >>> canvas.upsample_labels(np.int32([1, 0]), 2).tolist()
            [[1, 1, 0, 0], [1, 1, 0, 0]]
        """
        one_hot = np.eye(count, dtype=np.float32)[labels]
        return self.on_frame(kernels.upsample_argmax(one_hot, self.grid_hw, self.size_hw))

    def neighbours(
        self, pixels: npt.NDArray[np.intp], cells: int = 1
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
        """The four patches between which each pixel lies [p, 4], and how much each counts [p, 4] float32.

        Args:
            pixels: [p], as flat indices of the frame.
            cells: along a side of a patch; with more than one, cells take the patches' place.
        `upsample` has at the pixel the sum of their values by these weights.
        Examples:
            >>> canvas = patchcut.stages.Canvas((1, 4), (0, 0), (1, 4), (1, 2))
            >>> patches, weights = canvas.neighbours(np.array([0, 1]))
            >>> (np.array([1.0, 0.0])[patches] * weights).sum(axis=1).tolist()
            [1.0, 0.75]
        """
        h, w = (cells * side for side in self.grid_hw)
        sides = zip(divmod(pixels, self.frame_hw[1]), self.corner_yx, self.size_hw, (h, w), strict=True)
        (top, bottom, down), (left, right, over) = (_between(*side) for side in sides)
        patches = np.stack([top * w + left, top * w + right, bottom * w + left, bottom * w + right], axis=1)
        up, back = 1 - down, 1 - over
        return patches, np.stack([up * back, up * over, down * back, down * over], axis=1)

    def cover(self, region_ids: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.float32]:
        """[count, n] float32 in [0, 1]: how much of each patch each region covers, by 16 pixels of the patch.

        Args:
            region_ids: [H, W] int32 of the frame, i + 1 where region i is, 0 elsewhere.
        Examples:
            >>> canvas = patchcut.stages.Canvas((2, 4), (0, 0), (2, 4), (1, 2))
            >>> canvas.cover(np.int32([[1, 0, 0, 0], [1, 0, 0, 2]]), 2).tolist()
            [[0.5, 0.0], [0.0, 0.25]]
        """
        h, w = self.grid_hw
        sides = zip(self.grid_hw, self.size_hw, self.corner_yx, self.frame_hw, strict=True)
        at, inside = zip(*(_samples(*side) for side in sides), strict=True)
        ids = region_ids[np.ix_(*at)] * (inside[0][:, None] & inside[1])
        patches = (np.arange(h * _SAMPLES) // _SAMPLES)[:, None] * w + np.arange(w * _SAMPLES) // _SAMPLES
        hits = np.bincount((ids * np.int64(h * w) + patches).ravel(), minlength=(count + 1) * h * w)
        covered = hits[h * w :].reshape(count, h * w) / _SAMPLES**2
        return np.asarray(covered, np.float32)

    def cover_box(self, box: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """[n] float32, 0 or 1: the patches whose middle lies in a box.

        Args:
            box: [4], xyxy as shares of the frame's width and height.
        Examples:
            >>> canvas = patchcut.stages.Canvas((2, 4), (0, 0), (2, 4), (1, 2))
            >>> canvas.cover_box(np.array([0, 0, 0.5, 1])).tolist()
            [1.0, 0.0]
        """
        (top, bottom), (left, right) = (
            box[[1, 3]] * self.frame_hw[0] + self.corner_yx[0],
            box[[0, 2]] * self.frame_hw[1] + self.corner_yx[1],
        )
        y, x = (
            (np.arange(count) + 0.5) * side / count
            for count, side in zip(self.grid_hw, self.size_hw, strict=True)
        )
        inside = ((top <= y) & (y < bottom))[:, None] & ((left <= x) & (x < right))
        return np.asarray(inside.ravel(), np.float32)


def _between(
    at: npt.NDArray[np.intp], corner: int, side: int, patches: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """The patches along a side before and after each pixel, and how far it is from the one to the other."""
    middle = (np.clip(at + corner, 0, side - 1) + 0.5) * (patches / side) - 0.5
    middle = np.clip(middle, 0, patches - 1)
    before = np.minimum(middle.astype(np.intp), max(0, patches - 2))
    return before, np.minimum(before + 1, patches - 1), (middle - before).astype(np.float32)


def _samples(
    patches: int, side: int, corner: int, frame_side: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Pixels of the frame along a side, so many a patch, and which of them are on the frame."""
    at = (
        np.floor((np.arange(patches * _SAMPLES) + 0.5) * side / (patches * _SAMPLES)).astype(np.intp) - corner
    )
    return np.clip(at, 0, frame_side - 1), (at >= 0) & (at < frame_side)


def _image_on_frame(
    frame_hw: tuple[int, int], image_hw: tuple[int, int], fit: str
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size of the image in pixels of the frame, and the frame's corner on it."""
    if fit == "stretch":
        return frame_hw, (0, 0)
    x0, y0, x1, y1 = kernels.letterbox_xyxy(frame_hw, image_hw)
    height, top = _side_on_frame(frame_hw[0], image_hw[0], y0, y1)
    width, left = _side_on_frame(frame_hw[1], image_hw[1], x0, x1)
    return (height, width), (top, left)


def _side_on_frame(frame_side: int, image_side: int, begin: int, end: int) -> tuple[int, int]:
    """A side of the image in pixels of the frame, which fills [begin, end) of it, and the frame's corner.

    To the nearest pixel; all halves go up, so that the frame stays on its canvas.
    """
    fitted = end - begin
    side, corner = ((2 * pixels * frame_side + fitted) // (2 * fitted) for pixels in (image_side, begin))
    return side, corner
