"""Images that are nearly the same, by the cosine of their embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from patchcut.heads.naming import unit

_NEW, _OLD = 1024, 8192
_ROUNDING = 2e-6  # of the cosine of a row with itself


def first_like(
    embeddings: npt.NDArray[Any],
    least: float,
    known: Mapping[int, int],
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> npt.NDArray[np.int64]:
    """The first image of a group of nearly the same ones, for each of its other images.

    Images are taken in their order: one whose cosine to an image that is no repeat itself is `least` or more
    repeats the first such one. The products are made in blocks; no more than a block of cosines is in memory.

    Args:
        embeddings: [N, d] float16 or float32 of unit length.
        least: a cosine.
        known: row → what it repeats, or -1, of images for which that was found before among rows that are
            all still there.
        advance: called with (done, total).
    Returns:
        [N] int64, an earlier row, or -1.
    Examples:
        >>> from patchcut_export.retrieval.near_duplicates import first_like
        >>> first_like(np.float32([[1, 0], [0, 1], [1, 0.01], [1, 0]]), 0.99, {}).tolist()
        [-1, -1, 0, 0]
    """
    likes = np.full(len(embeddings), -1, np.int64)
    for row, like in known.items():
        likes[row] = like
    new = np.array([row for row in range(len(embeddings)) if row not in known], np.int64)
    for begin in range(0, len(new), _NEW):
        advance(begin, len(new))
        rows = new[begin : begin + _NEW]
        _find(embeddings, rows, least, likes)
    return likes


def _find(
    embeddings: npt.NDArray[Any], rows: npt.NDArray[np.int64], least: float, likes: npt.NDArray[np.int64]
) -> None:
    """Fills in what some rows repeat; of those before them it is known."""
    queries = unit(np.asarray(embeddings[rows], np.float32))  # float16 leaves lengths a little off
    candidates: list[list[int]] = [[] for _ in rows]
    for start in range(0, int(rows[-1]) + 1, _OLD):
        block = unit(np.asarray(embeddings[start : start + _OLD], np.float32))
        found, others = np.nonzero(queries @ block.T >= least - _ROUNDING)
        others += start
        kept = (others < rows[found]) & (likes[others] < 0)  # those of this block of rows are not known yet
        for i, other in zip(found[kept].tolist(), others[kept].tolist(), strict=True):
            candidates[i].append(other)
    for row, earlier in zip(rows.tolist(), candidates, strict=True):
        likes[row] = next((one for one in earlier if likes[one] < 0), -1)
