"""Labels to other labels."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from . import _C, _checks
from ._arrays import Array

_OP = "relabel"
_Int = npt.NDArray[np.int32]


def relabel(labels: Array, table: Array, *, out: Array | None = None) -> _Int:
    """A label map with every label replaced by its entry in a table.

    Args:
        labels: [H, W] or [b, H, W] int32 in [0, m); a label map, or ids of `connected_components`.
        table: [m] int32, the new name of each label.
        out: as `labels`, contiguous, may be `labels` itself; written and returned. Where this raises for
            a label that the table does not hold, its content is undefined.
    Returns:
        The shape of `labels`, int32.
    Raises:
        TypeError: "[relabel] labels must be int32, got int64".
        ValueError: "[relabel] labels must be in [0, 2], got 3".
    out[y, x] = table[labels[y, x]]
    """
    labels = _checks.array(_OP, "labels", labels, np.int32, ("[H, W]", "[b, H, W]"))
    table = _checks.array(_OP, "table", table, np.int32, ("[m]",))
    if labels.size and not table.size:
        raise ValueError(f"[{_OP}] table must have at least one entry, got none")
    result = _checks.output(_OP, "out", out, np.int32, labels.shape)
    in_place = labels.flags.c_contiguous and labels.ctypes.data == result.ctypes.data
    _checks.disjoint(_OP, result, table, None if in_place else labels)
    if result.size:
        shape = (math.prod(labels.shape[:-2]), *labels.shape[-2:])
        _C.relabel(
            np.ascontiguousarray(labels).reshape(shape),
            np.ascontiguousarray(table),
            result.reshape(shape),
            _checks.CPU,
        )
    return _checks.returned(out, result)
