"""Frames to images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _launch
from ._arrays import Array

Color = Literal["bgr", "rgb", "nv12"]
Fit = Literal["stretch", "letterbox"]

_OP = "preprocess"


def letterbox_xyxy(frame_hw: tuple[int, int], size_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """The rectangle of a letterboxed image that the frame fills.

    Args:
        frame_hw: height and width of the frame, pixels.
        size_hw: height and width of the image, pixels.
    Returns:
        (x0, y0, x1, y1), half-open, pixels of the image; the frame's aspect to the nearest pixel, centred.
    Raises:
        ValueError: "[letterbox_xyxy] frame_hw[0] must be at least 1, got 0".
    Examples:
        >>> pk.letterbox_xyxy((100, 200), (224, 224))
        (0, 56, 224, 168)
    """
    height, width = _checks.pair_hw("letterbox_xyxy", "frame_hw", frame_hw)
    size_h, size_w = _checks.pair_hw("letterbox_xyxy", "size_hw", size_hw)
    if width * size_h >= height * size_w:
        inner_h, inner_w = max(1, (2 * height * size_w + width) // (2 * width)), size_w
    else:
        inner_h, inner_w = size_h, max(1, (2 * width * size_h + height) // (2 * height))
    x0, y0 = (size_w - inner_w) // 2, (size_h - inner_h) // 2
    return x0, y0, x0 + inner_w, y0 + inner_h


def _triple(name: str, values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) != 3:
        raise ValueError(f"[{_OP}] {name} must be three numbers (R, G, B), got {len(values)}")
    red, green, blue = (_checks.number(_OP, f"{name}[{i}]", value) for i, value in enumerate(values))
    if not np.isfinite((red, green, blue)).all():
        raise ValueError(f"[{_OP}] {name} must be finite, got {(red, green, blue)}")
    return red, green, blue


def preprocess(
    frames: Array,
    size: int | tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    color: Color = "bgr",
    fit: Fit = "stretch",
    dtype: npt.DTypeLike = np.float32,
    out: Array | None = None,
    stream: object = None,
) -> npt.NDArray[Any]:
    """Images for a backbone: resized, normalised RGB planes.

    Args:
        frames: [H, W, 3] or [b, H, W, 3] uint8, any strides; "nv12": [H * 3 / 2, W] or [b, H * 3 / 2, W], the
            luma of even sizes above the chroma, rows of any stride.
        size: (height, width) of the images, or one number for both.
        mean: mean of R, G and B, where 1 is white.
        std: standard deviation of R, G and B, above 0, where 1 is white.
        color: channel order of the frames, or "nv12" of cameras and decoders: BT.601 of limited range.
        fit: "stretch" fills the image; "letterbox" keeps the aspect, see `letterbox_xyxy`.
        dtype: type of the images, float32 or float16.
        out: [3, h, w] or [b, 3, h, w] of `dtype`, contiguous; written and returned.
        stream: the CUDA stream to run on, see `patchcut_kernels.cuda`.
    Returns:
        [3, h, w] or [b, 3, h, w] of `dtype`, RGB; 0 (the mean) outside a letterboxed frame.
    Raises:
        TypeError: "[preprocess] frames must be uint8, got float32".
        ValueError: "[preprocess] frames must be [H, W, 3] or [b, H, W, 3], got shape (3,)".
    image = (resize(frame) / 255 - mean) / std. Each axis is resized on its own: an exact box filter where it
    shrinks (as OpenCV's INTER_AREA), bilinear between pixel centres where it grows (as INTER_LINEAR).
    Examples:
        >>> frame = np.full((4, 4, 3), 255, np.uint8)
        >>> pk.preprocess(frame, (1, 2), mean=(0, 0, 0), std=(1, 1, 1)).round(3).tolist()
        [[[1.0, 1.0]], [[1.0, 1.0]], [[1.0, 1.0]]]
    """
    native_color = _checks.member(_OP, "color", color, _C.Color)
    view, batch, frame_hw = _nv12_frames(frames) if color == "nv12" else _packed_frames(frames)
    _checks.choice(_OP, "fit", fit, ("stretch", "letterbox"))
    size_hw = (
        _checks.pair_hw(_OP, "size", size)
        if isinstance(size, (tuple, list))
        else (_checks.integer(_OP, "size", size, 1),) * 2
    )
    _checks.few_pixels(_OP, "size", size_hw)
    means, stds = _triple("mean", mean), _triple("std", std)
    if min(stds) <= 0:
        raise ValueError(f"[{_OP}] std must be above 0, got {stds}")
    scale = tuple(1.0 / (255.0 * s) for s in stds)
    offset = tuple(-m / s for m, s in zip(means, stds, strict=True))
    if max(map(abs, (*scale, *offset))) > _checks.LARGEST_FLOAT:
        raise ValueError(f"[{_OP}] mean / std and 1 / std must fit float32, got {means} and {stds}")
    if np.dtype(dtype) not in (np.float32, np.float16):
        raise TypeError(f"[{_OP}] dtype must be float32 or float16, got {np.dtype(dtype)}")
    launch = _launch.prepare(_OP, stream, None, frames=view)
    result = _checks.output(_OP, "out", out, np.dtype(dtype).type, (*batch, 3, *size_hw), launch)
    x0, y0, x1, y1 = (
        letterbox_xyxy(frame_hw, size_hw) if fit == "letterbox" else (0, 0, size_hw[1], size_hw[0])
    )
    content = (y0, x0, y1 - y0, x1 - x0)
    _C.preprocess(
        _checks.strided(view, 3 if color == "nv12" else 4),
        _checks.native(_OP, "out", result, -1, 3, *size_hw),
        content,
        native_color,
        scale,
        offset,
        launch.context,
    )
    return _checks.returned(out, result)


_Frames = tuple[npt.NDArray[np.uint8], tuple[int, ...], tuple[int, int]]


def _packed_frames(frames: object) -> _Frames:
    """The frames, and the shape of the batch and of one frame."""
    view = _checks.array(_OP, "frames", frames, np.uint8, ("[H, W, 3]", "[b, H, W, 3]"))
    if view.shape[-1] != 3:
        raise ValueError(f"[{_OP}] frames must be [H, W, 3] or [b, H, W, 3], got shape {view.shape}")
    if 0 in view.shape[-3:]:
        raise ValueError(f"[{_OP}] frames must not be empty, got shape {view.shape}")
    return view, view.shape[:-3], (view.shape[-3], view.shape[-2])


def _nv12_frames(frames: object) -> _Frames:
    """The same for NV12."""
    dims = ("[H * 3 / 2, W]", "[b, H * 3 / 2, W]")
    view = _checks.array(_OP, "frames", frames, np.uint8, dims)
    rows, width = view.shape[-2:]
    if rows == 0 or width == 0 or rows % 3 or width % 2:
        raise ValueError(
            f"[{_OP}] frames must be {' or '.join(dims)} with even H and W for nv12, got shape {view.shape}"
        )
    if view.strides[-1] != 1:
        raise ValueError(f"[{_OP}] frames must have their pixels side by side, got strides {view.strides}")
    return view, view.shape[:-2], (rows // 3 * 2, width)
