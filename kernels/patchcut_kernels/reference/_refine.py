"""Maps refined by the frame they belong to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ._types import Float64, Real


def box_mean(values: Float64, width: float) -> Float64:
    """[H, W, ...], means over a square of `width` pixels around each, the border mirrored with its pixel.

    Pixels that a square covers in part count by that part.
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
    """[H, W] or [k, H, W] for soft maps, [H, W] for a label map."""
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


def yuv_levels(frame: npt.NDArray[np.uint8], color: str) -> npt.NDArray[np.int64]:
    """[H, W, 3] in [0, 255], full-range BT.601 rounded down, its weights in 65536ths."""
    red, green, blue = np.moveaxis(frame[..., ::-1] if color == "bgr" else frame, -1, 0).astype(np.int64)
    luma = 19595 * red + 38470 * green + 7471 * blue
    u = -11059 * red - 21709 * green + 32768 * blue
    v = 32768 * red - 27439 * green - 5329 * blue
    return np.stack([luma >> 16, (u >> 16) + 128, (v >> 16) + 128], axis=-1)


def bins(values: npt.NDArray[np.int64], sigma: float) -> npt.NDArray[np.int64]:
    """Bins of `sigma` values each, by the middle of a value; float32, so that devices agree on borders."""
    per_bin = np.float32(1) / np.float32(sigma)
    middles = values.astype(np.float32) + np.float32(0.5)
    return np.asarray(np.floor(middles * per_bin), np.int64)


def grid_neighbours(vertices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """[V, 2 d], for vertices [V, d] the index of those one step away on each axis, V where there is none."""
    index = {tuple(vertex): i for i, vertex in enumerate(vertices.tolist())}
    unit = np.eye(vertices.shape[1], dtype=np.int64)
    near = vertices[:, None] + np.concatenate([unit, -unit])
    return np.array([[index.get(tuple(v), len(index)) for v in row] for row in near.tolist()], np.int64)


def bilateral_solver(
    frame: npt.NDArray[np.uint8],
    soft_map: npt.NDArray[np.float32],
    confidence: npt.NDArray[np.float32],
    *,
    sigma_spatial: float = 24.0,
    sigma_luma: float = 4.0,
    sigma_chroma: float = 4.0,
    smoothness: float = 256.0,
    iterations: int = 25,
    bistochastic_iterations: int = 10,
    color: str = "bgr",
) -> Float64:
    """[H, W], smooth in the bilateral space of the frame and near `soft_map` where that is sure."""
    position, levels = np.indices(soft_map.shape), yuv_levels(frame, color)
    axes = [*position, *np.moveaxis(levels, -1, 0)]
    sigmas = (sigma_spatial, sigma_spatial, sigma_luma, sigma_chroma, sigma_chroma)
    pixels = np.stack([bins(axis.ravel(), sigma) for axis, sigma in zip(axes, sigmas, strict=True)], 1)
    vertices, vertex_of = np.unique(pixels, axis=0, return_inverse=True)
    neighbours = grid_neighbours(vertices)

    def splat(values: Real) -> Float64:
        sums = np.zeros(len(vertices))
        np.add.at(sums, vertex_of.ravel(), values.ravel())
        return sums

    def blur(values: Float64) -> Float64:
        return np.asarray(10 * values + np.append(values, 0)[neighbours].sum(1), np.float64)

    mass = splat(np.ones(soft_map.shape))
    scale = np.ones(len(vertices))
    for _ in range(bistochastic_iterations):
        scale = np.sqrt(scale * mass / blur(scale))
    sums = scale * blur(scale)
    weights = confidence.astype(np.float64)
    weight, target = splat(weights), splat(weights * soft_map)

    def operator(values: Float64) -> Float64:
        return smoothness * (sums * values - scale * blur(scale * values)) + weight * values

    diagonal = smoothness * (sums - 10 * scale**2) + weight
    start = np.divide(target, weight, out=np.zeros_like(target), where=weight > 0)
    return conjugate_gradients(operator, target, diagonal, start, iterations)[vertex_of].reshape(
        soft_map.shape
    )


def conjugate_gradients(
    operator: Callable[[Float64], Float64], right: Float64, diagonal: Float64, x: Float64, iterations: int
) -> Float64:
    """x after some steps towards operator(x) = right, preconditioned by the operator's diagonal."""
    inverse = np.divide(1, diagonal, out=np.zeros_like(diagonal), where=diagonal > 0)
    r = right - operator(x)
    p = inverse * r
    for _ in range(iterations):
        q = operator(p)
        before = r @ (inverse * r)
        if before <= 0 or p @ q <= 0:
            break
        alpha = before / (p @ q)
        x, r = x + alpha * p, r - alpha * q
        p = inverse * r + (r @ (inverse * r)) / before * p
    return x
