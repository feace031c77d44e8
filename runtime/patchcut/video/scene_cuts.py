"""Cuts: where a video goes on with another scene."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

Float32 = npt.NDArray[np.float32]

# How little a frame resembles the one before: 1 less the mean over patches of the largest cosine. On videos
# of DAVIS at 224 and 448 pixels it is at most 0.07 from frame to frame and 0.11 over four, and 0.2 to 0.4
# between two of them.
_NEW, _TIMES_USUAL = 0.15, 3.0
# A frame whose patches are on average so much like those at the same places is of the same scene.
_SAME_PLACE = 0.8
_INERTIA = 0.9


class SceneCuts:
    """Tells of each frame whether it begins another scene.

    It does where its patches resemble none of the frame before, and much less than has been usual in this
    scene: on a shaking camera that is more than on a still one.
    Examples:
        >>> cuts = patchcut.video.SceneCuts()
        >>> one, other = np.eye(4, dtype=np.float32)[:2], np.eye(4, dtype=np.float32)[2:]
        >>> [cuts(one), cuts(one), cuts(other), cuts(other)]
        [False, False, True, False]
    """

    def __init__(self) -> None:
        self.cosines: Float32 | None = None
        self._before: Float32 | None = None
        self._usual = 0.0

    def __call__(self, unit_features: Float32) -> bool:
        """Whether a cut lies before this frame; never before the first.

        Args:
            unit_features: [n, d] float32, rows of norm 1 or 0; they are kept, not copied.
        Examples:
            >>> patchcut.video.SceneCuts()(np.ones((1, 1), np.float32))
            False
        """
        before, self._before = self._before, unit_features
        self.cosines = None
        if before is None or before.shape != unit_features.shape:
            self._usual = 0.0
            return before is not None
        self.cosines = np.einsum("nd,nd->n", unit_features, before)
        new = 1 - float(self.cosines.mean())
        if new > 1 - _SAME_PLACE:
            new = 1 - float(kernels.assign(unit_features, before).similarity.mean())
        if new > max(_NEW, _TIMES_USUAL * self._usual):
            self._usual = 0.0
            return True
        self._usual = _INERTIA * self._usual + (1 - _INERTIA) * min(new, _NEW)
        return False
