"""Frames that barely differ from one that was segmented, and get its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from patchcut.frames import Frame
from patchcut.result import Result

if TYPE_CHECKING:
    from patchcut.video.stream import Segment

# A frame is compared in so many blocks along a side, by every fourth pixel along each.
_BLOCKS, _STEP = 32, 4
# So many frames in a row get the answer of one at most.
MAX_REUSED = 10

Blocks = npt.NDArray[np.float32]


class Reuse:
    """Segments frames, unless they are nearly the same as the last one that was segmented.

    A frame is where in none of 32 x 32 blocks the mean grey level differs by more than so many levels. It is
    compared with the frame that the answer is of, so that slow changes add up, and of ten frames in a row
    that are, the next is segmented all the same.

    Args:
        segment: segments frames.
        below: grey levels of 0 to 255 in each channel.
        made_by: what answers depend on beside the frame; another object makes a frame new.
    Examples:
        >>> reuse = patchcut.video.Reuse(lambda frames, timings_ms: [seg(one) for one in frames], below=2.0)
        >>> one = patchcut.Frame(frame)
        >>> [result.reused for result in reuse([one, one], [{}, {}])]
        [False, True]
    """

    def __init__(self, segment: Segment, below: float, made_by: Callable[[], object] = lambda: None) -> None:
        self._segment = segment
        self._made_by = made_by
        self._by: object = None
        self._below = below
        self._blocks: Blocks | None = None
        self._result: Result | None = None
        self._reused = 0

    def __call__(self, frames: Sequence[Frame], timings_ms: Sequence[dict[str, float]]) -> list[Result]:
        """Results of frames, in order; those that are reused say so and share no memory with another."""
        new = [self._is_new(frame) for frame in frames]
        chosen = [i for i, is_new in enumerate(new) if is_new]
        made = iter(
            self._segment([frames[i] for i in chosen], [timings_ms[i] for i in chosen]) if chosen else ()
        )
        results = []
        for frame, ms, is_new in zip(frames, timings_ms, new, strict=True):
            if is_new:
                self._result = next(made)
                results.append(self._result)
            else:
                assert self._result is not None
                results.append(_reused(self._result, frame, ms))
        return results

    def _is_new(self, frame: Frame) -> bool:
        blocks, before = _blocks_of(frame.image), self._blocks
        by, self._by = self._by, self._made_by()
        if by is not self._by or before is None or before.shape != blocks.shape or self._reused == MAX_REUSED:
            differ = np.inf
        else:
            differ = float(np.abs(blocks - before).max(initial=0))
        if differ <= self._below:
            self._reused += 1
            return False
        self._blocks, self._reused = blocks, 0
        return True


def _blocks_of(image: npt.NDArray[np.uint8]) -> Blocks:
    """[h, w, 3] float32: the means of blocks of an image [H, W, 3]; its own pixels where it is small."""
    sparse = image[::_STEP, ::_STEP]
    edges = [
        np.unique(np.linspace(0, side, min(side, _BLOCKS) + 1).astype(int))[:-1] for side in sparse.shape[:2]
    ]
    sums = np.add.reduceat(sparse, edges[0], axis=0, dtype=np.float32)
    sums = np.add.reduceat(sums, edges[1], axis=1)
    counts = [np.diff([*at, side]) for at, side in zip(edges, sparse.shape, strict=False)]
    return np.asarray(sums / np.multiply.outer(*counts)[..., None], np.float32)


def _reused(result: Result, frame: Frame, timings_ms: dict[str, float]) -> Result:
    return replace(
        result,
        label_map=result.label_map.copy(),
        region_ids=result.region_ids.copy(),
        confidence=result.confidence.copy(),
        frame=frame.image,
        name=frame.name,
        index=frame.index,
        time_s=frame.time_s,
        timings_ms=dict(timings_ms),
        reused=True,
    )
