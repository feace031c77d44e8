"""Assignments to label maps, regions and run lengths."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .._region_stats import RegionStats
from .._rle_encode import Rle
from ._images import linear_matrix
from ._types import Float64, Int, Real


def upsample(assignment: Real, grid_hw: tuple[int, int], size_hw: tuple[int, int]) -> Float64:
    """[H, W, k], every column interpolated."""
    grid = np.asarray(assignment, np.float64).reshape(*grid_hw, -1)
    rows, cols = linear_matrix(grid_hw[0], size_hw[0]), linear_matrix(grid_hw[1], size_hw[1])
    return np.asarray(np.einsum("yh,hwk,xw->yxk", rows, grid, cols, optimize=True), np.float64)


def upsample_argmax(
    assignment: Real, grid_hw: tuple[int, int], size_hw: tuple[int, int]
) -> tuple[Int, Float64]:
    """[H, W] label map and [H, W] confidence.

    Examples:
        >>> labels, confidence = pk.reference.upsample_argmax(np.float32([[1, 0], [0, 1]]), (1, 2), (1, 4))
        >>> labels.tolist(), confidence.tolist()
        ([[0, 0, 1, 1]], [[1.0, 0.75, 0.75, 1.0]])
    """
    values = upsample(assignment, grid_hw, size_hw)
    return values.argmax(axis=2).astype(np.int32), values.max(axis=2)


def connected_components(label_map: Int, *, connectivity: int = 8, min_area: int = 1) -> tuple[Int, int]:
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


def relabel(labels: Int, table: Int) -> Int:
    """[H, W] with table[label] in place of each label."""
    return table[labels]


def region_stats(
    ids: Int,
    count: int,
    *,
    label_map: Int | None = None,
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


def rle_encode(mask: npt.NDArray[np.bool_ | np.uint8], *, text: bool = False) -> Rle:
    """One mask [H, W] as COCO's run lengths."""
    counts = rle_text(run_lengths(mask != 0))
    return {"size": list(mask.shape), "counts": counts.decode() if text else counts}


def run_lengths(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs down the columns, zeros first."""
    pixels = np.concatenate([[False], mask.T.ravel()])
    changes = np.flatnonzero(pixels[1:] != pixels[:-1])
    bounds = [0, *changes.tolist(), mask.size]
    return [end - begin for begin, end in pairwise(bounds)]


def rle_text(runs: list[int]) -> bytes:
    """Runs as COCO's text: from the fourth on less the one two before, five bits a letter, lowest first."""
    letters = []
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        while True:
            group, value = value & 31, value >> 5
            last = value == (-1 if group & 16 else 0)
            letters.append(48 + group + (0 if last else 32))
            if last:
                break
    return bytes(letters)


def rle_decode(rle: Rle) -> npt.NDArray[np.bool_]:
    """[H, W] bool of run lengths as `rle_encode` gives them."""
    height, width = rle["size"]
    runs: list[int] = []
    value = shift = 0
    for letter in bytes(rle["counts"]):  # type: ignore[arg-type]
        group = letter - 48
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height)
    return np.asarray(columns.T, np.bool_)
