"""Maps with their borders moved to the edges of the frame."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _place
from ._arrays import Array

_OP = "guided_refine"
_LARGEST = 1024
_FRAMES, _MAPS = ("[H, W, 3]", "[b, H, W, 3]"), ("[H, W]", "[k, H, W]", "[b, k, H, W]")


def guided_refine(
    frame: Array,
    maps: Array,
    radius: int,
    eps: float,
    *,
    subsample: int = 1,
    count: int | None = None,
    out: Array | None = None,
    workspace: Array | None = None,
    stream: object = None,
) -> npt.NDArray[Any]:
    """Maps whose borders follow the edges of a frame, by the guided filter with a colour guide.

    Args:
        frame: [H, W, 3] or [b, H, W, 3] uint8; the order of channels does not matter.
        maps: soft maps, float32 and finite, [H, W] or [k, H, W], or with a batch of frames [b, H, W] or
            [b, k, H, W]; or label maps, int32, [H, W], or [b, H, W] with a batch of frames.
        radius: of the window, pixels, 1 to 1024.
        eps: above 0, of squared intensity where white is 1; edges of less variance are smoothed over.
        subsample: 1 for the guided filter; 2 to 1024 for the fast one, which sees one of so many rows and
            columns, and where about `subsample` squared times fewer windows are solved.
        count: of label maps on CUDA, where nothing is read back to find them: labels are in [0, count), and
            others are as count - 1. In host memory labels may be any, whatever it is.
        out: of the shape and type of `maps`, contiguous, not `maps` itself; written and returned.
        workspace: [bytes] uint8 on CUDA, for what the op keeps meanwhile; taken from the stream's pool where
            None. One that is too small is an error that says how much is needed.
        stream: where the arrays lie on CUDA: a stream of any library or its handle; None for the stream that
            the arrays name, else the legacy default stream.
    Returns:
        Soft maps of soft maps, of about their range. Label maps of label maps: at each pixel the label whose
        indicator is largest after the filter, the lowest one on a tie.
    Raises:
        TypeError: "[guided_refine] frame must be uint8, got float32".
        ValueError: "[guided_refine] maps must be [H, W] or [k, H, W] for one frame, got shape (3,)".
    q = mean(a) I + mean(b), with a and b of the ridge regression of p on I in each window: He, Sun, Tang,
    "Guided image filtering" (TPAMI 2013), equations 19 to 21. `subsample`: He, Sun, "Fast guided filter"
    (1505.00996), with the guide taken at the middle of each block, the map averaged over it, and a window
    that is no wider than before. Borders are mirrored with their pixel, as cv2.ximgproc.guidedFilter does.
    """
    frame = _checks.array(_OP, "frame", frame, np.uint8, _FRAMES)
    if frame.shape[-1] != 3:
        raise ValueError(f"[{_OP}] frame must be {' or '.join(_FRAMES)}, got shape {frame.shape}")
    maps = _checks.array(_OP, "maps", maps, (np.float32, np.int32), _MAPS)
    labels = maps.dtype == np.int32
    _check_maps(frame, maps, labels)
    radius = _checks.integer(_OP, "radius", radius, 1, _LARGEST)
    eps = _checks.inverse(_OP, "eps", eps)
    subsample = _checks.integer(_OP, "subsample", subsample, 1, _LARGEST)
    place = _place.place(_OP, stream, workspace, frame=frame, maps=maps)
    if labels and count is None and place.stream is not None:
        raise TypeError(f"[{_OP}] count must be an int where label maps lie on CUDA, got None")
    known = 0 if count is None else _checks.integer(_OP, "count", count, 1, 2**31 - 1)
    result = _checks.output(_OP, "out", out, np.int32 if labels else np.float32, maps.shape, place)
    _checks.disjoint(_OP, result, maps, frame)
    batched = frame.ndim - 3
    size_hw, items = maps.shape[-2:], math.prod(frame.shape[:batched])
    flat = (items, *size_hw) if labels else (items, math.prod(maps.shape[batched:-2]), *size_hw)
    params: tuple[Any, ...] = (radius, eps, subsample)
    native: Any = _C.guided_refine
    if labels:
        native, params = _C.guided_refine_labels, (known, *params)
    native(
        _checks.native(_OP, "frame", frame, items, *size_hw, 3),
        _checks.native(_OP, "maps", maps, *flat),
        *params,
        _checks.native(_OP, "out", result, *flat),
        place.context,
    )
    return _checks.returned(out, result)


def _check_maps(frame: npt.NDArray[Any], maps: npt.NDArray[Any], labels: bool) -> None:
    batched = frame.ndim - 3
    b, frames = ("b, ", "a batch of frames") if batched else ("", "one frame")
    if labels and maps.ndim - batched != 2:
        raise ValueError(f"[{_OP}] label maps must be [{b}H, W] for {frames}, got shape {maps.shape}")
    if maps.ndim - batched not in (2, 3):
        raise ValueError(
            f"[{_OP}] maps must be [{b}H, W] or [{b}k, H, W] for {frames}, got shape {maps.shape}"
        )
    _checks.shape(_OP, "maps", maps, (*frame.shape[:batched], *maps.shape[batched:-2], *frame.shape[-3:-1]))
