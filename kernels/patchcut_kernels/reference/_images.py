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


def nv12_to_rgb(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """[H, W, 3] of an NV12 frame [H * 3 / 2, W], BT.601 of limited range, each 2 x 2 pixels of one chroma.

    R = 1.164 (Y - 16) + 1.596 V, G = 1.164 (Y - 16) - 0.813 V - 0.391 U, B = 1.164 (Y - 16) + 2.018 U, with
    U and V less 128, in integers of 20 bits after the point; bytes are rounded and clamped.
    """
    height = frame.shape[0] * 2 // 3
    luma, red_v, green_v, green_u, blue_u = (
        round(factor * 2**20) for factor in (1.164, 1.596, -0.813, -0.391, 2.018)
    )
    y = luma * np.maximum(frame[:height].astype(np.int64) - 16, 0) + 2**19
    chroma = frame[height:].reshape(height // 2, -1, 2).astype(np.int64) - 128
    u, v = np.moveaxis(chroma.repeat(2, axis=0).repeat(2, axis=1), 2, 0)
    rgb = np.stack([y + red_v * v, y + green_v * v + green_u * u, y + blue_u * u], axis=2)
    return np.asarray(np.clip(rgb >> 20, 0, 255), np.uint8)


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
    if color == "nv12":
        frame, color = nv12_to_rgb(frame), "rgb"
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
