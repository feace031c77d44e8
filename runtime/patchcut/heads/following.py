"""Clusters that keep their number from frame to frame of a stream."""

from __future__ import annotations

import numpy as np

from patchcut.features import Features, to_host
from patchcut.heads.base import explained
from patchcut.heads.fitted import FittedHead, Float32, Int32, continued, in_reading_order, means_of


class Following:
    """A fitted head in one stream, whose clusters have the numbers that they had on the frames before.

    A fitted head finds the clusters of each frame by themselves, in any order. Here those of the first frame
    are numbered as in a photo, and later ones have the number of the earlier one that they are most like. It
    remembers, so each stream, and each set of patches of its frames, needs one of its own. On all frames
    there are as many columns as the head may find clusters.

    Args:
        head: what clusters.
        warm: whether a head that can starts from what it found on the frame before, within a scene; else
            each frame's clusters are found afresh.
    Examples:
        >>> following = patchcut.heads.Following(patchcut.heads.KMeansHead(k=2))
        >>> rows = np.eye(2, dtype=np.float32)
        >>> following.number(rows).tolist(), following.number(rows[::-1].copy()).tolist()
        ([0, 1], [1, 0])
    """

    def __init__(self, head: FittedHead, *, warm: bool = True) -> None:
        self._head, self._warm = head, warm
        self._means: Float32 | None = None  # [c, d], of each cluster when it was last seen
        self._before: object = None  # what the head starts from
        self._grid_hw: tuple[int, int] | None = None
        self.name = head.name
        self.labels = head.labels
        self.needs = head.needs
        self.devices = head.devices
        self.columns = head.columns

    def begin_scene(self) -> None:
        """Lets the next frame's clusters be found afresh; their numbers go on.

        Examples:
            >>> following = patchcut.heads.Following(patchcut.heads.NcutHead())
            >>> first, _, again = following(features), following.begin_scene(), following(features)
            >>> bool((first == again).all())
            True
        """
        self._before = None

    def number(self, features: Float32) -> Int32:
        """The cluster [m] int32 of each patch, below `columns`; a number may have no patch on this frame.

        Args:
            features: [m, d] float32, m at least 1.
        Examples:
            >>> following = patchcut.heads.Following(patchcut.heads.NcutHead())
            >>> sorted(following.number(np.eye(2, dtype=np.float32)).tolist())
            [0, 1]
        """
        if self._means is None:
            clusters, after = self._head.cluster_after(features, self._before)
            numbers, _ = in_reading_order(clusters.argmax(axis=1))
        else:
            numbers, after = self._head.follow(features, self._means, self._before)
        self._keep(after)
        self._remember(features, numbers)
        return numbers

    def __call__(self, features: Features) -> Float32:
        """As `Head`, for one frame: [1, n, k] float32; a column that nothing here continues is zeros.

        Examples:
            >>> patchcut.heads.Following(patchcut.heads.KMeansHead(k=3))(features).shape
            (1, 256, 3)
        """
        rows = to_host(features.of(self.needs))[0]
        if features.grid_hw != self._grid_hw:
            self._before, self._grid_hw = None, features.grid_hw
        with explained(rows, "choose another head"):
            assignment, after = self._head.assign_after(rows, features.grid_hw, self._before)
        self._keep(after)
        result = np.zeros((1, len(assignment), self.columns), np.float32)
        result[0, :, 0] = assignment[:, 0]
        labels = assignment.argmax(axis=1)
        inside = labels > 0
        if inside.any():
            chosen, found = rows[inside], labels[inside] - 1
            numbers = found.astype(np.int32) if self._means is None else continued(found, chosen, self._means)
            self._remember(chosen, numbers)
            result[0][:, 1 + numbers] = assignment[:, labels[inside]]
        return result

    def _keep(self, after: object) -> None:
        """Keeps what the next frame may start from."""
        self._before = after if self._warm else None

    def _remember(self, features: Float32, numbers: Int32) -> None:
        """Keeps the mean of each cluster that has patches here."""
        seen, means = means_of(features, numbers)
        known = np.zeros((0, features.shape[1]), np.float32) if self._means is None else self._means
        grown = max(0, int(seen.max()) + 1 - len(known))
        self._means = np.pad(known, ((0, grown), (0, 0)))
        self._means[seen] = means
