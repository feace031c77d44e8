"""One pass of k-means over a collection: what it returns, and how this machine makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from patchcut.checks import check_choice
from patchcut.features import to_host
from patchcut_kernels import KMeansSums, cuda, kmeans_sums

from patchcut_export.clustering.points import Int64, Points
from patchcut_export.errors import ExportError

Metric = Literal["cosine", "euclidean"]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Advance = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What is asked of one pass.

    Attributes:
        metric: as of the op `kmeans_sums`.
        chunk: points that are in memory at a time.
        sums: False where the sums of the clusters are not asked for.
        rows: numbers of the points that are looked at, rising; None for all.
        leading: how many points are returned as the leading ones.
        draw: None: those farthest from their centroids lead. (seed, stream): they are drawn without
            replacement, with chances that are proportional to these distances.
    """

    metric: Metric
    chunk: int
    sums: bool = True
    rows: Int64 | None = None
    leading: int = 0
    draw: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class Leading:
    """Points in falling order of their keys; only those that lie off their centroids.

    Attributes:
        keys: [t] float64, the distances to the own centroid, or what decides the draw.
        numbers: [t] int64, which points they are.
        labels: [t] int32, their clusters.
        distances: [t] float32, to the own centroid.
    """

    keys: Float64
    numbers: Int64
    labels: npt.NDArray[np.int32]
    distances: Float32

    def first(self, count: int) -> Leading:
        """The `count` of the largest keys; of equal ones those of the lower numbers."""
        order = np.arange(len(self.keys))
        if len(order) > 4 * count:  # a chunk's; sorting all of it takes longer
            least = np.partition(self.keys, -count)[-count] if count else np.inf
            order = np.flatnonzero(self.keys >= least)
        order = order[np.lexsort((self.numbers[order], -self.keys[order]))][:count]
        return Leading(self.keys[order], self.numbers[order], self.labels[order], self.distances[order])

    def joined(self, other: Leading) -> Leading:
        """Both, in no order."""
        return Leading(
            np.concatenate((self.keys, other.keys)),
            np.concatenate((self.numbers, other.numbers)),
            np.concatenate((self.labels, other.labels)),
            np.concatenate((self.distances, other.distances)),
        )


@dataclass(frozen=True, eq=False)
class PassSums:
    """What a pass over points returns.

    Attributes:
        sums: [k, d] float64, of the points of each cluster, of unit rows for "cosine"; [0, d] where they were
            not asked for.
        counts: [k] int64, the points of each cluster.
        inertia: the distances of all points to their nearest centroids, added up.
        leading: see `Pass`.
    """

    sums: Float64
    counts: Int64
    inertia: float
    leading: Leading

    def plus(self, other: PassSums, leading: int) -> PassSums:
        """Of the points of both."""
        return PassSums(
            self.sums + other.sums,
            self.counts + other.counts,
            self.inertia + other.inertia,
            self.leading.joined(other.leading).first(leading),
        )

    @classmethod
    def nothing(cls, centroids: Float32, asked: Pass) -> PassSums:
        """Of no points."""
        k, dim = centroids.shape
        none = Leading(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
        return cls(np.zeros((k if asked.sums else 0, dim)), np.zeros(k, np.int64), 0.0, none)


class Steps(Protocol):
    """Where the passes run."""

    def run(self, points: Points, centroids: Float32, asked: Pass, advance: Advance) -> PassSums:
        """One pass over the points, with [k, d] centroids.

        Args:
            advance: called with (done, total) points.
        Raises:
            ExportError: a point is not finite.
        """
        ...


@dataclass(frozen=True)
class LocalSteps:
    """Passes on this machine.

    Args:
        device: "cpu", or "cuda": chunks go up, and the same op runs there.
    Raises:
        OptionError: another device.
        ExportError: CUDA is not available.
    Examples:
        >>> points, centroids = Points(np.float32([[0], [1], [9]])), np.float32([[0], [8]])
        >>> asked = Pass(metric="euclidean", chunk=2)
        >>> made = LocalSteps().run(points, centroids, asked, lambda done, total: None)
        >>> made.counts.tolist(), made.sums.tolist(), made.inertia
        ([2, 1], [[1.0], [9.0]], 2.0)
    """

    device: str = "cpu"

    def __post_init__(self) -> None:
        check_choice("device", self.device, ("cpu", "cuda"))
        if self.device == "cuda" and not cuda.is_available():
            raise ExportError("device", f"no CUDA here: {cuda.why_unavailable()}", "choose cpu")

    def run(self, points: Points, centroids: Float32, asked: Pass, advance: Advance) -> PassSums:
        """As in `Steps`."""
        return self.run_part(points, 0, points.count, centroids, asked, advance)

    def run_part(
        self, points: Points, begin: int, end: int, centroids: Float32, asked: Pass, advance: Advance
    ) -> PassSums:
        """The same of the points from `begin` to before `end` alone."""
        found = PassSums.nothing(centroids, asked)
        numbers = _part_of(begin, end, asked.rows)
        held = self._held(centroids)
        for low in range(0, len(numbers), asked.chunk):
            some = numbers[low : low + asked.chunk]
            made = self._nearest(points, some, held, asked.metric, sums=asked.sums)
            sums = found.sums if made.sums is None else made.sums
            leading = _rank(some, made.labels, made.distances, asked)
            found = found.plus(PassSums(sums, made.counts, float(made.inertia), leading), asked.leading)
            advance(low + len(some), len(numbers))
        return found

    def labels(
        self, points: Points, numbers: range, centroids: Float32, metric: Metric
    ) -> npt.NDArray[np.int32]:
        """[m] int32: the nearest centroids of some points."""
        return self._nearest(points, numbers, self._held(centroids), metric, sums=False).labels

    def _held(self, array: npt.NDArray[Any]) -> Any:
        """The array where the op runs."""
        return cuda.to_device(array) if self.device == "cuda" else array

    def _nearest(
        self, points: Points, numbers: range | Int64, centroids: Any, metric: Metric, *, sums: bool
    ) -> KMeansSums:
        whole = isinstance(numbers, range)
        rows = points.read(numbers[0], numbers[-1] + 1) if whole else points.take(np.asarray(numbers))
        try:
            made = kmeans_sums(self._held(rows), centroids, metric=metric, sums=sums)
        except ValueError as error:
            raise unfit(points, numbers, rows) or error from None
        return KMeansSums(
            to_host(made.labels),
            to_host(made.distances),
            None if made.sums is None else to_host(made.sums),
            to_host(made.counts),
            to_host(made.inertia),
        )


def _part_of(begin: int, end: int, rows: Int64 | None) -> range | Int64:
    """The numbers of points from `begin` to before `end`, of `rows` where these are given."""
    if rows is None:
        return range(begin, end)
    return rows[np.searchsorted(rows, begin) : np.searchsorted(rows, end)]


def _rank(numbers: range | Int64, labels: Any, distances: Any, asked: Pass) -> Leading:
    """The leading points of a chunk."""
    # Unit rows and their means are rounded: what lies on its centroid is not quite 0 away.
    least = (5e-13 if asked.metric == "cosine" else 0.0) if asked.leading else np.inf
    off = np.flatnonzero(distances > least)
    keys = distances[off].astype(np.float64)
    if asked.draw is not None and len(off):
        assert isinstance(numbers, range)
        keys /= np.maximum(-np.log1p(-_uniform(*asked.draw, numbers)[off]), 1e-300)
    named = np.asarray(numbers, np.int64)[off]
    return Leading(keys, named, labels[off], distances[off]).first(asked.leading)


def _uniform(seed: int, stream: int, numbers: range) -> Float64:
    """A random number in [0, 1) for each of `numbers`, which does not depend on where they begin."""
    bits = np.random.Philox(key=np.array([seed, stream], np.uint64))
    bits.advance(numbers.start // 4)  # it makes four at a time
    skipped = numbers.start % 4
    return np.random.Generator(bits).random(len(numbers) + skipped)[skipped:]


def unfit(points: Points, numbers: range | Int64, rows: npt.NDArray[Any]) -> ExportError | None:
    """What is wrong with rows that the op does not take; None where it is something else."""
    finite = np.isfinite(rows).all(axis=1)
    if finite.all():
        return None
    name = points.name(int(numbers[int(finite.argmin())]))
    return ExportError("points", f"{name} is not finite", "leave it out of those that are selected")
