"""Kinds of things: regions by what they look like, and what each kind is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from patchcut.errors import OptionError

from patchcut_export.errors import ExportError
from patchcut_export.levels.choosing import cluster_rows
from patchcut_export.levels.concepts import KnownConcepts, called
from patchcut_export.levels.plan import LevelsPlan, LevelsRequest
from patchcut_export.levels.regions import FoundRegions
from patchcut_export.levels.sheets import write_name_sheet
from patchcut_export.progress import StepBar

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

NAME_COUNTS = (5, 10, 15, 20, 25, 30, 40)


class Naming:
    """Sorts regions into kinds, names them, and draws them.

    Args:
        request: the names that are given, or where the examples are.
        plan: how many kinds.
        bar: is told.
        regions_of: finds the regions in a folder of examples.
        concepts: that kinds are called by, or None.
    """

    def __init__(
        self,
        request: LevelsRequest,
        plan: LevelsPlan,
        bar: StepBar,
        regions_of: Callable[[Path], FoundRegions],
        concepts: KnownConcepts | None = None,
    ) -> None:
        self._request = request
        self._plan = plan
        self._bar = bar
        self._regions_of = regions_of
        self._concepts = concepts

    def run(self, found: FoundRegions, images: Sequence[str]) -> tuple[Float32, tuple[str, ...]]:
        """The centres [C, s] of the kinds, and the labels: background, and the C names.

        Args:
            found: the regions.
            images: names of the images that they are in.
        Raises:
            OptionError: there are fewer regions than kinds, or as many labels as there are no kinds.
            ExportError: the folder of examples has no folders of images.
        """
        centres, own = cluster_rows(
            found.means,
            self._count(),
            NAME_COUNTS,
            seed=self._plan.seed,
            say=self._bar.say,
            what="names",
            of="regions that were found",
        )
        labels = ("background", *self._names(centres, found, own))
        request = self._request
        sheet = request.work / "names.jpg"
        write_name_sheet(sheet, request.images, images, found, own, centres, labels[1:])
        self._bar.say(f"drew {sheet}; --labels calls the names otherwise")
        return centres, labels

    def _count(self) -> int | None:
        """C as it was asked for, by a number or by labels.

        Raises:
            OptionError: both, and they differ.
        """
        labels, count = self._request.labels, self._plan.names
        if labels is not None and count is not None and len(labels) != count:
            raise OptionError("labels", f"must be {count}, as --names says, got {len(labels)}")
        return count if labels is None else len(labels)

    def _names(self, centres: Float32, found: FoundRegions, own: Int32) -> Sequence[str]:
        """The C names: given, or of concepts, or of the examples that are nearest, or numbers."""
        if self._request.labels is not None:
            return self._request.labels
        numbered = [f"thing {c + 1}" for c in range(len(centres))]
        if self._concepts is not None and found.as_concepts is not None:
            names = self._concepts.call(found.as_concepts, own, numbered)
            count = sum(name != number for name, number in zip(names, numbered, strict=True))
            self._bar.say(f"{count} of {len(names)} kinds are called by concepts: {', '.join(names)}")
            return names
        if self._request.examples is None:
            return numbered
        return self._names_of_examples(self._request.examples, centres, numbered)

    def _names_of_examples(self, folder: Path, centres: Float32, numbered: Sequence[str]) -> list[str]:
        """The C names by examples: each centre is called as the examples most of which are nearest to it."""
        folders = sorted(one for one in folder.iterdir() if one.is_dir()) if folder.is_dir() else []
        if not folders:
            raise ExportError("examples", f"{folder} has no folder for each name", "make DIR/NAME/*.jpg")
        shares = np.zeros((len(folders), len(centres)))
        for row, one in enumerate(folders):
            means = self._regions_of(one).means
            if len(means):
                nearest = (means @ centres.T).argmax(axis=1)
                shares[row] = np.bincount(nearest, minlength=len(centres)) / len(nearest)
        best = shares.argmax(axis=0)
        order = [int(c) for c in np.argsort(-shares.max(axis=0), kind="stable")]
        return called(numbered, {c: folders[best[c]].name for c in order if shares[best[c], c] > 0})
