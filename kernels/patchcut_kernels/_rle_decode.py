"""Run lengths to masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from . import _C, _checks
from ._arrays import Array
from ._rle_encode import Rle

_OP = "rle_decode"
_Mask = npt.NDArray[np.bool_]
_Runs = npt.NDArray[np.uint32]


def rle_decode(rles: Rle | Sequence[Rle], *, out: Array | None = None) -> _Mask:
    """Masks of COCO's run lengths, as `rle_encode` and pycocotools write them.

    Args:
        rles: one Rle, or a list of m of one size.
        out: [H, W] or [m, H, W] bool, contiguous; written and returned.
    Returns:
        [H, W] bool of one Rle; [m, H, W] bool of a list, [0, 0, 0] of an empty one.
    Raises:
        TypeError: "[rle_decode] rles must be an Rle or a list of them, got str".
        ValueError: "[rle_decode] size of all rles must be [480, 640], got [2, 3]".
        ValueError: "[rle_decode] counts of item 0 must sum to 307200 pixels, got 5".
    """
    items = [rles] if isinstance(rles, Mapping) else rles
    if not isinstance(items, (list, tuple)):
        raise TypeError(f"[{_OP}] rles must be an Rle or a list of them, got {type(rles).__name__}")
    sizes = [_size_of(item) for item in items]
    height, width = sizes[0] if sizes else (0, 0)
    for size in sizes:
        if size != (height, width):
            raise ValueError(f"[{_OP}] size of all rles must be {[height, width]}, got {list(size)}")
    parts = [_runs_of(item["counts"]) for item in items]
    offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    shape = (height, width) if isinstance(rles, Mapping) else (len(items), height, width)
    masks = _checks.output(_OP, "out", out, np.bool_, shape)
    runs = np.concatenate([np.empty(0, np.uint32), *parts])
    _C.rle_decode(runs, offsets, masks.reshape(len(items), height, width).view(np.uint8), _checks.CPU)
    return _checks.returned(out, masks)


def _size_of(item: object) -> tuple[int, int]:
    if not isinstance(item, Mapping) or not {"size", "counts"} <= item.keys():
        raise TypeError(f'[{_OP}] an Rle must be a dict with "size" and "counts", got {item!r:.60}')
    size = item["size"]
    if not isinstance(size, (list, tuple)) or len(size) != 2:
        raise ValueError(f"[{_OP}] size must be [height, width], got {size!r:.60}")
    height, width = (_checks.integer(_OP, f"size[{i}]", value, 0, 2**31 - 1) for i, value in enumerate(size))
    if height * width >= 2**31 - 1:
        raise ValueError(f"[{_OP}] size must be below 2^31 - 1 pixels, got {list(size)}")
    return height, width


def _runs_of(counts: object) -> _Runs:
    if isinstance(counts, str):
        counts = counts.encode()  # what is not ASCII becomes bytes that the text does not have
    if isinstance(counts, bytes):
        runs = np.empty(len(counts), np.uint32)
        return runs[: _C.rle_read_text(counts, runs)]
    if not isinstance(counts, (list, tuple)):
        raise TypeError(f"[{_OP}] counts must be bytes, str or a list of ints, got {type(counts).__name__}")
    return np.array([_checks.integer(_OP, "counts", run, 0, 2**32 - 1) for run in counts], np.uint32)
