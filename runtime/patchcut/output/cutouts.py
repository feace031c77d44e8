"""Pictures of what was found: the objects without their background, and one by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from patchcut.frames import Frame
from patchcut.opencv import load_cv2

Image = npt.NDArray[np.uint8]

CROP_MARGIN = 0.05
_STRIP_PIXELS = 1 << 18  # whose alpha is made at a time, so that a large frame needs little memory for it


def cut_out(
    frame: Frame, foreground: npt.NDArray[np.bool_], confidence: npt.NDArray[np.float32], softness: float
) -> Image:
    """[H, W, 4] uint8: a frame with its foreground opaque and the rest transparent, in its order of channels.

    Alpha is at least 128 where the foreground is and below it elsewhere. It follows the soft mask, 0 up to
    0.25 and full from 0.75 on, but only near the border: what a head is unsure of would be a hole deep inside
    an object, and a ghost far from it. Pixels that are all transparent are black, so that nothing is hidden.

    Args:
        frame: [H, W].
        foreground: [H, W] bool.
        confidence: [H, W] float32, of each pixel's being foreground or background, as `Result` has it.
        softness: pixels from the border of the foreground within which alpha may be soft; above 0.
    Raises:
        PatchcutError: OpenCV is missing.
    Examples:
        >>> cut_out = patchcut.output.cutouts.cut_out
        >>> cut_out(patchcut.Frame(frame), result.foreground, result.confidence, softness=16).shape
        (512, 512, 4)
    """
    cv2 = load_cv2()
    height, width = foreground.shape
    picture = np.empty((height, width, 4), np.uint8)
    halo = math.ceil(softness)
    rows = max(3 * halo, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        first = max(0, top - halo)
        around = np.s_[first : top + rows + halo]
        alpha = _alpha(foreground[around], confidence[around], softness)[top - first :][:rows]
        seen = cv2.copyTo(np.ascontiguousarray(frame.image[top : top + rows]), alpha)
        cv2.merge([seen, alpha], picture[top : top + rows])
    return picture


def _alpha(foreground: npt.NDArray[np.bool_], confidence: npt.NDArray[np.float32], softness: float) -> Image:
    cv2 = load_cv2()
    inside, outside = foreground.view(np.uint8), (~foreground).view(np.uint8)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 5) - cv2.distanceTransform(outside, cv2.DIST_L2, 5)
    by_depth = 0.5 + np.clip(depth, -softness, softness) / (2 * softness)
    sure = np.clip(confidence, 0.5, 1)
    soft = np.clip(2 * np.where(foreground, sure, 1 - sure) - 0.5, 0, 1)
    opaque = np.ceil(255 * np.maximum(soft, by_depth))
    alpha = np.where(foreground, opaque, np.floor(255 * np.minimum(soft, by_depth)))
    return alpha.astype(np.uint8)  # type: ignore[no-any-return]


def crop(frame: Frame, box: Sequence[float], margin: float = CROP_MARGIN) -> Image:
    """[h, w, 3] uint8: a copy of a frame inside a box and a margin around it.

    Args:
        frame: [H, W].
        box: xyxy in pixels of the frame, half-open.
        margin: added on each side where the frame has it, as a share of the box's longer side; at least 0.
    Examples:
        >>> patchcut.output.cutouts.crop(patchcut.Frame(frame), (100, 80, 140, 120), margin=0.1).shape
        (48, 48, 3)
    """
    x0, y0, x1, y1 = (int(side) for side in box)
    more = round(margin * max(x1 - x0, y1 - y0))
    cropped: Image = frame.image[max(0, y0 - more) : y1 + more, max(0, x0 - more) : x1 + more].copy()
    return cropped
