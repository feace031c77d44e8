"""Assignments to label maps, regions and run lengths."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import patchcut_kernels as pk

from bench import subjects
from bench.cases import Target
from bench.cases.kernels.duel import Array, Duel, Side, difference, smooth_assignment


def _upsample_argmax(
    columns: int, grid_hw: tuple[int, int], size_hw: tuple[int, int], *, confidence: bool
) -> Duel:
    """With its confidence, into memory that is kept, is how every frame uses it."""
    assignment = smooth_assignment(columns, grid_hw)
    out, certainty = np.empty(size_hw, np.int32), np.empty(size_hw, np.float32)
    planes = [np.ascontiguousarray(column.reshape(grid_hw)) for column in assignment.T]

    def ours() -> object:
        if confidence:
            return pk.upsample_argmax(assignment, grid_hw, size_hw, out=out, confidence=certainty)
        return pk.upsample_argmax(assignment, grid_hw, size_hw, out=out)

    if columns == 2:
        theirs = partial(_resize_foreground, planes[1], size_hw, certainty if confidence else None)
        inside = "resize of one column, compare: a mask of 8 bits"
    else:
        theirs = partial(_resize_columns, planes, size_hw)
        inside = "resize of each column, running maximum: labels of 8 bits and confidence"
    told = " and confidence" if confidence else ""
    ours()
    return Duel(
        Side("patchcut", ours, f"label map of 32 bits{told}"),
        (Side("cv2.resize, numpy", theirs, inside + (told if columns == 2 else "")),),
        {"assignment": assignment.shape, "label_map": size_hw},
        {"label_agreement": float((out == theirs()[0]).mean())},
    )


def _resize_foreground(plane: Array, size_hw: tuple[int, int], out: Array | None) -> tuple[Any, Any]:
    """(mask, confidence in `out` or None) of the second of two columns; the first is 1 minus it."""
    foreground = np.asarray(cv2.resize(plane, size_hw[::-1]), np.float32)
    mask = foreground > 0.5
    if out is not None:
        np.subtract(1, foreground, out=out)
        np.maximum(foreground, out, out=out)
    return mask, out


def _resize_columns(planes: list[Array], size_hw: tuple[int, int]) -> tuple[Any, Any]:
    """(labels, confidence); numpy.argmax over stacked columns takes five times as long."""
    best = cv2.resize(planes[0], size_hw[::-1])
    labels = np.zeros(size_hw, np.uint8)
    for label, plane in enumerate(planes[1:], 1):
        values = cv2.resize(plane, size_hw[::-1])
        mask = cv2.compare(values, best, cv2.CMP_GT)
        cv2.copyTo(np.full(size_hw, label, np.uint8), mask, labels)
        cv2.max(values, best, best)
    return labels, best


def _connected_components(size_hw: tuple[int, int]) -> Duel:
    grid_hw = (28, 28)
    label_map = pk.upsample_argmax(smooth_assignment(2, grid_hw), grid_hw, size_hw)
    binary = label_map.astype(np.uint8)
    out = np.empty(size_hw, np.int32)

    def ours() -> tuple[int, pk.RegionStats]:
        ids, count = pk.connected_components(label_map, out=out)
        return count, pk.region_stats(ids, count)

    def theirs() -> Any:
        return cv2.connectedComponentsWithStats(binary, connectivity=8)

    same = np.array_equal(np.sort(ours()[1].area), np.sort(theirs()[2][1:, cv2.CC_STAT_AREA]))
    return Duel(
        Side("patchcut", ours, "ids, areas and boxes"),
        (Side("cv2.connectedComponentsWithStats", theirs, "ids, areas, boxes and centroids"),),
        {"label_map": size_hw},
        {"same_components": float(same)},
        "int32",
    )


def _relabel(size_hw: tuple[int, int]) -> Duel:
    rng = np.random.default_rng(0)
    table = rng.permutation(64).astype(np.int32)
    ids = np.sort(rng.integers(0, 64, size_hw).astype(np.int32), axis=1)  # runs, as components are
    ours_out, theirs_out = np.empty_like(ids), np.empty_like(ids)

    def ours() -> npt.NDArray[np.int32]:
        return pk.relabel(ids, table, out=ours_out)

    def theirs() -> npt.NDArray[np.int32]:
        return np.take(table, ids, out=theirs_out, mode="clip")

    return Duel(
        Side("patchcut", ours, "bounds checked, table applied"),
        (Side("numpy take", theirs, "bounds clipped, table applied"),),
        {"labels": size_hw},
        {"max_abs_difference": difference(ours(), theirs())},
        "int32",
    )


def _rle_encode(count: int, size_hw: tuple[int, int]) -> Duel:
    """pycocotools reads masks column by column, so that masks as numpy makes them have to be turned first."""
    from pycocotools import mask as coco

    ids, masks = _regions(count, size_hw)

    def theirs() -> Any:
        return coco.encode(np.asfortranarray(masks.transpose(1, 2, 0).view(np.uint8)))

    turned = np.asfortranarray(masks.transpose(1, 2, 0).view(np.uint8))
    same = pk.rle_encode(masks) == theirs() == pk.rle_encode(ids, count)
    return Duel(
        Side("patchcut", lambda: pk.rle_encode(masks), "text of row-major masks"),
        (
            Side("pycocotools", theirs, "the same: masks turned to column-major, text"),
            Side("pycocotools, masks turned before", lambda: coco.encode(turned), "text alone"),
            Side(
                "patchcut, from ids", lambda: pk.rle_encode(ids, count), "text of a map of ids, no masks made"
            ),
        ),
        {"masks": masks.shape},
        {"same_text": float(same)},
        "bool",
    )


def _rle_decode(count: int, size_hw: tuple[int, int]) -> Duel:
    from pycocotools import mask as coco

    _, masks = _regions(count, size_hw)
    rles, out = pk.rle_encode(masks), np.empty_like(masks)
    same = np.array_equal(coco.decode(rles).transpose(2, 0, 1), pk.rle_decode(rles))
    return Duel(
        Side("patchcut", lambda: pk.rle_decode(rles, out=out), "row-major masks of text"),
        (Side("pycocotools", lambda: coco.decode(rles), "column-major masks of text"),),
        {"masks": masks.shape},
        {"same_masks": float(same)},
        "bool",
    )


def _regions(count: int, size_hw: tuple[int, int]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """A map of ids [H, W] of `count` smooth regions and background, and their masks [count, H, W]."""
    grid_hw = (28, 28)
    ids = pk.upsample_argmax(smooth_assignment(count + 1, grid_hw), grid_hw, size_hw)
    return ids, ids[None] == np.arange(1, count + 1, dtype=np.int32)[:, None, None]


DUELS: dict[str, Callable[[], Duel]] = {
    **{
        f"upsample_argmax {columns} of {side}x{side} to {hw[1]}x{hw[0]}{told}": partial(
            _upsample_argmax, columns, (side, side), hw, confidence=confidence
        )
        for columns, side, hw in ((2, 16, subjects.VGA_HW), (8, 28, subjects.FULL_HD_HW))
        for told, confidence in (("", False), (" with confidence", True))
    },
    "connected_components 640x480": lambda: _connected_components(subjects.VGA_HW),
    "connected_components 1920x1080": lambda: _connected_components(subjects.FULL_HD_HW),
    "relabel 1920x1080": lambda: _relabel(subjects.FULL_HD_HW),
    "rle_encode 8 of 640x480": lambda: _rle_encode(8, subjects.VGA_HW),
    "rle_decode 8 of 640x480": lambda: _rle_decode(8, subjects.VGA_HW),
}
TARGETS = (
    Target(
        "upsample_argmax 8 of 28x28 to 1920x1080",
        "times_as_fast",
        ">=",
        5,
        "×",
        "upsample_argmax, 8 columns, times as fast as cv2.resize of each",
    ),
    Target(
        "rle_encode 8 of 640x480", "times_as_fast", ">=", 3, "×", "rle_encode, times as fast as pycocotools"
    ),
)
