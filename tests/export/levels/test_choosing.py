"""How many clusters there are, of rows whose number of clusters is known."""

from __future__ import annotations

import numpy as np
import pytest
from patchcut.errors import OptionError
from patchcut_export.levels.choosing import choose_count, cluster_rows

COUNTS = (4, 6, 8, 12, 16, 24, 32)


def planted(k: int, apart: float, dim: int = 64) -> np.ndarray:
    """[40 k, dim] float32, unit rows around k directions; the larger `apart`, the less they overlap."""
    rng = np.random.default_rng(k)
    rows = apart * np.repeat(rng.standard_normal((k, dim)), 40, axis=0) + rng.standard_normal((40 * k, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("apart", [0.5, 1.0])
@pytest.mark.parametrize("k", [4, 8, 16, 24])
def test_planted_clusters_are_counted(k: int, apart: float) -> None:
    said: list[str] = []
    assert choose_count(planted(k, apart), COUNTS, 0, said.append, "categories") == k
    assert len(said) == 1 and said[0].startswith("categories by silhouette: 4: 0.")
    assert said[0].endswith(f"takes {k}")


def test_few_rows_are_few_clusters() -> None:
    rows = planted(4, 1.0)
    assert choose_count(rows[:3], COUNTS, 0, pytest.fail, "names") == 3
    assert choose_count(rows[:5], COUNTS, 0, pytest.fail, "names") == 4
    assert choose_count(rows[:1], COUNTS, 0, pytest.fail, "names") == 1


def test_clusters_are_those_that_were_asked_for() -> None:
    rows = planted(4, 1.0)
    centres, own = cluster_rows(rows, 4, COUNTS, seed=0, say=pytest.fail, what="names", of="regions")
    assert centres.shape == (4, 64) and len(np.unique(own.reshape(4, 40), axis=1).T) == 1
    chosen, _ = cluster_rows(rows, None, COUNTS, seed=0, say=lambda line: None, what="names", of="regions")
    np.testing.assert_array_equal(chosen, centres)
    with pytest.raises(OptionError, match=r"\[names\] must be at most the 160 regions, got 200"):
        cluster_rows(rows, 200, COUNTS, seed=0, say=pytest.fail, what="names", of="regions")
