"""Patches to the prototypes that they resemble most."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _place
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
        workspace: [bytes] uint8 on CUDA, for what the op keeps meanwhile; taken from the stream's pool where
            None. One that is too small is an error that says how much is needed.
        stream: where the arrays lie on CUDA: a stream of any library or its handle; None for the stream that
            the arrays name, else the legacy default stream.
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
    place = _place.place(_OP, stream, workspace, features=rows, prototypes=targets)
    absent = ("assignment",) if temperature is None else ()
    given = _checks.record(_OP, out, PrototypeAssignment, absent)
    labels = _checks.output(_OP, "out.labels", given.get("labels"), np.int32, (*batch, n), place)
    similarity = _checks.output(
        _OP, "out.similarity", given.get("similarity"), np.float32, (*batch, n), place
    )
    assignment: _Float | None = None
    if temperature is not None:
        temperature = _checks.inverse(_OP, "temperature", temperature)
        room = given.get("assignment")
        assignment = _checks.output(_OP, "out.assignment", room, np.float32, (*batch, n, c), place)
        _checks.disjoint(_OP, assignment, rows, targets)
    for result in (labels, similarity):
        _checks.disjoint(_OP, result, rows, targets)
    items = math.prod(batch)
    _C.assign(
        _checks.native(_OP, "features", rows, items, n, d),
        _checks.native(_OP, "prototypes", targets, c, d),
        0.0 if temperature is None else temperature,
        _checks.native(_OP, "out.labels", labels, items, n),
        _checks.native(_OP, "out.similarity", similarity, items, n),
        _checks.native(_OP, "out.assignment", assignment, items, n, c),
        place.context,
    )
    return PrototypeAssignment(labels, similarity, assignment) if out is None else out
