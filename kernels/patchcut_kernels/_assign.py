"""Patches to the prototypes that they resemble most."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import _C, _checks
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
) -> PrototypeAssignment:
    """The nearest prototype of each patch, and with a temperature its share of every prototype.

    Args:
        features: [n, d] or [b, n, d] float32 or float16, finite; a zero row has cosine 0 to every prototype.
        prototypes: [c, d] float32, finite, c at least 1; of every item the same.
        temperature: above 0: the smaller, the closer `assignment` is to the one-hot labels.
        out: contiguous arrays to write, its `assignment` None where there is no temperature; returned.
    Returns:
        PrototypeAssignment.
    Raises:
        TypeError: "[assign] features must be float32 or float16, got float64".
        ValueError: "[assign] prototypes must have 384 columns, got shape (8, 64)".
    S_ic = <f_i, p_c> / |f_i||p_c|; assignment = softmax_c(S / temperature).
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
    absent = ("assignment",) if temperature is None else ()
    given = _checks.record(_OP, out, PrototypeAssignment, absent)
    labels = _checks.output(_OP, "out.labels", given.get("labels"), np.int32, (*batch, n))
    similarity = _checks.output(_OP, "out.similarity", given.get("similarity"), np.float32, (*batch, n))
    assignment: _Float | None = None
    if temperature is not None:
        temperature = _checks.inverse(_OP, "temperature", temperature)
        room = given.get("assignment")
        assignment = _checks.output(_OP, "out.assignment", room, np.float32, (*batch, n, c))
        _checks.disjoint(_OP, assignment, rows, targets)
    for result in (labels, similarity):
        _checks.disjoint(_OP, result, rows, targets)
    items = math.prod(batch)
    _C.assign(
        np.ascontiguousarray(rows).reshape(items, n, d),
        np.ascontiguousarray(targets),
        0.0 if temperature is None else temperature,
        labels.reshape(items, n),
        similarity.reshape(items, n),
        None if assignment is None else assignment.reshape(items, n, c),
        _checks.CPU,
    )
    return PrototypeAssignment(labels, similarity, assignment) if out is None else out
