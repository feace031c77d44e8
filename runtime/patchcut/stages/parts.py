"""Parts: the stage that divides a frame's foreground, and in a scene its background, too.

These are DeepCut's three modes (2212.05853, section 3.5). The head says what is foreground; this stage
clusters the patches of the foreground, and those of the background, by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

from patchcut.cells import cells_of, on_cells, patch_means
from patchcut.features import Features, to_host
from patchcut.heads import FittedHead, Following, Head
from patchcut.heads.base import explained
from patchcut.heads.fitted import in_reading_order, one_hot
from patchcut.stages.canvas import Canvas

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False, repr=False)
class DividedPatches:
    """The n patches of a frame whose foreground, and maybe background, is divided.

    Attributes:
        foreground: [n, 2] float32, rows on the simplex: the head's background and its strongest column of
            foreground, so that patches are on the side of their largest column. Of a head that answers on a
            finer grid a row for each of its cells, here and in `assignment`; a cell is in its patch's part.
        assignment: [n, 1 + p + g] float32, rows on the simplex: background that is divided no further, p
            parts of the foreground, g regions of the background.
        labels: names of its columns.
        parts: [n] int32 in [0, p), the part that each patch is nearest to, whether it is foreground or not.
        part_count: p, at least 1.
        background: [n] int32 in [0, g), the same for the background; None where that is not divided.
        background_count: g.
    """

    foreground: Float32
    assignment: Float32
    labels: tuple[str, ...]
    parts: Int32
    part_count: int
    background: Int32 | None
    background_count: int

    @property
    def background_columns(self) -> tuple[int, ...]:
        """The columns that are background."""
        first = 1 + self.part_count
        return (0, *range(first, first + self.background_count))

    def label_map(self, foreground: npt.NDArray[np.bool_], canvas: Canvas) -> Int32:
        """[H, W] int32, the column of each pixel.

        Args:
            foreground: [H, W] bool.
            canvas: where the frame lies.
        Examples:
            >>> patches.label_map(np.zeros((512, 512), bool), canvas).max().item()
            0
        """
        parts = canvas.upsample_labels(self.parts, self.part_count)
        parts += 1
        if self.background is None:
            parts *= foreground
            return parts
        label_map = canvas.upsample_labels(self.background, self.background_count)
        label_map += 1 + self.part_count
        np.copyto(label_map, parts, where=foreground)
        return label_map


class Parts:
    """The stage that divides a frame's foreground, and its background, where a mode asks for it.

    Args:
        head: divides the foreground: one that is fitted to its patches alone, or one that was trained, whose
            columns then are the parts.
        background: divides the background; None leaves that whole.
    """

    def __init__(self, head: Head, background: FittedHead | Following | None) -> None:
        self.head = head
        self._background = background

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the columns that a frame may have: one with fewer parts has fewer."""
        background = 0 if self._background is None else len(self._background.labels)
        return self._labels(len(self.head.labels), background)

    def following(self, *, warm: bool = True) -> Parts:
        """The stage for one stream, in which parts keep their label from frame to frame.

        Args:
            warm: as for `Following`.
        Examples:
            >>> parts = patchcut.stages.Parts(patchcut.heads.KMeansHead(k=3), background=None).following()
            >>> [parts(features, seg.head(features)[0]).part_count for _ in range(2)]
            [3, 3]
        """
        head = Following(self.head, warm=warm) if isinstance(self.head, FittedHead) else self.head
        background = (
            Following(self._background, warm=warm) if isinstance(self._background, FittedHead) else None
        )
        return Parts(head, background)

    def begin_scene(self) -> None:
        """Lets parts that are followed be found afresh on the next frame; their labels go on.

        Examples:
            >>> parts = patchcut.stages.Parts(patchcut.heads.KMeansHead(k=3), background=None).following()
            >>> parts.begin_scene()
        """
        for head in (self.head, self._background):
            if isinstance(head, Following):
                head.begin_scene()

    def __call__(self, features: Features, assignment: Float32) -> DividedPatches:
        """The division of one frame.

        Args:
            features: the frame's, in host memory.
            assignment: [n, k] float32, the head's, or [c * c * n, k] of the patches' cells; columns from 1 on
                are foreground.
        Raises:
            EngineError: the features are not finite, or a head cannot use them.
        Examples:
            >>> parts = patchcut.stages.Parts(patchcut.heads.KMeansHead(k=3), background=None)
            >>> parts(features, seg.head(features)[0]).labels
            ('background', 'part 1', 'part 2', 'part 3')
        """
        foreground = np.stack([assignment[:, 0], assignment[:, 1:].max(axis=1)], axis=1)
        foreground /= foreground.sum(axis=1, keepdims=True)
        inside = patch_means(assignment, features.grid_hw).argmax(axis=1) > 0
        parts, part_count = self._divide(features, inside)
        background, background_count = None, 0
        if self._background is not None:
            background, background_count = _clusters(self._background, features, ~inside)
        grid_hw, cells = features.grid_hw, cells_of(len(assignment), features.grid_hw)
        of_parts = on_cells(one_hot(parts, part_count), grid_hw, cells)
        columns = [foreground[:, :1], foreground[:, 1:] * of_parts]
        if background is not None:
            of_background = on_cells(one_hot(background, background_count), grid_hw, cells)
            columns = [0 * columns[0], columns[1], columns[0] * of_background]
        return DividedPatches(
            foreground=foreground,
            assignment=np.concatenate(columns, axis=1),
            labels=self._labels(part_count, background_count),
            parts=parts,
            part_count=part_count,
            background=background,
            background_count=background_count,
        )

    def _labels(self, part_count: int, background_count: int) -> tuple[str, ...]:
        fitted = isinstance(self.head, FittedHead | Following)
        parts = _numbered("part", part_count) if fitted else self.head.labels
        return ("background", *parts, *_numbered("background", background_count))

    def _divide(self, features: Features, inside: npt.NDArray[np.bool_]) -> tuple[Int32, int]:
        """The part [n] int32 of each patch, and how many parts there are; `inside` [n] bool is foreground."""
        if isinstance(self.head, FittedHead | Following):
            return _clusters(self.head, features, inside)
        columns = patch_means(to_host(self.head(features))[0], features.grid_hw)
        return columns.argmax(axis=1).astype(np.int32), columns.shape[1]


def _clusters(
    head: FittedHead | Following, features: Features, chosen: npt.NDArray[np.bool_]
) -> tuple[Int32, int]:
    """`cluster_patches` of one frame's features, whose errors say what to do."""
    rows = to_host(features.of(head.needs))[0]
    with explained(rows, "choose another head for the parts"):
        return cluster_patches(head, rows, chosen)


def cluster_patches(
    head: FittedHead | Following, features: Float32, chosen: npt.NDArray[np.bool_]
) -> tuple[Int32, int]:
    """Clusters of some patches, [n] int32, and how many they may be; in reading order, or following others.

    Patches that were not chosen are in the cluster whose mean is nearest by cosine: borders between clusters
    are interpolated there. Without a chosen patch there is one cluster.
    """
    if not chosen.any():
        return np.zeros(len(features), np.int32), head.columns if isinstance(head, Following) else 1
    rows = np.ascontiguousarray(features[chosen])
    if isinstance(head, Following):
        members, count = head.number(rows), head.columns
    else:
        members, count = in_reading_order(head.cluster(rows).argmax(axis=1))
    found, places = np.unique(members, return_inverse=True)
    nearest = kernels.assign(features, _mean_directions(rows, places.astype(np.int32), len(found))).labels
    labels = found[nearest]
    labels[chosen] = members
    return labels, count


def _mean_directions(rows: Float32, members: Int32, count: int) -> Float32:
    """[count, d] float32, the mean of each cluster's rows after these were scaled to length 1."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return np.ascontiguousarray(one_hot(members, count).T @ unit, np.float32)


def _numbered(word: str, count: int) -> tuple[str, ...]:
    return tuple(f"{word} {i}" for i in range(1, count + 1))
