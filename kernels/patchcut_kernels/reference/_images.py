"""Frames to images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from ._types import Float64


def area_matrix(source: int, size: int) -> Float64:
    """[size, source] weights of a box filter: row i covers [i, i + 1) * source / size."""
    edges = np.arange(size + 1) * source / size
    cells = np.arange(source)
    begin = np.maximum(edges[:-1, None], cells)
    end = np.minimum(edges[1:, None], cells + 1)
    return np.asarray(np.maximum(end - begin, 0) * size / source, np.float64)


def linear_matrix(source: int, size: int) -> Float64:
    """[size, source] weights of bilinear interpolation between cell centres, the border repeated."""
    at = np.clip((np.arange(size) + 0.5) * source / size - 0.5, 0, source - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(source))), np.float64)


def content_xyxy(frame_hw: tuple[int, int], size_hw: tuple[int, int], fit: str) -> tuple[int, int, int, int]:
    """The rectangle of the image that the frame fills: all of it, or the frame's aspect, centred."""
    scales = [Fraction(size, source) for size, source in zip(size_hw, frame_hw, strict=True)]
    zoom = [min(scales)] * 2 if fit == "letterbox" else scales
    height, width = (
        max(1, math.floor(source * factor + Fraction(1, 2)))
        for source, factor in zip(frame_hw, zoom, strict=True)
    )
    y0, x0 = (size_hw[0] - height) // 2, (size_hw[1] - width) // 2
    return x0, y0, x0 + width, y0 + height


def preprocess(
    frame: npt.NDArray[np.uint8],
    size_hw: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    color: str = "bgr",
    fit: str = "stretch",
) -> Float64:
    """[3, h, w] image of one frame."""
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = content_xyxy((height, width), size_hw, fit)
    rows, cols = (
        area_matrix(source, size) if source > size else linear_matrix(source, size)
        for source, size in ((height, y1 - y0), (width, x1 - x0))
    )
    rgb = frame[:, :, ::-1] if color == "bgr" else frame
    resized = np.einsum("yh,hwc,xw->cyx", rows, rgb / 255.0, cols, optimize=True)
    image = np.zeros((3, *size_hw))
    image[:, y0:y1, x0:x1] = (resized - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    return image
