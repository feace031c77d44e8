"""What the frames before knew of their patches, brought to this frame by its features."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

Float32 = npt.NDArray[np.float32]

# DINO's protocol for video keeps the first frame and the last seven, and looks 12 patches around; five
# and 8 are as accurate on DAVIS at 448 pixels and take half the time.
RECENT, RADIUS, TOPK, TEMPERATURE = 5, 8, 5, 0.1


class FrameMemory:
    """Features of the frames to keep and of the last ones, and values of their patches, such as soft masks.

    Args:
        grid_hw: rows and columns of the patch grid, n = h * w.
        recent: how many of the last frames are remembered, at least 1.
        kept: how many frames can be kept beside them, as long as they are not replaced; at least 0.
        radius, topk, temperature: as in `patchcut_kernels.propagate`.
    Label propagation of DINO (2104.14294), section 4.2.2, where the first frame is kept: its masks are true.
    Examples:
        >>> memory = patchcut.video.FrameMemory((2, 2))
        >>> features = np.eye(4, dtype=np.float32)
        >>> memory.add(features, np.float32([[1], [0], [0], [0]]))
        >>> memory.carry(features[::-1].copy()).round(2).ravel().tolist()
        [0.0, 0.0, 0.0, 1.0]
    """

    def __init__(
        self,
        grid_hw: tuple[int, int],
        *,
        recent: int = RECENT,
        kept: int = 1,
        radius: int = RADIUS,
        topk: int = TOPK,
        temperature: float = TEMPERATURE,
    ) -> None:
        self._kept, self._slots = kept, kept + recent
        self._propagate = partial(
            kernels.propagate, grid_hw=grid_hw, radius=radius, topk=topk, temperature=temperature
        )
        self.clear()

    def clear(self) -> None:
        """Forgets all frames.

        Examples:
            >>> memory = patchcut.video.FrameMemory((1, 1))
            >>> memory.clear()
            >>> len(memory)
            0
        """
        self._features: Float32 | None = None  # [slots, n, d]
        self._values: Float32 | None = None  # [slots, n, c]
        self._order: list[int] = []  # slots of the last frames, oldest first
        self._keeps: list[int] = []  # slots of those that are kept

    def __len__(self) -> int:
        """How many frames are remembered."""
        return len(self._order) + len(self._keeps)

    @property
    def columns(self) -> int:
        """How many values a patch has, c; 0 where nothing is remembered."""
        return 0 if self._values is None else self._values.shape[2]

    def carry(self, features: Float32) -> Float32 | None:
        """[n, c] float32: the values of this frame's patches, by those they resemble; None without frames.

        Args:
            features: [n, d] float32, of this frame.
        Examples:
            >>> patchcut.video.FrameMemory((1, 1)).carry(np.ones((1, 3), np.float32)) is None
            True
        """
        if self._features is None or self._values is None:
            return None
        return self._propagate(features, self._features, self._values, frames=len(self))

    def add(self, features: Float32, values: Float32, *, keep: bool = False) -> None:
        """Remembers a frame; the oldest of the last ones is forgotten for it.

        Args:
            features: [n, d] float32; they are copied.
            values: [n, c] float32. Where c is more than it was, frames before have 0 in the new columns.
            keep: whether it is kept beyond the last frames; where all such places are taken, instead of the
                oldest of them.
        Examples:
            >>> memory = patchcut.video.FrameMemory((1, 1), recent=2)
            >>> for i in range(4):
            ...     memory.add(np.ones((1, 3), np.float32), np.full((1, 1), i, np.float32))
            >>> len(memory), memory.carry(np.ones((1, 3), np.float32)).item()
            (2, 2.5)
        """
        n, columns = values.shape
        if self._features is None or self._values is None:
            self._features = np.zeros((self._slots, *features.shape), np.float32)
            self._values = np.zeros((self._slots, n, columns), np.float32)
        if columns > self.columns:
            self._values = np.pad(self._values, ((0, 0), (0, 0), (0, columns - self.columns)))
        slot = self._slot(keep=keep and self._kept > 0)
        self._features[slot] = features
        self._values[slot] = 0
        self._values[slot, :, :columns] = values

    def arrange(self, columns: Sequence[int]) -> None:
        """Puts the values into other columns, in all frames.

        Args:
            columns: of each new column the old one, or -1 for one of zeros; those not named are forgotten.
        Examples:
            >>> memory = patchcut.video.FrameMemory((1, 1))
            >>> memory.add(np.ones((1, 3), np.float32), np.float32([[1, 2, 3]]))
            >>> memory.arrange([0, -1, 2])
            >>> memory.carry(np.ones((1, 3), np.float32)).tolist()
            [[1.0, 0.0, 3.0]]
        """
        if self._values is not None and list(columns) != list(range(self.columns)):
            padded = np.pad(self._values, ((0, 0), (0, 0), (0, 1)))  # -1 is the last one
            self._values = np.ascontiguousarray(padded[:, :, list(columns)])

    def _slot(self, *, keep: bool) -> int:
        """The slot that a new frame takes: the first free one, or that of the oldest of its kind."""
        own, limit = (self._keeps, self._kept) if keep else (self._order, self._slots - self._kept)
        slot = len(self) if len(own) < limit else own.pop(0)
        own.append(slot)
        return slot
