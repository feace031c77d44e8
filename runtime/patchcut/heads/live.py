"""A head in whose place another can be put while frames are being segmented."""

from __future__ import annotations

from patchcut.features import Array, Features
from patchcut.heads.base import Head


class LiveHead:
    """One head after the other: a frame is segmented, and its labels are told, by the one it began with.

    Args:
        head: the first; all those that come in its place need the same features and run on the same devices.
    Examples:
        >>> live = patchcut.heads.LiveHead(patchcut.heads.KMeansHead(k=2))
        >>> before = live.now
        >>> live.put(patchcut.heads.KMeansHead(k=3))
        >>> before.k, live.now.k
        (2, 3)
    """

    named = True

    def __init__(self, head: Head) -> None:
        self._head = head

    @property
    def now(self) -> Head:
        """The head at this moment; it does not change any more."""
        return self._head

    def put(self, head: Head) -> None:
        """Has the frames that begin from now on segmented by another head.

        Raises:
            ValueError: it needs other features, or runs elsewhere.
        Examples:
            >>> live = patchcut.heads.LiveHead(patchcut.heads.KMeansHead())
            >>> live.put(seg.head)
            Traceback (most recent call last):
            ValueError: [head] must need the features () on cpu, got ('key',) on cpu, cuda
        """
        if head.needs != self.needs or head.devices != self.devices:
            came = f"{head.needs} on {', '.join(head.devices)}"
            what = f"must need the features {self.needs} on {', '.join(self.devices)}, got {came}"
            raise ValueError(f"[head] {what}")
        self._head = head  # one store: whoever reads sees the one or the other

    @property
    def name(self) -> str:
        """That of the head at this moment."""
        return self._head.name

    @property
    def labels(self) -> tuple[str, ...]:
        """Those of the head at this moment."""
        return self._head.labels

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the feature sets, the same of each head."""
        return self._head.needs

    @property
    def devices(self) -> tuple[str, ...]:
        """Where they run, the same of each head."""
        return self._head.devices

    def __call__(self, features: Features) -> Array:
        """[b, n, k] float32, as the head at this moment; k is how many labels it has.

        Examples:
            >>> patchcut.heads.LiveHead(seg.head)(features).shape
            (1, 256, 2)
        """
        return self._head(features)
