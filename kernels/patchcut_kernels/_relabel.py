"""Labels to other labels."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _launch
from ._arrays import Array

_OP = "relabel"
_Int = npt.NDArray[np.int32]


def relabel(labels: Array, table: Array, *, out: Array | None = None, stream: object = None) -> _Int:
    """A label map with every label replaced by its entry in a table.

    Args:
        labels: [H, W] or [b, H, W] int32 in [0, m); a label map, or ids of `connected_components`.
        table: [m] int32, the new name of each label.
        out: as `labels`, contiguous, may be `labels` itself; written and returned. Where this raises for
            a label that the table does not hold, its content is undefined.
        stream: the CUDA stream to run on, see `patchcut_kernels.cuda`.
    Returns:
        The shape of `labels`, int32.
    Raises:
        TypeError: "[relabel] labels must be int32, got int64".
        ValueError: "[relabel] labels must be in [0, 2], got 3".
    out[y, x] = table[labels[y, x]]. On CUDA, where values are not checked, a label that the table does not
    hold becomes 0.
    Examples:
        >>> labels, table = np.int32([[0, 1, 2]]), np.int32([0, 5, 5])
        >>> pk.relabel(labels, table).tolist()
        [[0, 5, 5]]
    """
    labels = _checks.array(_OP, "labels", labels, np.int32, ("[H, W]", "[b, H, W]"))
    table = _checks.array(_OP, "table", table, np.int32, ("[m]",))
    if labels.size and not table.size:
        raise ValueError(f"[{_OP}] table must have at least one entry, got none")
    launch = _launch.prepare(_OP, stream, None, labels=labels, table=table)
    result = _checks.output(_OP, "out", out, np.int32, labels.shape, launch)
    _checks.disjoint(_OP, result, table, None if _checks.same_memory(labels, result) else labels)
    if result.size:
        shape = (math.prod(labels.shape[:-2]), *labels.shape[-2:])
        _C.relabel(
            _checks.native(_OP, "labels", labels, *shape),
            _checks.native(_OP, "table", table, table.size),
            _checks.native(_OP, "out", result, *shape),
            launch.context,
        )
    return _checks.returned(out, result)
