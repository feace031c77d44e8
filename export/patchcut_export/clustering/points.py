"""The rows of a collection that are clustered, read a piece at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from patchcut.errors import OptionError

from patchcut_export.errors import ExportError
from patchcut_export.memory_maps import give_back, is_mapped

Array = npt.NDArray[Any]
Int64 = npt.NDArray[np.int64]

_DIGEST_ROWS = 16384
# For each row that is looked at the system maps 64 KB around it: rows of a memory map far from one another
# take 32 MB.
_SCATTERED_ROWS = 512


class Points:
    """Rows of an array or a memory map, of which no more are in memory than are read at a time.

    Args:
        features: [N, n, d] or [rows, d] float16 or float32, contiguous, such as `CachedFeatures.features`.
        selected: [N, n] or [rows] bool, or numbers of rows, rising; None for all. It takes 8 bytes a row.
        centre: [d] float32, which is taken off every row; None for none.
    Raises:
        OptionError: "[features] must be [N, n, d] or [rows, d], got shape (5,)", and the like for the others.
        ExportError: no row is selected.
    Examples:
        >>> features = np.zeros((10, 4, 3), np.float16)
        >>> features[5] = 1
        >>> points = Points(features, selected=features.any(axis=2), centre=np.float32([0, 0, 1]))
        >>> points.count, points.dim, points.read(0, 1).tolist()
        (4, 3, [[1.0, 1.0, 0.0]])
    """

    def __init__(
        self, features: Array, *, selected: Array | None = None, centre: Array | None = None
    ) -> None:
        self._features = _checked_features(features)
        self._table = self._features.reshape(-1, self._features.shape[-1])
        self._rows = None if selected is None else _row_numbers(self._features, selected)
        self._centre = None if centre is None else _checked_centre(centre, self.dim)
        if self.count == 0:
            raise ExportError("points", "no row is selected", "select at least one")

    @property
    def count(self) -> int:
        """Number of points."""
        return len(self._table) if self._rows is None else len(self._rows)

    @property
    def dim(self) -> int:
        """Numbers of a point."""
        return int(self._table.shape[1])

    def read(self, begin: int, end: int) -> Array:
        """[end - begin, d] points, float32 where there is a centre, else of the features' type."""
        if self._rows is not None:
            return self._rows_of(self._rows[begin:end])
        return self._moved(self._copied(self._table[begin:end]))

    def take(self, numbers: Int64) -> Array:
        """[m, d] as `read`, of points that are named by their numbers among all `count`."""
        return self._rows_of(numbers if self._rows is None else self._rows[numbers])

    def name(self, number: int) -> str:
        """Where in the features a point is, for a message."""
        row = number if self._rows is None else int(self._rows[number])
        at = np.unravel_index(row, self._features.shape[:-1])
        return f"features[{', '.join(map(str, at))}]"

    def sha256(self, advance: Callable[[int, int], None]) -> str:
        """Of all points in their order, whatever they were selected from.

        Args:
            advance: called with (done, total) as points are read.
        """
        digest = hashlib.sha256(f"{self.count} {self.dim} {self.read(0, 1).dtype}".encode())
        for begin in range(0, self.count, _DIGEST_ROWS):
            end = min(begin + _DIGEST_ROWS, self.count)
            digest.update(np.ascontiguousarray(self.read(begin, end)).data)
            advance(end, self.count)
        return digest.hexdigest()

    def packed(self) -> tuple[Any, ...]:
        """What `unpack` makes them from in another process: of a memory map the name of its file alone."""
        features = _MappedFile.of(self._features) if is_mapped(self._features) else self._features
        return type(self), features, self._rows, self._centre

    def __reduce__(self) -> tuple[Any, ...]:
        return unpack, self.packed()

    def _rows_of(self, rows: Int64) -> Array:
        together = len(rows) and rows[-1] - rows[0] + 1 == len(rows) and bool((np.diff(rows) == 1).all())
        if together:
            return self._moved(self._copied(self._table[int(rows[0]) : int(rows[-1]) + 1]))
        if not is_mapped(self._table):
            return self._moved(self._table[rows])
        copied = np.empty((len(rows), self.dim), self._table.dtype)
        for begin in range(0, len(rows), _SCATTERED_ROWS):
            part = slice(begin, begin + _SCATTERED_ROWS)
            copied[part] = self._table[rows[part]]
            give_back(self._table)
        return self._moved(copied)

    def _copied(self, part: Array) -> Array:
        """A part of the table, a copy where that is a memory map, whose pages are given back."""
        if not is_mapped(self._table):
            return np.asarray(part)
        copied = np.array(part)
        give_back(self._table)
        return copied

    def _moved(self, rows: Array) -> Array:
        return rows if self._centre is None else np.subtract(rows, self._centre, dtype=np.float32)


def unpack(
    kind: type[Points], features: Array | _MappedFile, rows: Int64 | None, centre: Array | None
) -> Points:
    """The points that were `packed`.

    Raises:
        ExportError: "[points] /data/features.npy cannot be read here: ...; put it where every ...".
    """
    array = features.open() if isinstance(features, _MappedFile) else features
    return kind(array, selected=rows, centre=centre)


class _MappedFile:
    """What a memory map is of."""

    def __init__(self, path: Path, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self.path = path
        self.offset = offset
        self.dtype = dtype
        self.shape = shape

    @classmethod
    def of(cls, array: Array) -> _MappedFile:
        root = array
        while isinstance(root.base, np.memmap):
            root = root.base
        if not isinstance(root, np.memmap) or root.filename is None:
            raise ExportError("points", "a memory map without a file's name", "open it with numpy.load")
        offset = root.offset + array.ctypes.data - root.ctypes.data
        return cls(Path(root.filename).resolve(), offset, array.dtype, array.shape)

    def open(self) -> Array:
        try:
            return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        except (OSError, ValueError) as error:
            remedy = "put it where every machine has it under that path"
            raise ExportError("points", f"{self.path} cannot be read here: {error}", remedy) from error


def _checked_features(features: Array) -> Array:
    if not isinstance(features, np.ndarray) or features.dtype not in (np.float16, np.float32):
        came = features.dtype if isinstance(features, np.ndarray) else type(features).__name__
        raise OptionError("features", f"must be an array of float16 or float32, got {came}")
    if features.ndim not in (2, 3) or features.shape[-1] == 0:
        raise OptionError("features", f"must be [N, n, d] or [rows, d], got shape {features.shape}")
    if not features.flags.c_contiguous:
        raise OptionError("features", f"must be contiguous, got strides {features.strides}")
    return features


def _row_numbers(features: Array, selected: Array) -> Int64:
    rows, shape = np.asarray(selected), features.shape[:-1]
    if rows.dtype == bool:
        if rows.shape not in (shape, (features[..., 0].size,)):
            raise OptionError("selected", f"must be {list(shape)}, got shape {rows.shape}")
        return np.flatnonzero(rows).astype(np.int64, copy=False)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        what = "must be bool, or numbers of rows in one dimension"
        raise OptionError("selected", f"{what}, got {rows.dtype} {rows.shape}")
    rows = rows.astype(np.int64, copy=False)
    last = features[..., 0].size - 1
    if len(rows) and (rows[0] < 0 or rows[-1] > last or bool((rows[1:] <= rows[:-1]).any())):
        raise OptionError("selected", f"must rise, from 0 to {last} at most")
    return rows


def _checked_centre(centre: Array, dim: int) -> npt.NDArray[np.float32]:
    checked = np.asarray(centre)
    if checked.shape != (dim,) or checked.dtype != np.float32 or not np.isfinite(checked).all():
        raise OptionError(
            "centre", f"must be [{dim}] float32 and finite, got {checked.dtype} {checked.shape}"
        )
    return checked
