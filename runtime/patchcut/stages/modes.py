"""What a frame is divided into: foreground alone, its parts, or parts and the regions behind them.

These are DeepCut's three modes (2212.05853, section 3.5). The first stage, the head, says what is foreground;
the second clusters the patches of the foreground, and those of the background, by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

from patchcut.heads import FittedHead, Head
from patchcut.heads.base import Array, explained
from patchcut.heads.fitted import one_hot
from patchcut.stages.canvas import Canvas, upsample_labels

Int32 = npt.NDArray[np.int32]

Mode = Literal["foreground", "parts", "scene"]

MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, eq=False)
class Division:
    """What the second stage made of a frame's n patches.

    Attributes:
        foreground: [n, 2] float32, rows on the simplex: background and the strongest column of foreground of
            the first stage, so that patches are on the side of their largest column.
        assignment: [n, 1 + p + g] float32, rows on the simplex: background that is divided no further, p
            parts of the foreground, g regions of the background.
        labels: names of its columns.
        parts: [n] int32 in [0, p), the part that each patch is nearest to, whether it is foreground or not.
        grounds: [n] int32 in [0, g), the same for the background; None where that is not divided.
        part_count, ground_count: p, at least 1, and g.
    """

    foreground: Array
    assignment: Array
    labels: tuple[str, ...]
    parts: Int32
    grounds: Int32 | None
    part_count: int
    ground_count: int

    @property
    def background_columns(self) -> tuple[int, ...]:
        """The columns that are background."""
        first = 1 + self.part_count
        return (0, *range(first, first + self.ground_count))

    def label_map(self, foreground: npt.NDArray[np.bool_], grid_hw: tuple[int, int], canvas: Canvas) -> Int32:
        """[H, W] int32, the column of each pixel.

        Args:
            foreground: [H, W] bool.
            grid_hw: rows and columns of the patch grid.
            canvas: where the frame lies.
        """
        parts = 1 + upsample_labels(self.parts, self.part_count, grid_hw, canvas)
        if self.grounds is None:
            return np.where(foreground, parts, 0)
        grounds = upsample_labels(self.grounds, self.ground_count, grid_hw, canvas)
        return np.where(foreground, parts, 1 + self.part_count + grounds)


class Divider:
    """The second stage.

    Args:
        parts: of the foreground: a head that is fitted to its patches alone, or one that was trained, whose
            columns then are the parts.
        grounds: of the background; None leaves that whole.
    """

    def __init__(self, parts: Head, grounds: FittedHead | None) -> None:
        self.parts = parts
        self._grounds = grounds

    def __call__(self, features: Array, assignment: Array, grid_hw: tuple[int, int]) -> Division:
        """The division of a frame.

        Args:
            features: [n, d] float32.
            assignment: [n, k] float32, of the first stage; columns from 1 on are foreground.
            grid_hw: rows and columns of the patch grid, n = h * w.
        Raises:
            EngineError: the features are not finite, or a head cannot use them.
        """
        foreground = np.stack([assignment[:, 0], assignment[:, 1:].max(axis=1)], axis=1)
        foreground /= foreground.sum(axis=1, keepdims=True)
        inside = assignment.argmax(axis=1) > 0
        with explained(features, "choose another head for the parts"):
            parts, part_count = self._divide(features, inside, grid_hw)
            grounds, ground_count = None, 0
            if self._grounds is not None:
                grounds, ground_count = cluster_patches(self._grounds, features, ~inside)
        columns = [foreground[:, :1], foreground[:, 1:] * one_hot(parts, part_count)]
        if grounds is not None:
            columns = [0 * columns[0], columns[1], columns[0] * one_hot(grounds, ground_count)]
        labels = self._labels(part_count, ground_count)
        divided = np.concatenate(columns, axis=1)
        return Division(foreground, divided, labels, parts, grounds, part_count, ground_count)

    def _labels(self, part_count: int, ground_count: int) -> tuple[str, ...]:
        fitted = isinstance(self.parts, FittedHead)
        parts = _numbered("part", part_count) if fitted else self.parts.labels
        return ("background", *parts, *_numbered("background", ground_count))

    def _divide(
        self, features: Array, inside: npt.NDArray[np.bool_], grid_hw: tuple[int, int]
    ) -> tuple[Int32, int]:
        if isinstance(self.parts, FittedHead):
            return cluster_patches(self.parts, features, inside)
        columns = self.parts(features, grid_hw)
        return columns.argmax(axis=1).astype(np.int32), columns.shape[1]


def cluster_patches(head: FittedHead, features: Array, chosen: npt.NDArray[np.bool_]) -> tuple[Int32, int]:
    """Clusters of some patches, largest first, [n] int32, and how many they are.

    Patches that were not chosen are in the cluster whose mean is nearest by cosine: borders between clusters
    are interpolated there. Equally large clusters come in reading order; without a chosen patch there is one.
    """
    if not chosen.any():
        return np.zeros(len(features), np.int32), 1
    rows = np.ascontiguousarray(features[chosen])
    members, count = _largest_first(head.cluster(rows).argmax(axis=1))
    labels = kernels.assign(features, _mean_directions(rows, members, count)).labels
    labels[chosen] = members
    return labels, count


def _largest_first(clusters: npt.NDArray[np.int64]) -> tuple[Int32, int]:
    """The clusters [m] int32 numbered by size, of equals the first in order first, and how many they are."""
    found, first, members, sizes = np.unique(
        clusters, return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.empty(len(found), np.int32)
    rank[np.lexsort((first, -sizes))] = np.arange(len(found), dtype=np.int32)
    return rank[members], len(found)


def _mean_directions(rows: Array, members: Int32, count: int) -> Array:
    """[count, d] float32, the mean of each cluster's rows after these were scaled to length 1."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return np.ascontiguousarray(one_hot(members, count).T @ unit, np.float32)


def _numbered(word: str, count: int) -> tuple[str, ...]:
    return tuple(f"{word} {i}" for i in range(1, count + 1))
