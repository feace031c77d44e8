"""Earlier frames to this one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _launch
from ._arrays import Array

_OP = "propagate"
_MOST_PATCHES = 2**30  # of a memory
_MOST_KEPT = 64
_Array = npt.NDArray[np.float32]


def propagate(
    features: Array,
    memory: Array,
    values: Array,
    grid_hw: tuple[int, int],
    *,
    frames: int | None = None,
    radius: int = 12,
    topk: int = 5,
    temperature: float = 0.1,
    out: Array | None = None,
    workspace: Array | None = None,
    stream: object = None,
) -> _Array:
    """Values of earlier frames, such as soft masks, carried to the patches of this one.

    Each patch looks at the patches of all frames of the memory within a square window around its own place,
    takes the few that resemble it most, and blends their values. The rows are divided by their norms here;
    the matrix of all pairs is never stored.

    Args:
        features: [n, d] or [b, n, d] float32 or float16, finite, of this frame; a zero row has cosine 0 to
            every row.
        memory: [m, n, d] or [b, m, n, d] float32 or float16, features of earlier frames, one a slot.
        values: [m, n, c] or [b, m, n, c] float32, what their patches have.
        grid_hw: rows and columns of the patch grid, h w = n.
        frames: how many slots hold a frame, the first ones, 1 to m; None for all. What lies in the others is
            not looked at. The order of frames matters to ties alone, so a ring buffer is used as it is.
        radius: of the window, at least 0: patches at most so many rows and so many columns away; from
            max(h, w) - 1 on, the whole frame.
        topk: patches that a patch takes values from, 1 to 64, of all frames together; the first in memory on
            a tie. All of its window where that has fewer.
        temperature: above 0: the smaller, the more the nearest patch decides.
        out: [n, c] or [b, n, c] float32, contiguous; written and returned.
        workspace: memory to compute in on CUDA, see `patchcut_kernels.cuda`.
        stream: the CUDA stream to run on, see `patchcut_kernels.cuda`.
    Returns:
        [n, c] or [b, n, c] float32, convex combinations of rows of `values`: rows on the simplex stay there.
    Raises:
        TypeError: "[propagate] features must be float32 or float16, got float64".
        ValueError: "[propagate] grid_hw must hold 6 patches, got (2, 2)".
        ValueError: "[propagate] memory must have shape (7, 6, 384), got (7, 5, 384)".
        ValueError: "[propagate] memory must be finite, got NaN or infinity"; on the CPU.
    S = cosines of a patch and those of its window; out = softmax of the topk largest S / temperature, times
    values. DINO (2104.14294), section 4.2.2, with its defaults and its window (`restrict_neighborhood` in
    `eval_video_segmentation.py`); after Jabri et al. (2006.14613), appendix.
    Examples:
        >>> before = np.float32([[1, 0], [0, 1], [0, 2], [0, 3]])  # an object moves by one patch
        >>> mask = np.float32([[1], [0], [0], [0]])
        >>> now = before[[1, 0, 2, 3]]
        >>> pk.propagate(now, before[None], mask[None], (1, 4), radius=1, topk=1).ravel().tolist()
        [0.0, 1.0, 0.0, 0.0]
    """
    features = _checks.floats(_OP, "features", features, ("[n, d]", "[b, n, d]"))
    *batch, n, d = features.shape
    if d == 0:
        raise ValueError(f"[{_OP}] features must have at least one column, got shape {features.shape}")
    kept = _checks.floats(_OP, "memory", memory, ("[m, n, d]", "[b, m, n, d]"))
    slots = kept.shape[-3]
    _checks.shape(_OP, "memory", kept, (*batch, slots, n, d))
    given = _checks.array(_OP, "values", values, np.float32, ("[m, n, c]", "[b, m, n, c]"))
    c = given.shape[-1]
    _checks.shape(_OP, "values", given, (*batch, slots, n, c))
    height, width = _checks.pair_hw(_OP, "grid_hw", grid_hw)
    if height * width != n:
        raise ValueError(f"[{_OP}] grid_hw must hold {n} patches, got {(height, width)}")
    if slots == 0:
        raise ValueError(f"[{_OP}] memory must have at least one slot, got shape {kept.shape}")
    if slots * n > _MOST_PATCHES:
        raise ValueError(f"[{_OP}] memory must hold at most 2^30 patches, got {slots * n}")
    held = slots if frames is None else _checks.integer(_OP, "frames", frames, 1, slots)
    radius = _checks.integer(_OP, "radius", radius, 0)
    topk = _checks.integer(_OP, "topk", topk, 1, _MOST_KEPT)
    temperature = _checks.inverse(_OP, "temperature", temperature)
    launch = _launch.prepare(_OP, stream, workspace, features=features, memory=kept, values=given)
    result = _checks.output(_OP, "out", out, np.float32, (*batch, n, c), launch)
    _checks.disjoint(_OP, result, features, kept, given)
    if result.size:
        _C.propagate(
            _checks.native(_OP, "features", features, -1, n, d),
            _checks.native(_OP, "memory", kept, -1, slots, n, d),
            _checks.native(_OP, "values", given, -1, slots, n, c),
            held,
            height,
            width,
            radius,
            topk,
            temperature,
            _checks.native(_OP, "out", result, -1, n, c),
            launch.context,
        )
    return _checks.returned(out, result)
