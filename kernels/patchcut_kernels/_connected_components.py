"""Label maps to components."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _launch
from ._arrays import Array

_OP = "connected_components"
_Int = npt.NDArray[np.int32]


def connected_components(
    label_map: Array,
    *,
    connectivity: Literal[4, 8] = 8,
    min_area: int = 1,
    out: Array | None = None,
    labels_out: Array | None = None,
    counts_out: Array | None = None,
    workspace: Array | None = None,
    stream: object = None,
) -> tuple[_Int, Any]:
    """Connected components of a label map, and how many there are.

    Args:
        label_map: [H, W] or [b, H, W] int32, 0 = background.
        connectivity: 8 where corners touch, 4 where only edges do.
        min_area: components of fewer pixels become background and are not counted.
        out: as `label_map`, contiguous, may be `label_map` itself; written and returned.
        labels_out: as `label_map`, contiguous, may be `label_map` itself, not `out`; receives the label map
            with 0 where the id is 0, in the same pass.
        counts_out: [] or [b] int32, contiguous; written and returned as the count.
        workspace: memory to compute in on CUDA, see `patchcut_kernels.cuda`.
        stream: the CUDA stream to run on, see `patchcut_kernels.cuda`.
    Returns:
        Ids of the shape of `label_map`, int32, 1..count in scan order of each component's first pixel; and
        the count, an int, or [b] int32 of a batch; on CUDA [] or [b] int32 on the device, for which nothing
        waits but int().
    Raises:
        TypeError: "[connected_components] label_map must be int32, got int64".
        ValueError: "[connected_components] label_map must be [H, W] or [b, H, W], got shape (3,)".
    Two pixels are in one component if a path of touching pixels of the same non-zero label joins them.
    Union-find over runs, the first run as root: He, Chao, Suzuki, "A run-based two-scan labeling
    algorithm" (2008).
    Examples:
        >>> ids, count = pk.connected_components(np.int32([[1, 0, 1], [1, 0, 2]]))
        >>> ids.tolist(), count
        ([[1, 0, 2], [1, 0, 3]], 3)
    """
    label_map = _checks.array(_OP, "label_map", label_map, np.int32, ("[H, W]", "[b, H, W]"))
    *batch, height, width = label_map.shape
    if connectivity not in (4, 8):
        raise ValueError(f"[{_OP}] connectivity must be 4 or 8, got {connectivity}")
    min_area = _checks.integer(_OP, "min_area", min_area, 1)
    launch = _launch.prepare(_OP, stream, workspace, label_map=label_map)
    ids = _checks.output(_OP, "out", out, np.int32, label_map.shape, launch)
    kept: _Int | None = None
    if labels_out is not None:
        kept = _checks.output(_OP, "labels_out", labels_out, np.int32, label_map.shape, launch)
        if _checks.overlap(ids, kept):
            raise ValueError(f"[{_OP}] labels_out must not overlap the ids, got memory that both use")
    counts = _checks.output(_OP, "counts_out", counts_out, np.int32, tuple(batch), launch)
    _checks.disjoint(_OP, counts, ids, kept, label_map)
    flat = (math.prod(batch), height, width)
    if counts.size:
        _C.connected_components(
            _checks.native(_OP, "label_map", label_map, *flat),
            connectivity,
            min_area,
            _checks.native(_OP, "out", ids, *flat),
            _checks.native(_OP, "labels_out", kept, *flat),
            _checks.native(_OP, "counts_out", counts, flat[0]),
            launch.context,
        )
    on_host = counts_out is None and launch.stream is None
    count = int(counts) if on_host and not batch else _checks.returned(counts_out, counts)
    return _checks.returned(out, ids), count
