"""The label map at the frame's own size, wherever in the backbone's image the frame lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

Fit = Literal["stretch", "letterbox"]
Covered = tuple[tuple[float, float], tuple[float, float]]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Canvas:
    """What the patch grid covers, in pixels of the frame.

    It is larger than the frame where that was letterboxed, and may be smaller where patches overlap: the
    outermost ones then stand for the middle of what they see.

    Attributes:
        size_hw: of the canvas.
        corner_yx: of the frame on it; negative where the frame begins before it.
        frame_hw: size of the frame.
    """

    size_hw: tuple[int, int]
    corner_yx: tuple[int, int]
    frame_hw: tuple[int, int]

    def on_frame(self, values: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """[H, W] of the frame from values [size_hw] of the canvas, whose border is repeated beyond it.

        Returns:
            `values` itself where the frame is all of the canvas.
        """
        if self.size_hw == self.frame_hw and self.corner_yx == (0, 0):
            return values
        sides = list(zip(self.corner_yx, self.frame_hw, self.size_hw, strict=True))
        rows, columns = (slice(max(0, begin), begin + length) for begin, length, _ in sides)
        beyond = [(max(0, -begin), max(0, begin + length - size)) for begin, length, size in sides]
        if np.any(beyond):
            return np.pad(values[rows, columns], beyond, "edge")
        return np.ascontiguousarray(values[rows, columns])


def canvas_of(
    frame_hw: tuple[int, int], image_hw: tuple[int, int], fit: Fit, covered: Covered | None = None
) -> Canvas:
    """The canvas of a frame that `patchcut_kernels.preprocess` fitted into an image by `fit`.

    Args:
        covered: what of the image the grid covers, begin and length of each side in pixels; None is all.
    """
    canvas = _canvas_of_image(frame_hw, image_hw, fit)
    if covered is None:
        return canvas
    sides = zip(canvas.size_hw, canvas.corner_yx, image_hw, covered, strict=True)
    (height, top), (width, left) = (
        (max(1, round(whole * length / side)), corner - round(whole * begin / side))
        for whole, corner, side, (begin, length) in sides
    )
    return Canvas((height, width), (top, left), frame_hw)


def _canvas_of_image(frame_hw: tuple[int, int], image_hw: tuple[int, int], fit: Fit) -> Canvas:
    """The canvas of a grid that covers the whole image."""
    if fit == "stretch":
        return Canvas(frame_hw, (0, 0), frame_hw)
    x0, y0, x1, y1 = kernels.letterbox_xyxy(frame_hw, image_hw)
    sides = zip(frame_hw, image_hw, (y0, x0), (y1, x1), strict=True)
    # From image to frame, to the nearest pixel; all halves go up, so that the frame stays on its canvas.
    scaled = [
        [(2 * value * length + end - begin) // (2 * (end - begin)) for value in (side, begin)]
        for length, side, begin, end in sides
    ]
    (height, top), (width, left) = scaled
    return Canvas((height, width), (top, left), frame_hw)


def upsample(
    assignment: npt.NDArray[np.float32], grid_hw: tuple[int, int], canvas: Canvas
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The label map [H, W] int32 of the frame, and the winning value [H, W] float32 at each pixel.

    Args:
        assignment: [n, k] float32, of the whole canvas.
        grid_hw: rows and columns of the patch grid, n = h * w.
        canvas: where the frame lies.
    """
    labels, confidence = kernels.upsample_argmax(assignment, grid_hw, canvas.size_hw, confidence=True)
    return canvas.on_frame(labels), canvas.on_frame(confidence)


def upsample_labels(
    labels: npt.NDArray[np.int32], count: int, grid_hw: tuple[int, int], canvas: Canvas
) -> npt.NDArray[np.int32]:
    """The label [H, W] int32 of each pixel of the frame, by the bilinear majority of its patches.

    Args:
        labels: [n] int32 in [0, count), of the whole canvas, n = h * w.
    """
    one_hot = np.eye(count, dtype=np.float32)[labels]
    return canvas.on_frame(kernels.upsample_argmax(one_hot, grid_hw, canvas.size_hw))
