"""Names of regions: each connected region of patches has the name that the mean of its features resembles."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

_DILATIONS = 2  # patches around a region that its border is interpolated with
_UNDECIDED, _NEVER = -1, -2.0  # the latter is below all cosines
# Of a region's patches those that are most like a concept tell whether it is there: 0.25 to 0.4 are as good.
_CLOSEST = 0.3
ANYWHERE = -1.0  # the presence that every region has
_SOFT = 0.1  # temperature at which shares of all cosines are far from the limits of float32


class RegionNamer:
    """Tells which column each region belongs to.

    Args:
        directions: [p, d] float32, unit, of features less what all have in common.
        owners: [p] int32, the column of each direction; column 0 is of what is to be background.
        thresholds: [k] float32, one a column; what does not exceed its own is background. None names all.
        presence: [k] float32, the `presence` that one region of a column must exceed, or the column is not
            there at all and all its regions are background. None asks for none.
    """

    def __init__(
        self,
        directions: Float32,
        owners: Int32,
        thresholds: Float32 | None = None,
        presence: Float32 | None = None,
    ) -> None:
        order = np.argsort(owners, kind="stable")
        self._directions = np.ascontiguousarray(directions[order])
        self._present, starts, sizes = np.unique(owners[order], return_index=True, return_counts=True)
        # Of each column the place of its first direction; then those of second ones and whose they are, ...
        self._places = [
            (column, starts[column] + i)
            for i in range(int(sizes.max()))
            if len(column := np.flatnonzero(sizes > i))
        ]
        self._count = int(owners.max()) + 1 if thresholds is None else len(thresholds)
        self._thresholds = np.zeros(self._count, np.float32) if thresholds is None else thresholds
        self._floor = _NEVER if thresholds is None else 0.0
        self._limits = presence
        self._own = {int(c): np.ascontiguousarray(directions[owners == c]) for c in self._present if c > 0}

    def margins(self, rows: Float32) -> Float32:
        """[m, k] float32, of each column the largest cosine to its directions, less its threshold.

        Args:
            rows: [m, d] float32, less what all have in common.
        Raises:
            ValueError: they are not finite.
        """
        found = kernels.assign(rows, self._directions, temperature=_SOFT)
        assert found.assignment is not None
        # The kernel's shares are exp(cosine / T) up to a factor of the row, which the largest cosine tells.
        best = found.assignment.take(self._places[0][1], axis=1)
        for columns, places in self._places[1:]:
            best[:, columns] = np.maximum(best[:, columns], found.assignment[:, places])
        cosines = np.log(best, out=best)
        cosines *= np.float32(_SOFT)
        cosines += (found.similarity - cosines.max(axis=1))[:, None]
        if len(self._present) < self._count:
            all_of_them = np.full((len(rows), self._count), 2 * _NEVER, np.float32)
            all_of_them[:, self._present] = cosines
            cosines = all_of_them
        cosines -= self._thresholds
        np.maximum(cosines[:, 0], self._floor, out=cosines[:, 0])
        margins: Float32 = cosines
        return margins

    def __call__(
        self, features: Float32, mean: Float32, inside: npt.NDArray[np.bool_], grid_hw: tuple[int, int]
    ) -> Int32:
        """[n] int32, the column of each patch: of its region, or of one that is near; 0 where none is.

        Args:
            features: [n, d] float32.
            mean: [d] float32, the mean of unit features.
            inside: [n] bool, the patches that regions are made of.
        Raises:
            ValueError: a feature of a region is not finite.
        """
        ids, count = kernels.connected_components(inside.astype(np.int32).reshape(grid_hw))
        if not count:
            return np.zeros(len(inside), np.int32)
        members = ids.ravel()
        alike = self.margins(region_means(features, members, count, mean))
        found = alike.argmax(axis=1).astype(np.int32)
        if self._limits is not None:
            found = self._there(found, features, members, mean)
        named = np.append(np.int32(_UNDECIDED), found)[ids]
        for _ in range(_DILATIONS):
            named = np.where(named == _UNDECIDED, _largest_neighbour(named), named)
        columns: Int32 = np.maximum(named.ravel(), 0).astype(np.int32)
        return columns

    def _there(self, found: Int32, features: Float32, members: Int32, mean: Float32) -> Int32:
        """[r] int32, the columns `found` of regions, those that are not there being background."""
        assert self._limits is not None
        there: Int32 = found.copy()
        for column in np.unique(found[found > 0]):
            if self._limits[column] <= ANYWHERE:
                continue
            numbers = 1 + np.flatnonzero(found == column)
            each = (features[members == number] for number in numbers)
            centred = (unit(rows) - mean if mean.any() else rows for rows in each)
            most = max(presence(rows, self._own[int(column)]) for rows in centred)
            if most <= self._limits[column]:
                there[found == column] = 0
        return there


def presence(rows: Float32, directions: Float32) -> float:
    """How much a column is in a region: the mean cosine of the three tenths of its patches that are closest.

    A region's mean tells what all of it is; this, whether some of it is the thing, whatever it touches.

    Args:
        rows: [m, d] float32, of the m >= 1 patches of a region, less what all have in common.
        directions: [p, d] float32, of the column; a patch's cosine is the largest to any.
    Examples:
        >>> from patchcut.heads.naming import presence
        >>> round(presence(np.float32([[3, 4], [4, 3], [0, 1], [0, 1]]), np.float32([[1, 0]])), 3)
        0.7
    """
    return mean_of_closest(kernels.assign(np.ascontiguousarray(rows), directions).similarity)


def mean_of_closest(cosines: Float32) -> float:
    """The mean of the largest three tenths, rounded up, of m >= 1 cosines.

    Examples:
        >>> from patchcut.heads.naming import mean_of_closest
        >>> round(mean_of_closest(np.float32([0.1, 0.5, 0.3, 0.2])), 3)
        0.4
    """
    count = math.ceil(_CLOSEST * len(cosines))
    return float(np.partition(cosines, -count)[-count:].mean())


def region_means(features: Float32, members: Int32, count: int, mean: Float32) -> Float32:
    """[count, s] float32, unit means of the features of each region, less what all have in common.

    Args:
        features: [n, s] float32.
        members: [n] int32, i + 1 where region i is.
        mean: [s] float32, the mean of unit features.
    Raises:
        ValueError: a feature of a region is not finite.
    """
    length = np.sqrt(np.einsum("nd,nd->n", features, features))
    weights = (members[None] == np.arange(1, count + 1)[:, None]) / np.maximum(length, 1e-20)
    sizes = np.bincount(members, minlength=count + 1)[1:, None]
    sums = np.einsum("rn,nd->rd", weights.astype(np.float32), features) - sizes.astype(np.float32) * mean
    if not np.isfinite(sums).all():
        raise ValueError("features must be finite, got NaN or infinity")
    return unit(sums)


def unit(rows: Float32) -> Float32:
    """Rows of length 1; one of zeros stays."""
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    made: Float32 = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return made


def _largest_neighbour(named: Int32) -> Int32:
    """[h, w] int32, the largest of each patch and the eight around it."""
    h, w = named.shape
    padded = np.pad(named, 1, constant_values=_UNDECIDED)
    largest: Int32 = np.max([padded[y : y + h, x : x + w] for y in range(3) for x in range(3)], axis=0)
    return largest
