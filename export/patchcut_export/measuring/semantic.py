"""Semantic segmentation without labels: a head's columns are matched with classes over a whole set."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels
from patchcut.errors import OptionError

from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets import Classes, plain_name
from patchcut_export.measuring.datasets.folders import first_names
from patchcut_export.measuring.metrics import (
    Contingency,
    best_matching,
    class_ious,
    contingency,
    pair_ious,
)
from patchcut_export.measuring.truth import Truth

MATCHES = ("hungarian", "names")
# Draws the labels of "random labels", together with the image's name.
_SEED = 0

Counts = npt.NDArray[np.int64]

_OF_CLASSES = "mean IoU of the classes that are true or found, over the set's known pixels"
_OF_PIXELS = "share of the set's known pixels whose class is right"
_IF = {
    "many-to-one": "if each column stood for the class that most of its pixels have",
    "oracle labels": "if each region had the class that most of its pixels have",
    "random labels": "if each region had one of as many labels as there are classes, drawn by a seed",
}
SEMANTIC_METRICS = {
    "mIoU": _OF_CLASSES,
    "mIoU without background": f"{_OF_CLASSES}, and without class 0",
    "pixel accuracy (set)": _OF_PIXELS,
    **{
        f"{title}, {kind}": f"{what}, {condition}"
        for kind, condition in _IF.items()
        for title, what in (("mIoU", _OF_CLASSES), ("pixel accuracy", _OF_PIXELS))
    },
}


@dataclass(frozen=True, eq=False)
class LabelCounts:
    """How many known pixels of one image each label has of each class, where it has any.

    Attributes:
        names: of the columns.
        columns: [p, 3] int64, (column, class, pixels).
        oracle: [p, 3] int64, (class that most of a region's pixels have, class, pixels).
        random: [p, 3] int64, (label drawn for a region, class, pixels).
    Regions are the 8-connected pieces of the label map, those of column 0 included.
    """

    names: tuple[str, ...]
    columns: Counts
    oracle: Counts
    random: Counts


class Labelled(Protocol):
    """A label map [H, W] int32, and the names of its labels; a `Result` is one."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def label_map(self) -> npt.NDArray[np.int32]: ...


def count_labels(result: Labelled, truth: Truth, count: int, name: str) -> LabelCounts:
    """What one image adds to the tables of its set.

    Args:
        truth: with classes.
        count: of the classes.
        name: of the image; draws its random labels.
    """
    assert truth.classes is not None
    known, classes = truth.known, truth.classes[truth.known]
    ids, regions = kernels.connected_components(result.label_map + 1)
    of_regions = np.zeros((regions + 1, count), np.int64)
    found = contingency(ids[known], classes)
    of_regions[: found.shape[0], : found.shape[1]] = found
    drawn = np.random.default_rng([_SEED, zlib.crc32(name.encode())]).integers(count, size=regions + 1)
    return LabelCounts(
        result.labels,
        _occupied(contingency(result.label_map[known], classes)),
        _occupied(_merged(of_regions, of_regions.argmax(axis=1))),
        _occupied(_merged(of_regions, drawn)),
    )


def _merged(table: Contingency, label_of_row: npt.NDArray[np.int64]) -> Contingency:
    """[c, c]: the sum of the rows [r, c] that have the same label."""
    merged = np.zeros((table.shape[1], table.shape[1]), np.int64)
    np.add.at(merged, label_of_row, table)
    return merged


def _occupied(table: Contingency) -> Counts:
    """[p, 3]: row, column and value where a table is not 0; a few numbers instead of all, for each image."""
    rows, columns = np.nonzero(table)
    return np.stack([rows, columns, table[rows, columns]], axis=1).astype(np.int64)


def _add(table: Contingency, counts: Counts) -> None:
    np.add.at(table, (counts[:, 0], counts[:, 1]), counts[:, 2])


@dataclass(frozen=True, eq=False)
class Matching:
    """What each column of a head stands for.

    Attributes:
        columns: names of the k columns.
        class_of: [k] int64, its class; c, the number of classes, where it stands for none.
    """

    columns: tuple[str, ...]
    class_of: npt.NDArray[np.int64]

    def confusion(self, table: Contingency) -> Contingency:
        """[c + 1, c] pixels of each class that were taken for each; the last row was taken for none.

        Args:
            table: [k, c] pixels of each class in each column.
        """
        confusion = np.zeros((table.shape[1] + 1, table.shape[1]), np.int64)
        np.add.at(confusion, self.class_of, table)
        return confusion

    def accuracy(self, counts: LabelCounts) -> float | None:
        """Share of the known pixels of one image whose class is right; None without any."""
        of_column = dict(zip(self.columns, self.class_of.tolist(), strict=True))
        classes = np.array([of_column[name] for name in counts.names])[counts.columns[:, 0]]
        pixels = counts.columns[:, 2]
        right = pixels[classes == counts.columns[:, 1]].sum()
        return float(right / pixels.sum()) if pixels.size else None


@dataclass(frozen=True)
class ClassScore:
    """The numbers of a class.

    Attributes:
        iou: over all known pixels of the set; None where it is neither true nor found.
        pixels: how many of them are of this class.
        columns: names of those that stand for it.
    """

    iou: float | None
    pixels: int
    columns: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SemanticScores:
    """The numbers of a set.

    Attributes:
        metrics: some of `SEMANTIC_METRICS`.
        classes: of each class, by its name.
        matching: of the columns.
        confusion: [c + 1, c] as in `Matching.confusion`.
    """

    metrics: dict[str, float]
    classes: dict[str, ClassScore]
    matching: Matching
    confusion: Contingency


def choose_match(match: str | None, columns: Sequence[str], classes: Classes, dataset: str) -> str:
    """Which of `MATCHES` is used; None chooses names where every column's name is one of a class.

    Args:
        columns: the names that a head's columns may have; column 0, background, is not asked for.
    Raises:
        OptionError: no name is that of a class, or there are fewer columns than classes.
    """
    known = classes.numbers()
    named = [plain_name(column) in known for column in columns]
    if match is None:
        match = "names" if any(named) and all(named[1:]) else "hungarian"
    if match == "names" and not any(named[1:]):
        what = f"names needs columns with names of classes, got {first_names(columns)}"
        raise OptionError("match", what, "leave it out, or use a head whose columns have names")
    if match == "hungarian" and len(columns) < len(classes.names):
        what = f"has {len(columns)} columns, expected at least {len(classes.names)}, the classes of {dataset}"
        remedy = f"choose --head kmeans:k={len(classes.names)} or a bundle with so many columns"
        raise OptionError("head", what, remedy)
    return match


def state_match(match: str, columns: Sequence[str], classes: Classes) -> str:
    """What the protocol says of it."""
    if match == "hungarian":
        aim = "the sum of the IoUs is largest" if classes.by_iou else "most pixels are right"
        spare = len(columns) - len(classes.names)
        left = f"; {spare} stand for none and are never right" if spare else ""
        return f"hungarian: columns and classes one to one over the whole set, so that {aim}{left}"
    numbers = classes.numbers()
    strange = [name for name in columns if plain_name(name) not in numbers]
    own = {numbers.get(plain_name(name)) for name in columns}
    absent = [name for number, name in enumerate(classes.names) if number not in own]
    text = "names: a column is the class of its name"
    text += f"; no class: {first_names(strange)}" if strange else ""
    return text + (f"; no column: {first_names(absent)}" if absent else "")


def measure_labels(
    images: Sequence[LabelCounts], columns: Sequence[str], classes: Classes, match: str
) -> SemanticScores:
    """The numbers of a set from the counts of its images.

    Args:
        columns: the names that columns may have; those of an image that are not among them come after them.
        match: one of `MATCHES`.
    Raises:
        DatasetError: no pixel is known.
    """
    count = len(classes.names)
    numbers = {name: number for number, name in enumerate(columns)}
    for name in (name for image in images for name in image.names):
        numbers.setdefault(name, len(numbers))
    table = _column_table(images, numbers, count)
    if not table.any():
        raise DatasetError("no mask has a pixel whose class is known", "check them: 255 is not known")
    matching = Matching(tuple(numbers), _class_of_columns(table, tuple(numbers), classes, match))
    confusion = matching.confusion(table)
    metrics = _metrics(confusion, classes.has_background)
    if match == "hungarian":
        many = Matching(matching.columns, table.argmax(axis=1)).confusion(table)
        metrics |= _renamed(_metrics(many), "many-to-one")
    oracle, random = (np.zeros((count, count), np.int64) for _ in range(2))
    for image in images:
        _add(oracle, image.oracle)
        _add(random, image.random)
    if match == "hungarian":
        random = _hungarian(random, classes.by_iou).confusion(random)
    metrics |= _renamed(_metrics(oracle), "oracle labels") | _renamed(_metrics(random), "random labels")
    return SemanticScores(metrics, _of_classes(confusion, matching, classes), matching, confusion)


def _column_table(images: Sequence[LabelCounts], numbers: Mapping[str, int], count: int) -> Contingency:
    """[k, c]: columns of one name are one, whatever number they have in an image."""
    table = np.zeros((len(numbers), count), np.int64)
    for image in images:
        counts = image.columns.copy()
        counts[:, 0] = np.array([numbers[name] for name in image.names])[counts[:, 0]]
        _add(table, counts)
    return table


def _class_of_columns(
    table: Contingency, columns: tuple[str, ...], classes: Classes, match: str
) -> npt.NDArray[np.int64]:
    if match == "hungarian":
        return _hungarian(table, classes.by_iou).class_of
    numbers = classes.numbers()
    return np.array([numbers.get(plain_name(name), len(classes.names)) for name in columns], np.int64)


def _hungarian(table: Contingency, by_iou: bool) -> Matching:
    """One column for each class, so that most pixels are right, or so that the sum of the IoUs is largest."""
    class_of = np.full(table.shape[0], table.shape[1])
    for column, number in best_matching(pair_ious(table) if by_iou else table.astype(np.float64)):
        class_of[column] = number
    return Matching(tuple(map(str, range(len(table)))), class_of)


def _metrics(confusion: Contingency, has_background: bool = False) -> dict[str, float]:
    """mIoU and accuracy of [c or c + 1, c] pixels of each class that were taken for each."""
    ious = class_ious(confusion)
    metrics = {"mIoU": float(np.nanmean(ious))}
    if has_background and not np.isnan(ious[1:]).all():
        metrics["mIoU without background"] = float(np.nanmean(ious[1:]))
    metrics["pixel accuracy (set)"] = float(np.trace(confusion) / confusion.sum())
    return metrics


def _renamed(metrics: Mapping[str, float], kind: str) -> dict[str, float]:
    return {f"{title.removesuffix(' (set)')}, {kind}": value for title, value in metrics.items()}


def _of_classes(confusion: Contingency, matching: Matching, classes: Classes) -> dict[str, ClassScore]:
    ious, pixels = class_ious(confusion).tolist(), confusion.sum(axis=0).tolist()
    columns = [np.flatnonzero(matching.class_of == number) for number in range(len(classes.names))]
    return {
        name: ClassScore(
            None if math.isnan(ious[number]) else ious[number],
            pixels[number],
            tuple(matching.columns[column] for column in columns[number]),
        )
        for number, name in enumerate(classes.names)
    }
