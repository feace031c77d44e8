"""Run lengths to masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _launch
from ._arrays import Array
from ._rle_encode import Rle, RunLengths

_OP = "rle_decode"
_Mask = npt.NDArray[np.bool_]
_Runs = npt.NDArray[np.uint32]
_LARGE = 1 << 20  # pixels


def rle_decode(
    rles: Rle | Sequence[Rle] | RunLengths,
    *,
    out: Array | None = None,
    workspace: Array | None = None,
    stream: object = None,
) -> _Mask:
    """Masks of COCO's run lengths, as `rle_encode` and pycocotools write them.

    Args:
        rles: one Rle, or a list of m of one size; or RunLengths of m masks, whose arrays may lie on CUDA.
        out: [H, W] or [m, H, W] bool, contiguous; written and returned.
        workspace: memory to compute in on CUDA, see `patchcut_kernels.cuda`.
        stream: the CUDA stream to run on, see `patchcut_kernels.cuda`.
    Returns:
        [H, W] bool of one Rle; [m, H, W] bool otherwise, [0, 0, 0] of an empty list; where the arrays of
        `rles` lie.
    Raises:
        TypeError: "[rle_decode] rles must be an Rle or a list of them, got str".
        ValueError: "[rle_decode] size of all rles must be [480, 640], got [2, 3]".
        ValueError: "[rle_decode] counts of item 0 must sum to 307200 pixels, got 5".
    On CUDA, where values are not checked, pixels after the last run of a mask are False.
    Examples:
        >>> rle = {"size": [2, 2], "counts": b"22"}
        >>> pk.rle_decode(rle).tolist()
        [[False, True], [False, True]]
    """
    lengths = rles if isinstance(rles, RunLengths) else _lengths_of(rles)
    height, width = _size("size_hw", lengths.size_hw)
    runs = _checks.array(_OP, "runs", lengths.runs, np.uint32, ("[capacity]",))
    offsets = _checks.array(_OP, "offsets", lengths.offsets, np.int64, ("[m + 1]",))
    if offsets.size == 0:
        raise ValueError(f"[{_OP}] offsets must be [m + 1], got shape {offsets.shape}")
    launch = _launch.prepare(_OP, stream, workspace, runs=runs, offsets=offsets)
    flat = (offsets.size - 1, height, width)
    if out is None and launch.stream is None:
        _require_pixels(runs, offsets, flat)
    masks = _checks.output(_OP, "out", out, np.bool_, flat[1:] if isinstance(rles, Mapping) else flat, launch)
    if out is not None:
        _checks.disjoint(_OP, masks, runs, offsets)
    _C.rle_decode(
        _checks.native(_OP, "runs", runs, -1),
        _checks.native(_OP, "offsets", offsets, -1),
        _checks.native(_OP, "out", masks, *flat),
        launch.context,
    )
    return _checks.returned(out, masks)


def _require_pixels(runs: _Runs, offsets: npt.NDArray[np.int64], flat: tuple[int, int, int]) -> None:
    """Raises where large masks are asked of runs of fewer pixels, before there is memory for them."""
    pixels = flat[0] * flat[1] * flat[2]
    if pixels < _LARGE or np.any(np.diff(offsets) < 0) or offsets[0] < 0 or offsets[-1] > runs.size:
        return  # small, or what the op itself refuses
    got = int(runs[offsets[0] : offsets[-1]].sum(dtype=np.uint64))
    if got != pixels:
        raise ValueError(f"[{_OP}] counts must sum to {pixels} pixels, got {got}")


def _lengths_of(rles: object) -> RunLengths:
    items = [rles] if isinstance(rles, Mapping) else rles
    if not isinstance(items, (list, tuple)):
        raise TypeError(f"[{_OP}] rles must be an Rle or a list of them, got {type(rles).__name__}")
    sizes = [_size_of(item) for item in items]
    size_hw = sizes[0] if sizes else (0, 0)
    for size in sizes:
        if size != size_hw:
            raise ValueError(f"[{_OP}] size of all rles must be {list(size_hw)}, got {list(size)}")
    parts = [_runs_of(item["counts"]) for item in items]
    offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return RunLengths(size_hw, np.concatenate([np.empty(0, np.uint32), *parts]), offsets)


def _size_of(item: object) -> tuple[int, int]:
    if not isinstance(item, Mapping) or not {"size", "counts"} <= item.keys():
        raise TypeError(f'[{_OP}] an Rle must be a dict with "size" and "counts", got {item!r:.60}')
    return _size("size", item["size"])


def _size(name: str, size: object) -> tuple[int, int]:
    if not isinstance(size, (list, tuple)) or len(size) != 2:
        raise ValueError(f"[{_OP}] {name} must be [height, width], got {size!r:.60}")
    height, width = (
        _checks.integer(_OP, f"{name}[{i}]", value, 0, 2**31 - 1) for i, value in enumerate(size)
    )
    if height * width >= 2**31 - 1:
        raise ValueError(f"[{_OP}] {name} must be below 2^31 - 1 pixels, got {list(size)}")
    return height, width


def _runs_of(counts: object) -> _Runs:
    if isinstance(counts, str):
        counts = counts.encode()  # letters beyond ASCII become bytes that the text does not have
    if isinstance(counts, bytes):
        runs = np.empty(len(counts), np.uint32)
        return runs[: _C.rle_read_text(counts, runs)]
    if not isinstance(counts, (list, tuple)):
        raise TypeError(f"[{_OP}] counts must be bytes, str or a list of ints, got {type(counts).__name__}")
    return np.array([_checks.integer(_OP, "counts", run, 0, 2**32 - 1) for run in counts], np.uint32)
