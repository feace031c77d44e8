"""The specification of every op: plain numpy, float64 inside, nothing clever.

Arguments and results are those of the public op of the same name, without batches, `out` and checks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from ._gcn_weights import GcnWeights
from ._region_stats import RegionStats

_Real = npt.NDArray[np.floating[Any]]
_Float64 = npt.NDArray[np.float64]
_Int = npt.NDArray[np.int32]


def area_matrix(source: int, size: int) -> _Float64:
    """[size, source] weights of a box filter: row i covers [i, i + 1) * source / size."""
    edges = np.arange(size + 1) * source / size
    cells = np.arange(source)
    begin = np.maximum(edges[:-1, None], cells)
    end = np.minimum(edges[1:, None], cells + 1)
    return np.asarray(np.maximum(end - begin, 0) * size / source, np.float64)


def linear_matrix(source: int, size: int) -> _Float64:
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
) -> _Float64:
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


def unit_rows(features: _Real) -> _Float64:
    """Rows divided by their L2 norm; a zero row stays zero."""
    rows = np.asarray(features, np.float64)
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1), np.float64)


def affinity(
    features: _Real,
    *,
    kind: str = "cosine",
    mode: str = "ncut",
    threshold: float = 0.0,
    alpha: float = 3.0,
) -> _Float64:
    """[n, n] affinity of [n, d] features; the degrees are its row sums."""
    rows = unit_rows(features) if kind == "cosine" else np.asarray(features, np.float64)
    similarity = rows @ rows.T
    if mode == "cc":
        return np.asarray(similarity - similarity.max(initial=-np.inf) / alpha, np.float64)
    return np.where(similarity > threshold, similarity, 0.0)


def elu(x: _Float64) -> _Float64:
    """x above 0, exp(x) - 1 below."""
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def softmax(x: _Float64) -> _Float64:
    """Softmax of each row."""
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True), np.float64)


def gcn_forward(features: _Real, affinity: _Real | None, weights: GcnWeights) -> _Float64:
    """[n, k] assignment."""
    h = unit_rows(features) if weights.normalize else np.asarray(features, np.float64)
    h = (h - weights.shift) * weights.scale
    if weights.layers:
        edges = np.asarray(affinity, np.float64)
        scales = 1 / np.sqrt(edges.sum(axis=1) + 1)
        ahat = scales[:, None] * (edges + np.eye(len(edges))) * scales
    for layer in weights.layers:
        from_root = 0.0 if layer.root is None else h @ layer.root
        h = elu(ahat @ (h @ layer.theta) + from_root + layer.bias)
    for linear in weights.mlp[:-1]:
        h = elu(h @ linear.weight + linear.bias)
    last = weights.mlp[-1]
    return softmax((h @ last.weight + last.bias) / weights.temperature)


def upsample(assignment: _Real, grid_hw: tuple[int, int], size_hw: tuple[int, int]) -> _Float64:
    """[H, W, k], every column interpolated."""
    grid = np.asarray(assignment, np.float64).reshape(*grid_hw, -1)
    rows, cols = linear_matrix(grid_hw[0], size_hw[0]), linear_matrix(grid_hw[1], size_hw[1])
    return np.asarray(np.einsum("yh,hwk,xw->yxk", rows, grid, cols, optimize=True), np.float64)


def upsample_argmax(
    assignment: _Real, grid_hw: tuple[int, int], size_hw: tuple[int, int]
) -> tuple[_Int, _Float64]:
    """[H, W] label map and [H, W] confidence."""
    values = upsample(assignment, grid_hw, size_hw)
    return values.argmax(axis=2).astype(np.int32), values.max(axis=2)


def connected_components(label_map: _Int, *, connectivity: int = 8, min_area: int = 1) -> tuple[_Int, int]:
    """[H, W] ids in scan order and their count, by flood fill."""
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    if connectivity == 8:
        steps += [(1, 1), (1, -1), (-1, 1), (-1, -1)]
    height, width = label_map.shape
    ids = np.zeros_like(label_map)
    seen = label_map == 0
    count = 0
    for start in np.argwhere(~seen):
        if seen[tuple(start)]:
            continue
        seen[tuple(start)] = True
        component = [(int(start[0]), int(start[1]))]
        for y, x in component:
            for dy, dx in steps:
                near = (y + dy, x + dx)
                inside = 0 <= near[0] < height and 0 <= near[1] < width
                if inside and not seen[near] and label_map[near] == label_map[y, x]:
                    seen[near] = True
                    component.append(near)
        if len(component) >= min_area:
            count += 1
            ids[tuple(np.transpose(component))] = count
    return ids, count


def relabel(labels: _Int, table: _Int) -> _Int:
    """[H, W] with table[label] in place of each label."""
    return table[labels]


def region_stats(
    ids: _Int,
    count: int,
    *,
    label_map: _Int | None = None,
    confidence: npt.NDArray[np.float32] | None = None,
) -> RegionStats:
    """Area, box, mean confidence and label of each id, one id after the other."""
    area = np.zeros(count, np.int64)
    boxes_xyxy = np.zeros((count, 4), np.float32)
    mean_confidence = np.zeros(count, np.float32)
    label = np.zeros(count, np.int32)
    for i in range(count):
        ys, xs = np.nonzero(ids == i + 1)
        area[i] = ys.size
        if ys.size == 0:
            continue
        boxes_xyxy[i] = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
        if confidence is not None:
            mean_confidence[i] = confidence[ys, xs].astype(np.float64).mean()
        if label_map is not None:
            label[i] = label_map[ys[0], xs[0]]
    return RegionStats(
        area,
        boxes_xyxy,
        None if confidence is None else mean_confidence,
        None if label_map is None else label,
    )
