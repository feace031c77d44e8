"""Maps with their borders moved to the edges of the frame."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _launch
from ._arrays import Array

_OP = "guided_refine"
_LARGEST = 65536
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
        maps: soft maps, float32 and at most 1e12 in magnitude, [H, W] or [k, H, W], or with a batch of frames
            [b, H, W] or [b, k, H, W]; or label maps, int32, [H, W], or [b, H, W] with a batch of frames.
        radius: radius of the window in pixels, 1 to 65,536.
        eps: at least 1e-9, a squared intensity where white is 1; edges of less variance are smoothed over.
        subsample: 1 for the guided filter; 2 to 65,536 for the fast one, which reads every `subsample`-th row
            and column, and solves about `subsample` squared times fewer windows.
        count: number of labels, needed for label maps on CUDA, where nothing is read back to find them:
            labels are in [0, count), of 65,536 at most, and others count as count - 1. In host memory labels
            may be any.
        out: as `maps`, contiguous, not `maps` itself; written and returned.
        workspace: memory to compute in on CUDA, see `patchcut_kernels.cuda`.
        stream: the CUDA stream to run on, see `patchcut_kernels.cuda`.
    Returns:
        For soft maps, soft maps in about their range. For label maps, label maps: at each pixel the label
        whose indicator is largest after the filter, the lowest one on a tie.
    Raises:
        TypeError: "[guided_refine] frame must be uint8, got float32".
        ValueError: "[guided_refine] maps must be [H, W] or [k, H, W] for one frame, got shape (3,)".
    q = mean(a) I + mean(b), with a and b of the ridge regression of p on I in each window: He, Sun, Tang,
    "Guided image filtering" (TPAMI 2013), equations 19 to 21. `subsample`: He, Sun, "Fast guided filter"
    (1505.00996), with the guide taken at the middle of each block, the map averaged over it, and a window
    that is no wider than before. Borders are mirrored with their pixel, as cv2.ximgproc.guidedFilter does.
    Examples:
        >>> frame = np.zeros((3, 8, 3), np.uint8)
        >>> frame[:, 4:] = 255
        >>> maps = np.int32([[0, 0, 0, 0, 0, 1, 1, 1]] * 3)
        >>> pk.guided_refine(frame, maps, 2, 1e-3).tolist()[1]
        [0, 0, 0, 0, 1, 1, 1, 1]
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
    launch = _launch.prepare(_OP, stream, workspace, frame=frame, maps=maps)
    if labels and count is None and launch.stream is not None:
        raise TypeError(f"[{_OP}] count must be an int where label maps lie on CUDA, got None")
    known = 0 if count is None else _checks.integer(_OP, "count", count, 1, 2**31 - 1)
    result = _checks.output(_OP, "out", out, np.int32 if labels else np.float32, maps.shape, launch)
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
        launch.context,
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
