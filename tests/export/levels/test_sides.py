from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from patchcut import OptionError
from patchcut.heads.prototypes import Prototypes
from patchcut_export.levels.concepts import KnownConcepts, called
from patchcut_export.levels.sides import Cues, find_cues, overruled
from tests.doctests import find_examples, run_example


def planted(images: int = 5) -> np.ndarray:
    """[N, 100] int32: cluster 1 is a square in the middle, 2 a corner, 0 all around."""
    labels = np.zeros((images, 10, 10), np.int32)
    labels[:, 3:7, 3:7] = 1
    labels[:, 9, :4] = 2
    return labels.reshape(images, 100)


def test_what_lies_in_the_middle_is_foreground() -> None:
    cues = find_cues(planted(), 3, (10, 10))
    assert cues.foreground.tolist() == [False, True, False]
    np.testing.assert_allclose(cues.shares, [0.8, 0.16, 0.04])
    assert cues.border[1] == 0 and cues.border[2] == pytest.approx(1 / 0.36)
    assert cues.spread[1] == pytest.approx(2.5 / 16.5)


def test_attention_is_a_third_voice() -> None:
    attention = (planted() == 2).astype(np.float32)
    cues = find_cues(planted(), 3, (10, 10), attention)
    assert cues.attention is not None
    np.testing.assert_allclose(cues.attention, [0, 0, 25])
    assert cues.foreground.tolist() == [False, True, False]  # two of three say so


def test_there_are_always_both_sides() -> None:
    everywhere = np.tile(np.arange(100, dtype=np.int32) % 2, (3, 1))
    side = find_cues(everywhere, 2, (10, 10)).foreground
    assert side.sum() == 1


def test_a_cluster_without_patches_is_told() -> None:
    cues = find_cues(planted(), 4, (10, 10))
    assert cues.shares[3] == 0 and np.isfinite(cues.border).all()
    assert len(cues.lines(cues.foreground)) == 4


def test_a_person_may_overrule_it() -> None:
    assert overruled(3, (0, 2)).tolist() == [True, False, True]
    for wrong in ((), (0, 1, 2), (3,), (-1,)):
        with pytest.raises(OptionError, match=r"\[foreground\] must name some of the clusters 0 to 2"):
            overruled(3, wrong)


@pytest.mark.parametrize("example", find_examples("patchcut_export.levels"), ids=lambda test: test.name)
def test_examples_run(example: Any) -> None:
    shown = {"Cues": Cues, "find_cues": find_cues, "Prototypes": Prototypes}
    run_example(example, {"np": np, **shown, "KnownConcepts": KnownConcepts, "called": called})
