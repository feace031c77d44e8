"""Columns of a head of concepts: another one, one less, and their colours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut.bundle import HeadSpec
from patchcut.concepts.learning import Float32, Learnt, nearest, unfolded
from patchcut.heads.naming import ANYWHERE
from patchcut.heads.prototypes import Int32, Prototypes

MAX_CONTEXT = 24  # directions of what is around concepts


def joined(old: Prototypes, learnt: Learnt, column: int) -> Prototypes:
    """The prototypes with another column; what looks like it is context no more."""
    before = np.zeros(column, np.float32) if old.thresholds is None else old.thresholds
    thresholds = np.append(before, np.float32(learnt.threshold))
    context = old.owners == 0
    like = nearest(unfolded(old.vectors, old.fold), learnt.vectors)
    kept = ~context | (like <= learnt.threshold)
    vectors = [old.vectors[kept], learnt.vectors]
    owners = [old.owners[kept], np.full(len(learnt.vectors), column, np.int32)]
    room = max(0, MAX_CONTEXT - int((owners[0] == 0).sum()))
    if room and (thresholds[0] > 0 or not context.any()):  # else the bundle's own context is without a limit
        unlike = learnt.context[
            _unlike(unfolded(learnt.context, old.fold), vectors[0], owners[0], thresholds)
        ]
        unlike = unlike[:room]
        vectors.append(unlike)
        owners.append(np.zeros(len(unlike), np.int32))
        if not context.any():
            thresholds[0] = max(thresholds[1:])
    joined, owned = np.concatenate(vectors), np.concatenate(owners).astype(np.int32)
    asked = np.full(column, ANYWHERE, np.float32) if old.presence is None else old.presence
    presence = np.append(asked, np.float32(learnt.presence))
    some = presence if (presence > ANYWHERE).any() else None
    return replace(old, vectors=joined, owners=owned, thresholds=thresholds, presence=some)


def without(old: Prototypes, column: int) -> Prototypes:
    """The prototypes with one column less; those after it move up."""
    kept = old.owners != column
    owners = old.owners[kept]
    thresholds = None if old.thresholds is None else np.delete(old.thresholds, column)
    presence = None if old.presence is None else np.delete(old.presence, column)
    moved = (owners - (owners > column)).astype(np.int32)
    return replace(old, vectors=old.vectors[kept], owners=moved, thresholds=thresholds, presence=presence)


def _unlike(context: Float32, vectors: Float32, owners: Int32, thresholds: Float32) -> npt.NDArray[np.bool_]:
    """[c] bool, which of the directions [c, d] are like no concept."""
    unlike = np.ones(len(context), bool)
    for column in range(1, len(thresholds)):
        of_it = vectors[owners == column]
        if len(of_it):
            unlike &= nearest(context, of_it) <= thresholds[column]
    return unlike


def changed(spec: HeadSpec, **concepts: Any) -> HeadSpec:
    """A head with other concepts; what was measured of the old ones is gone."""
    assert spec.concepts is not None
    labels = concepts.pop("labels")
    fields = {**spec.model_dump(), "labels": labels, "report": ()}
    fields["concepts"] = {**spec.concepts.model_dump(), **concepts}
    return HeadSpec.model_validate(fields)


def colors_of(spec: HeadSpec) -> dict[str, int]:
    """The number of the colour of each concept of a head, by its name."""
    assert spec.concepts is not None
    columns = {label: column for column, label in enumerate(spec.labels) if column}
    return {label: spec.concepts.colors.get(label, column) for label, column in columns.items()}


def free_color(colors: dict[str, int]) -> int:
    """The smallest number that no concept has."""
    taken = set(colors.values())
    return next(number for number in range(1, len(taken) + 2) if number not in taken)
