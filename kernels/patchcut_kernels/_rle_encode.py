"""Masks to run lengths."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from . import _C, _arrays, _checks, _launch
from ._arrays import Array
from ._device_array import DeviceArray
from ._launch import HOST, Launch

_OP = "rle_encode"
_Runs = npt.NDArray[np.uint32]
_Offsets = npt.NDArray[np.int64]
_Encode = Callable[[_Runs, _Offsets], None]


class Rle(TypedDict):
    """One mask as COCO stores it; pycocotools takes it as it is.

    Args:
        size: [H, W].
        counts: run lengths down the columns, from left to right, zeros first: COCO's text, bytes or str, or a
            list of ints.
    """

    size: list[int]
    counts: bytes | str | list[int]


@dataclass(frozen=True, eq=False)
class RunLengths:
    """Run lengths of m masks as arrays, which may lie on CUDA.

    Args:
        size_hw: (H, W) of every mask.
        runs: [capacity] uint32, as `Rle.counts`; those of mask i are runs[offsets[i]:offsets[i + 1]].
        offsets: [m + 1] int64, from 0. Where the last is above the capacity, `runs` holds nothing of use.
    """

    size_hw: tuple[int, int]
    runs: _Runs
    offsets: _Offsets

    def rles(self, *, compressed: bool = True, text: bool = False) -> list[Rle]:
        """An Rle of each mask, in host memory; waits for arrays on CUDA. The arguments are `rle_encode`'s.

        Raises:
            TypeError: "[RunLengths] runs must be uint32, got float64".
            ValueError: "[RunLengths] runs must have room for 640 runs, got 400; encode again into more".
        """
        runs = _on_host(_checks.array("RunLengths", "runs", self.runs, np.uint32, ("[capacity]",)))
        offsets = _on_host(_checks.array("RunLengths", "offsets", self.offsets, np.int64, ("[m + 1]",)))
        if offsets.size == 0 or offsets[0] != 0 or np.any(np.diff(offsets) < 0):
            raise ValueError("[RunLengths] offsets must begin with 0 and never fall")
        if offsets[-1] > len(runs):
            raise ValueError(
                f"[RunLengths] runs must have room for {offsets[-1]} runs, got {len(runs)}; "
                "encode again into more"
            )
        return _rles(self.size_hw, runs, offsets, compressed, text)


def rle_encode(
    masks: Array,
    count: int | None = None,
    *,
    compressed: bool = True,
    text: bool = False,
    out: RunLengths | None = None,
    workspace: Array | None = None,
    stream: object = None,
) -> Any:
    """Masks as COCO's run lengths, byte for byte those of pycocotools.

    Args:
        masks: [H, W] or [m, H, W] bool, in host memory also uint8, where all but 0 is of the mask; or, with
            `count`, ids as `connected_components` returns them, [H, W] or [b, H, W] int32 in [0, count],
            which are read once for all masks.
        count: number of ids, at most H * W or 65,536, whichever is more; row i belongs to id i + 1.
        compressed: False for `counts` as a list of ints instead of COCO's text.
        text: True for that text as str, which JSON takes, instead of bytes.
        out: RunLengths of the masks' size, with contiguous arrays of any capacity; written and returned.
        workspace: memory to compute in on CUDA, see `patchcut_kernels.cuda`.
        stream: the CUDA stream to run on, see `patchcut_kernels.cuda`.
    Returns:
        An Rle of one mask [H, W], a list of them otherwise; of a batch of ids a list of lists. With `out`,
        and on CUDA, RunLengths of all masks in turn, whose `rles()` copies them to the host; new ones have
        room for 4 W + 64 runs of each mask, where a convex one has 2 W + 1 at most.
    Raises:
        TypeError: "[rle_encode] masks must be bool or uint8, or int32 with count, got int64".
        ValueError: "[rle_encode] masks must be [H, W] or [m, H, W], got shape (3,)".
        ValueError: "[rle_encode] ids must be in [0, 2], got 3".
    In the text each run from the fourth on is stored less the one two before, in groups of five bits, lowest
    first.
    On CUDA, where values are not checked, pixels of other ids are left out.
    Examples:
        >>> mask = np.array([[False, True], [False, True]])
        >>> pk.rle_encode(mask)
        {'size': [2, 2], 'counts': b'22'}
        >>> pk.rle_encode(mask.astype(np.uint8), text=True)
        {'size': [2, 2], 'counts': '22'}
    """
    view = _masks(masks, by_id=count is not None)
    if count is not None:
        count = _checks.id_count(_OP, count, math.prod(view.shape[-2:]))
    launch = _launch.prepare(_OP, stream, workspace, masks=view)
    flat = (math.prod(view.shape[:-2]), *view.shape[-2:])
    data = _checks.native(_OP, "masks", view, *flat)
    items = flat[0] * (1 if count is None else count)

    def encode(runs: _Runs, offsets: _Offsets) -> None:
        native_runs = _checks.native(_OP, "out.runs", runs, -1)
        native_offsets = _checks.native(_OP, "out.offsets", offsets, items + 1)
        if count is None:
            _C.rle_encode(data, native_runs, native_offsets, launch.context)
        else:
            _C.rle_encode_ids(data, count, native_runs, native_offsets, launch.context)

    if out is not None or launch is not HOST:
        lengths = _outputs(out, flat, items, launch)
        if out is not None:
            _checks.disjoint(_OP, lengths.runs, view)
            _checks.disjoint(_OP, lengths.offsets, view, lengths.runs)
        encode(lengths.runs, lengths.offsets)
        return lengths if out is None else out
    rles = _rles(flat[1:], *_find_runs(encode, flat, items), compressed, text)
    if count is None:
        return rles if view.ndim == 3 else rles[0]
    return rles if view.ndim == 2 else [rles[i * count : (i + 1) * count] for i in range(flat[0])]


def _masks(masks: Array, *, by_id: bool) -> npt.NDArray[Any]:
    view: Any = _arrays.view(_OP, "masks", masks)
    if view.ndim not in (2, 3):
        raise ValueError(f"[{_OP}] masks must be [H, W] or [m, H, W], got shape {view.shape}")
    if view.dtype == np.uint8 and isinstance(view, np.ndarray) and not by_id:
        view = view.view(np.bool_)  # pycocotools' masks; the op takes any byte but 0 for True
    if view.dtype != (np.int32 if by_id else np.bool_):
        what = "bool or uint8" if isinstance(view, np.ndarray) else "bool on CUDA"
        raise TypeError(f"[{_OP}] masks must be {what}, or int32 with count, got {view.dtype}")
    if math.prod(view.shape[-2:]) >= 2**31 - 1:
        raise ValueError(f"[{_OP}] masks must be below 2^31 - 1 pixels, got shape {view.shape}")
    return view  # type: ignore[no-any-return]


def _outputs(out: RunLengths | None, flat: tuple[int, int, int], items: int, launch: Launch) -> RunLengths:
    """The arrays to write: the caller's where given."""
    size_hw = flat[1:]
    given = _checks.record(_OP, out, RunLengths)
    if given and tuple(given["size_hw"]) != size_hw:
        raise ValueError(f"[{_OP}] out.size_hw must be {size_hw}, got {given['size_hw']}")
    capacity = _arrays.view(_OP, "out.runs", given["runs"]).size if given else _guess(flat, items)
    return RunLengths(
        size_hw,
        _checks.output(_OP, "out.runs", given.get("runs"), np.uint32, (capacity,), launch),
        _checks.output(_OP, "out.offsets", given.get("offsets"), np.int64, (items + 1,), launch),
    )


def _guess(flat: tuple[int, int, int], items: int) -> int:
    """Room for runs: a convex region has two in each column that it meets."""
    _, height, width = flat
    return items * min(height * width + 1, 4 * width + 64)


def _find_runs(encode: _Encode, flat: tuple[int, int, int], items: int) -> tuple[_Runs, _Offsets]:
    """Runs and where those of each item begin; a second call where the first guess of their number fails."""
    offsets = np.empty(items + 1, np.int64)
    runs = np.empty(_guess(flat, items), np.uint32)
    encode(runs, offsets)
    if offsets[-1] > len(runs):
        runs = np.empty(offsets[-1], np.uint32)
        encode(runs, offsets)
    return runs, offsets


def _on_host(view: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return view.numpy() if isinstance(view, DeviceArray) else view


def _rles(
    size_hw: tuple[int, int], runs: _Runs, offsets: _Offsets, compressed: bool, text: bool
) -> list[Rle]:
    bounds = offsets.tolist()
    items = (runs[begin:end] for begin, end in pairwise(bounds))
    if not compressed:
        return [{"size": list(size_hw), "counts": item.tolist()} for item in items]
    texts = map(_C.rle_write_text, items)
    return [{"size": list(size_hw), "counts": one.decode("ascii") if text else one} for one in texts]
