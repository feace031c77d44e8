"""Patches to the prototypes that they resemble most."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _launch
from ._arrays import Array

_OP = "assign"
_Float = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PrototypeAssignment:
    """Where each of n feature rows belongs among c prototypes; a batch is one more dimension in front.

    Args:
        labels: [n] int32, the prototype of the largest cosine, the first on a tie.
        similarity: [n] float32 in [-1, 1], that cosine.
        assignment: [n, c] float32, rows on the simplex; None where no temperature was given.
    """

    labels: npt.NDArray[np.int32]
    similarity: _Float
    assignment: _Float | None


def assign(
    features: Array,
    prototypes: Array,
    *,
    temperature: float | None = None,
    out: PrototypeAssignment | None = None,
    workspace: Array | None = None,
    stream: object = None,
) -> PrototypeAssignment:
    """The nearest prototype of each patch, and with a temperature its share of every prototype.

    Args:
        features: [n, d] or [b, n, d] float32 or float16, finite; a zero row has cosine 0 to every prototype.
        prototypes: [c, d] float32, finite, c at least 1; of every item the same.
        temperature: above 0: the smaller, the closer `assignment` is to the one-hot labels.
        out: contiguous arrays to write, its `assignment` None where there is no temperature; returned.
        workspace: memory to compute in on CUDA, see `patchcut_kernels.cuda`.
        stream: the CUDA stream to run on, see `patchcut_kernels.cuda`.
    Returns:
        PrototypeAssignment.
    Raises:
        TypeError: "[assign] features must be float32 or float16, got float64".
        ValueError: "[assign] prototypes must have 384 columns, got shape (8, 64)".
    S_ic = <f_i, p_c> / |f_i||p_c|; assignment = softmax_c(S / temperature).
    Examples:
        >>> prototypes = np.float32([[1, 0], [0, 1]])
        >>> pk.assign(np.float32([[3, 1], [1, 2]]), prototypes).labels.tolist()
        [0, 1]
    """
    rows = _checks.floats(_OP, "features", features, ("[n, d]", "[b, n, d]"))
    *batch, n, d = rows.shape
    if d == 0:
        raise ValueError(f"[{_OP}] features must have at least one column, got shape {rows.shape}")
    targets = _checks.array(_OP, "prototypes", prototypes, np.float32, ("[c, d]",))
    c = targets.shape[0]
    if targets.shape[1] != d:
        raise ValueError(f"[{_OP}] prototypes must have {d} columns, got shape {targets.shape}")
    if c == 0:
        raise ValueError(f"[{_OP}] prototypes must have at least one row, got shape {targets.shape}")
    launch = _launch.prepare(_OP, stream, workspace, features=rows, prototypes=targets)
    specs: _checks.Specs = {
        "labels": (np.int32, (*batch, n)),
        "similarity": (np.float32, (*batch, n)),
    }
    if temperature is not None:
        temperature = _checks.inverse(_OP, "temperature", temperature)
        specs["assignment"] = (np.float32, (*batch, n, c))
    result = _checks.outputs(_OP, out, PrototypeAssignment, launch, specs, rows, targets)
    items = math.prod(batch)
    _C.assign(
        _checks.native(_OP, "features", rows, items, n, d),
        _checks.native(_OP, "prototypes", targets, c, d),
        0.0 if temperature is None else temperature,
        _checks.native(_OP, "out.labels", result.labels, items, n),
        _checks.native(_OP, "out.similarity", result.similarity, items, n),
        _checks.native(_OP, "out.assignment", result.assignment, items, n, c),
        launch.context,
    )
    return result if out is None else out
