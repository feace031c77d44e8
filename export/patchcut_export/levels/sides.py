"""Which clusters of a dataset are foreground, decided without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from patchcut.errors import OptionError

Int32 = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cues:
    """What tells foreground, of each of K clusters; 1 is as of patches anywhere.

    Attributes:
        shares: [K] of all patches.
        border: [K], patches at the images' borders, relative; foreground has less than 1.
        spread: [K], how far a cluster's patches of one image lie apart, relative; foreground has less than 1.
        attention: [K], the class token's attention to its patches, relative; foreground has more than 1. None
            where the backbone's attention is not among the features.
    """

    shares: Float64
    border: Float64
    spread: Float64
    attention: Float64 | None = None

    @property
    def foreground(self) -> npt.NDArray[np.bool_]:
        """[K] bool: what most of the cues say, and the border where they are even; never all or none."""
        says = [self.border < 1, self.spread < 1]
        if self.attention is not None:
            says.append(self.attention > 1)
        votes = np.sum(says, axis=0, dtype=float) + 0.5 * (self.border < 1)
        side: npt.NDArray[np.bool_] = votes > (len(says) + 0.5) / 2
        first, *_, last = np.argsort(self.border, kind="stable")
        side[first], side[last] = True, False
        return side

    def lines(self, foreground: npt.NDArray[np.bool_]) -> list[str]:
        """A line for people of each cluster.

        Examples:
            >>> cues = Cues(np.array([0.7, 0.3]), np.array([1.2, 0.4]), np.array([1.1, 0.6]))
            >>> cues.lines(cues.foreground)[1]
            'cluster 1, 30.0 % of the patches: border 0.40, spread 0.60: foreground'
        """
        lines = []
        for k, side in enumerate(foreground):
            told = f"border {self.border[k]:.2f}, spread {self.spread[k]:.2f}"
            if self.attention is not None:
                told += f", attention {self.attention[k]:.2f}"
            is_side = "foreground" if side else "background"
            lines.append(
                f"cluster {k}, {self.shares[k]:.1%} of the patches: {told}: {is_side}".replace("%", " %")
            )
        return lines


def find_cues(
    labels: Int32, clusters: int, grid_hw: tuple[int, int], attention: npt.NDArray[np.floating] | None = None
) -> Cues:
    """The cues of a dataset's clusters.

    Args:
        labels: [N, n] int32, the cluster of each patch of N images.
        clusters: K.
        grid_hw: rows and columns, n = h * w.
        attention: [N, n], of the class token to each patch.
    Examples:
        >>> labels = np.zeros((1, 16), np.int32)
        >>> labels[0, [5, 6, 9, 10]] = 1
        >>> cues = find_cues(labels, 2, (4, 4))
        >>> cues.border.round(2).tolist(), cues.foreground.tolist()
        ([1.33, 0.0], [False, True])
    """
    h, w = grid_hw
    border = np.ones(grid_hw, bool)
    border[1:-1, 1:-1] = False
    y, x = np.divmod(np.arange(h * w), w)
    sizes = np.zeros((len(labels), clusters))
    at_border, paid, spread = np.zeros(clusters), np.zeros(clusters), np.zeros(clusters)
    anywhere = y.var() + x.var()
    for i, own in enumerate(labels):
        size = np.bincount(own, minlength=clusters)
        sizes[i] = size
        at_border += np.bincount(own[border.ravel()], minlength=clusters)
        for values in (y, x):
            mean = np.bincount(own, values, clusters) / np.maximum(size, 1)
            spread += np.bincount(own, (values - mean[own]) ** 2, clusters)
        if attention is not None:
            paid += np.bincount(own, np.asarray(attention[i], np.float64), clusters)
    total = sizes.sum(axis=0)
    held = np.maximum(total, 1)
    relative = None
    if attention is not None:
        mean_paid = paid.sum() / total.sum()
        relative = paid / held / mean_paid if mean_paid > 0 else np.ones(clusters)
    return Cues(
        total / total.sum(), at_border / held / border.mean(), spread / held / max(anywhere, 1e-12), relative
    )


def overruled(clusters: int, foreground: Sequence[int]) -> npt.NDArray[np.bool_]:
    """[K] bool, the clusters that a person calls foreground.

    Raises:
        OptionError: "[foreground] must name some of the clusters 0 to 7, and not all, got 9".
    """
    said = set(foreground)
    if not said or len(said) >= clusters or not said <= set(range(clusters)):
        came = ", ".join(map(str, foreground)) or "none"
        what = f"must name some of the clusters 0 to {clusters - 1}, and not all, got {came}"
        raise OptionError("foreground", what)
    return np.isin(np.arange(clusters), list(said))
