"""Some of a head's names; what has another is background."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from patchcut.features import Features, to_host
from patchcut.heads.base import Head


class ChosenNames:
    """A head of which some names are told.

    All of them compete still: what is a cat is not called a dog where only dogs are asked for.

    Args:
        head: on the CPU; column 0 is background.
        hidden: names that are not told.
    Examples:
        >>> chosen = patchcut.heads.ChosenNames(patchcut.heads.KMeansHead(k=3), {"cluster 2"})
        >>> chosen.labels
        ('background', 'cluster 1')
    """

    def __init__(self, head: Head, hidden: Collection[str]) -> None:
        self.head = head
        self.name = head.name
        self.needs = head.needs
        self.devices = head.devices
        self.named: bool = getattr(head, "named", False)
        self._kept = [i for i, label in enumerate(head.labels) if i == 0 or label not in hidden]
        self.labels = tuple(head.labels[i] for i in self._kept)
        colors: tuple[int, ...] = getattr(head, "label_colors", ())
        self.label_colors = tuple(colors[i] for i in self._kept) if colors else ()

    def __call__(self, features: Features) -> npt.NDArray[np.float32]:
        """[b, n, k] float32, rows on the simplex: what the others have is the background's.

        Examples:
            >>> chosen = patchcut.heads.ChosenNames(patchcut.heads.KMeansHead(k=3), {"cluster 2"})
            >>> chosen(features).shape, bool(np.allclose(chosen(features).sum(axis=2), 1))
            ((1, 256, 2), True)
        """
        assignment = to_host(self.head(features))
        told: npt.NDArray[np.float32] = assignment[:, :, self._kept]
        told[:, :, 0] = 1 - told[:, :, 1:].sum(axis=2)
        return told
