"""The label map at the frame's own size, wherever in the backbone's image the frame lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

Fit = Literal["stretch", "letterbox"]


@dataclass(frozen=True)
class Canvas:
    """What the backbone's whole image covers, in pixels of the frame; larger than the frame if letterboxed.

    Attributes:
        size_hw: of the canvas.
        corner_yx: of the frame on it.
        frame_hw: size of the frame.
    """

    size_hw: tuple[int, int]
    corner_yx: tuple[int, int]
    frame_hw: tuple[int, int]


def canvas_of(frame_hw: tuple[int, int], image_hw: tuple[int, int], fit: Fit) -> Canvas:
    """The canvas of a frame that `patchcut_kernels.preprocess` fitted into an image by `fit`."""
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
    assignment: npt.NDArray[np.float32],
    grid_hw: tuple[int, int],
    canvas: Canvas,
    confidence: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The label map [H, W] int32 of the frame, and the winning value [H, W] float32 at each pixel.

    Args:
        assignment: [n, k] float32, of the whole canvas.
        grid_hw: rows and columns of the patch grid, n = h * w.
        canvas: where the frame lies.
        confidence: float32 of the canvas' size; overwritten, and returned where the frame is all of it.
    """
    labels, confidence = kernels.upsample_argmax(assignment, grid_hw, canvas.size_hw, confidence=confidence)
    if canvas.size_hw == canvas.frame_hw:
        return labels, confidence
    (top, left), (height, width) = canvas.corner_yx, canvas.frame_hw
    window = np.s_[top : top + height, left : left + width]
    return np.ascontiguousarray(labels[window]), np.ascontiguousarray(confidence[window])
