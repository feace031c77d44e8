"""Columns of concepts: another one, one less, and what is around them."""

from __future__ import annotations

import numpy as np
from patchcut.concepts.columns import joined, without
from patchcut.concepts.learning import Learnt
from patchcut.heads.prototypes import Prototypes

AXES = np.eye(8, dtype=np.float32)
MUG = Prototypes(AXES[:1], np.zeros(8, np.float32), np.int32([1]), np.float32([0, 0.5]))


def test_what_is_around_has_the_limit_of_concepts() -> None:
    made = joined(MUG, Learnt(AXES[1:3], 0.6, AXES[3:5]), 2)
    assert made.owners.tolist() == [1, 2, 2, 0, 0] and made.thresholds is not None
    np.testing.assert_allclose(made.thresholds, [0.6, 0.5, 0.6])
    np.testing.assert_array_equal(made.vectors, AXES[:5])


def test_what_looks_like_a_concept_is_no_context() -> None:
    """Neither what was around another one before, nor what is around it now."""
    with_context = joined(MUG, Learnt(AXES[1:2], 0.6, AXES[[0, 3]]), 2)
    assert with_context.owners.tolist() == [1, 2, 0]  # the mug is around it, and is a concept
    shown = joined(with_context, Learnt(AXES[3:4], 0.4, AXES[:0]), 3)
    assert shown.owners.tolist() == [1, 2, 3]


def test_the_context_of_a_bundle_stays_what_it_is() -> None:
    bundle = Prototypes(AXES[:2], np.zeros(8, np.float32), np.int32([1, 0]), np.float32([0, 0.5]))
    made = joined(bundle, Learnt(AXES[2:3], 0.6, AXES[4:6]), 2)
    assert made.owners.tolist() == [1, 0, 2] and made.thresholds is not None
    np.testing.assert_allclose(made.thresholds, [0, 0.5, 0.6])


def test_one_column_less() -> None:
    three = joined(MUG, Learnt(AXES[1:3], 0.6, AXES[3:4]), 2)
    left = without(three, 1)
    assert left.owners.tolist() == [1, 1, 0] and left.owners.dtype == np.int32
    assert left.thresholds is not None
    np.testing.assert_allclose(left.thresholds, [0.6, 0.6])
    np.testing.assert_array_equal(left.vectors, AXES[1:4])


def test_presence_goes_with_its_column() -> None:
    assert joined(MUG, Learnt(AXES[1:2], 0.6, AXES[:0]), 2).presence is None
    asked = joined(MUG, Learnt(AXES[1:2], 0.6, AXES[:0], presence=0.7), 2)
    assert asked.presence is not None
    np.testing.assert_allclose(asked.presence, [-1, -1, 0.7])
    more = joined(asked, Learnt(AXES[2:3], 0.6, AXES[:0], presence=0.5), 3)
    left = without(more, 1)
    assert left.presence is not None
    np.testing.assert_allclose(left.presence, [-1, 0.7, 0.5])
    assert without(MUG, 1).presence is None
