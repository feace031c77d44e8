"""Maps refined by the frame they belong to."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._types import Float64


def box_mean(values: Float64, width: float) -> Float64:
    """[H, W, ...], means over a square of `width` pixels around each, the border mirrored with its pixel.

    Pixels that a square meets in part count for as much.
    """
    inner = int((width - 1) // 2)
    edge = (width - (2 * inner + 1)) / 2
    weights = np.array([edge, *[1.0] * (2 * inner + 1), edge]) / width
    for axis in (0, 1):
        reach = [(inner + 1, inner + 1) if i == axis else (0, 0) for i in range(values.ndim)]
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(values, reach, mode="symmetric"), len(weights), axis
        )
        values = np.asarray(windows @ weights, np.float64)
    return values


def block_mean(values: Float64, step: int) -> Float64:
    """[ceil(H / step), ceil(W / step)], means over blocks of step x step pixels, smaller at the ends."""
    for axis in (0, 1):
        starts = np.arange(0, values.shape[axis], step)
        sizes = np.diff([*starts, values.shape[axis]])
        sums = np.add.reduceat(values, starts, axis)
        values = np.asarray(sums / np.expand_dims(sizes, 1 - axis), np.float64)
    return values


def block_matrix(blocks: int, size: int, step: int) -> Float64:
    """[size, blocks] weights of linear interpolation between the middles of blocks of `step` pixels."""
    at = np.clip((2 * np.arange(size) - (step - 1)) / (2 * step), 0, blocks - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(blocks))), np.float64)


def guided_filter(
    guide: Float64, soft_map: Float64, radius: int, eps: float, *, subsample: int = 1
) -> Float64:
    """[H, W], the guided filter of a map [H, W] with a guide [H, W, 3]."""
    height, width = soft_map.shape
    rows, cols = (
        np.minimum(np.arange(0, size, subsample) + subsample // 2, size - 1) for size in (height, width)
    )
    window = max(1.0, (2 * radius + 1) / subsample)
    seen = guide[rows][:, cols]
    p = block_mean(soft_map, subsample)
    mean_p, mean_seen = box_mean(p, window), box_mean(seen, window)
    cross = box_mean(seen * p[..., None], window) - mean_seen * mean_p[..., None]
    outer = seen[..., :, None] * seen[..., None, :]
    covariance = box_mean(outer, window) - mean_seen[..., :, None] * mean_seen[..., None, :]
    a: Float64 = np.linalg.solve(covariance + eps * np.eye(3), cross[..., None])[..., 0].astype(np.float64)
    b = mean_p - (a * mean_seen).sum(-1)
    to_rows, to_cols = block_matrix(len(rows), height, subsample), block_matrix(len(cols), width, subsample)
    mean_a = np.einsum("yh,hwc,xw->yxc", to_rows, box_mean(a, window), to_cols, optimize=True)
    mean_b = to_rows @ box_mean(b, window) @ to_cols.T
    return np.asarray((mean_a * guide).sum(-1) + mean_b, np.float64)


def guided_refine(
    frame: npt.NDArray[np.uint8], maps: npt.NDArray[Any], radius: int, eps: float, *, subsample: int = 1
) -> npt.NDArray[Any]:
    """[H, W] or [k, H, W] of soft maps, [H, W] of a label map."""
    guide = frame / 255
    if maps.dtype != np.int32:
        planes = maps.reshape(-1, *maps.shape[-2:]).astype(np.float64)
        filtered = [guided_filter(guide, plane, radius, eps, subsample=subsample) for plane in planes]
        return np.array(filtered).reshape(maps.shape)
    labels = np.unique(maps)
    indicators = [
        guided_filter(guide, (maps == label).astype(np.float64), radius, eps, subsample=subsample)
        for label in labels
    ]
    return np.asarray(labels[np.argmax(indicators, axis=0)], np.int32)
