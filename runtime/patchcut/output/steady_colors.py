"""Colours that stay with an object from one frame of a video to the next."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from patchcut.result import Result

_SIDE = 160  # pixels along a frame at which overlaps are counted


class SteadyColors:
    """Numbers of colours for the regions of one result after the other.

    A region has the colour of the one of the frame before that it covers most of; a new one has the first
    that is free. Regions are ranked anew in each frame, so that their own numbers change places.
    Examples:
        >>> colors = patchcut.output.steady_colors.SteadyColors()
        >>> colors(result)[0]
        1
    """

    def __init__(self) -> None:
        self._name = ""
        self._before = np.zeros((0, 0), np.int32)

    def __call__(self, result: Result) -> list[int]:
        """The numbers, from 1, one for each region; those of a photo are 1, 2, ...

        Args:
            result: of the frame after that of the last call; a photo, or another video, begins anew.
        Examples:
            >>> patchcut.output.steady_colors.SteadyColors()(result) == list(range(1, len(result) + 1))
            True
        """
        step = max(1, max(result.region_ids.shape) // _SIDE)
        ids = result.region_ids[::step, ::step]
        follows = result.name == self._name != "" and ids.shape == self._before.shape
        before = self._before if follows else np.zeros_like(ids)
        numbers = _matched(ids, before, len(result))
        self._name = result.name
        self._before = np.array([0, *numbers], np.int32)[ids]
        return numbers


def _matched(ids: npt.NDArray[np.int32], before: npt.NDArray[np.int32], count: int) -> list[int]:
    """Numbers of regions 1 to `count`: pairs that overlap most come first, each number is given once."""
    both, most = (ids > 0) & (before > 0), int(before.max(initial=0)) + 1
    pairs, pixels = np.unique(ids[both].astype(np.int64) * most + before[both], return_counts=True)
    given: dict[int, int] = {}
    taken: set[int] = set()
    for pair in pairs[np.argsort(-pixels, kind="stable")].tolist():
        region, number = divmod(pair, most)
        if region not in given and number not in taken:
            given[region] = number
            taken.add(number)
    free = (number for number in range(1, 2 * count + 2) if number not in taken)
    return [given[region] if region in given else next(free) for region in range(1, count + 1)]
