"""Masks to run lengths."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from . import _C, _arrays, _checks
from ._arrays import Array

_OP = "rle_encode"
_Runs = npt.NDArray[np.uint32]
_Offsets = npt.NDArray[np.int64]


class Rle(TypedDict):
    """One mask as COCO stores it; pycocotools takes it as it is.

    Args:
        size: [H, W].
        counts: run lengths down the columns, from left to right, zeros first: COCO's text, or a list of ints.
    """

    size: list[int]
    counts: bytes | str | list[int]


def rle_encode(masks: Array, count: int | None = None, *, compressed: bool = True) -> Any:
    """Masks as COCO's run lengths, byte for byte those of pycocotools.

    Args:
        masks: [H, W] or [m, H, W] bool; or, with `count`, ids as `connected_components` returns them,
            [H, W] or [b, H, W] int32 in [0, count], which are read once for all masks.
        count: number of ids; row i belongs to id i + 1.
        compressed: False for `counts` as a list of ints in place of COCO's text.
    Returns:
        An Rle of one mask [H, W], a list of them otherwise; of a batch of ids a list of lists.
    Raises:
        TypeError: "[rle_encode] masks must be bool, or int32 with count, got uint8".
        ValueError: "[rle_encode] masks must be [H, W] or [m, H, W], got shape (3,)".
        ValueError: "[rle_encode] ids must be in [0, 2], got 3".
    Of the text: each run from the fourth on less the one two before, in groups of five bits, lowest first.
    """
    view = _arrays.host_view(_OP, "masks", masks)
    if view.ndim not in (2, 3):
        raise ValueError(f"[{_OP}] masks must be [H, W] or [m, H, W], got shape {view.shape}")
    if view.dtype != (np.bool_ if count is None else np.int32):
        raise TypeError(f"[{_OP}] masks must be bool, or int32 with count, got {view.dtype}")
    if math.prod(view.shape[-2:]) >= 2**31 - 1:
        raise ValueError(f"[{_OP}] masks must be below 2^31 - 1 pixels, got shape {view.shape}")
    stacked = view if view.ndim == 3 else view[None]
    if count is None:
        rles = _encode_masks(stacked, compressed)
        return rles if view.ndim == 3 else rles[0]
    count = _checks.integer(_OP, "count", count, 0)
    rles = _encode_ids(stacked, count, compressed)
    if view.ndim == 2:
        return rles
    return [rles[i * count : (i + 1) * count] for i in range(len(view))]


def _encode_masks(masks: npt.NDArray[Any], compressed: bool) -> list[Rle]:
    data = np.ascontiguousarray(masks).view(np.uint8)

    def encode(runs: _Runs, offsets: _Offsets) -> None:
        _C.rle_encode(data, runs, offsets, _checks.CPU)

    return _rles(masks.shape, *_find_runs(encode, masks.shape, len(masks)), compressed)


def _encode_ids(ids: npt.NDArray[Any], count: int, compressed: bool) -> list[Rle]:
    data = np.ascontiguousarray(ids)

    def encode(runs: _Runs, offsets: _Offsets) -> None:
        _C.rle_encode_ids(data, count, runs, offsets, _checks.CPU)

    return _rles(ids.shape, *_find_runs(encode, ids.shape, len(ids) * count), compressed)


def _find_runs(
    encode: Callable[[_Runs, _Offsets], None], shape: tuple[int, ...], items: int
) -> tuple[_Runs, _Offsets]:
    """Runs and where those of each item begin; a second call where the first guess of their number fails."""
    offsets = np.empty(items + 1, np.int64)
    # A convex region has two runs in each column that it meets.
    runs = np.empty(items * min(math.prod(shape[1:]) + 1, 4 * shape[2] + 64), np.uint32)
    encode(runs, offsets)
    if offsets[-1] > len(runs):
        runs = np.empty(offsets[-1], np.uint32)
        encode(runs, offsets)
    return runs, offsets


def _rles(shape: tuple[int, ...], runs: _Runs, offsets: _Offsets, compressed: bool) -> list[Rle]:
    bounds = offsets.tolist()
    items = (runs[begin:end] for begin, end in pairwise(bounds))
    return [
        {"size": list(shape[1:]), "counts": _C.rle_write_text(item) if compressed else item.tolist()}
        for item in items
    ]
