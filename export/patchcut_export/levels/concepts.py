"""What kinds of regions are called by concepts: those of another bundle's head, or vectors of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from patchcut.bundle import Bundle, FeatureSetSpec, open_bundle
from patchcut.heads.naming import RegionNamer, unit
from patchcut.heads.no_concepts import CONCEPTS
from patchcut.heads.prototypes import Prototypes, read_prototypes

from patchcut_export.concepts.vectors import read_vectors
from patchcut_export.errors import ExportError

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class KnownConcepts:
    """Concepts that kinds may be called by.

    Attributes:
        labels: background, and their names.
        prototypes: of these columns.
    """

    labels: tuple[str, ...]
    prototypes: Prototypes

    @classmethod
    def read(cls, file: Path, bundle: Bundle, features: str) -> KnownConcepts:
        """The concepts of a bundle, or of a safetensors file, as `patchcut export concepts` takes it.

        Args:
            file: one whose name ends in .safetensors has vectors; any other is a bundle.
            bundle: whose first backbone makes the features that the levels are of.
            features: its feature set for names.
        Raises:
            ExportError: the file has no concepts, or they are of another backbone or of other features.
            BundleError, OptionError: it cannot be read, or is damaged.
        """
        if file.suffix == ".safetensors":
            return cls._of_vectors(file, bundle, features)
        backbone = bundle.spec.backbone
        with open_bundle(file) as other:
            head = next((head for head in other.spec.heads if head.name == CONCEPTS), None)
            if head is None:
                remedy = "make them with `patchcut export concept`"
                raise ExportError("concepts", f"{file} has no head {CONCEPTS}", remedy)
            own = other.spec.backbones[head.backbone]
            if own.source_sha256 != backbone.source_sha256:
                what = f"{file} has concepts of the backbone {own.source_sha256}"
                remedy = (
                    f"make them with --backbone {bundle.path}, whose backbone is {backbone.source_sha256}"
                )
                raise ExportError("concepts", what, remedy)
            theirs, ours = own.features[head.features[0]], backbone.features[features]
            if _meaning(theirs) != _meaning(ours):
                what = f"{file} has concepts of other features than {features}: its {head.features[0]}"
                raise ExportError("concepts", what, "name the same features with --features")
            return cls(head.labels, read_prototypes(other, head))

    @classmethod
    def _of_vectors(cls, file: Path, bundle: Bundle, features: str) -> KnownConcepts:
        vectors = read_vectors(file, bundle)
        if vectors.features != features:
            what = f"{file} has vectors of {vectors.features}, kinds are told apart by {features}"
            raise ExportError("concepts", what, "name the same features with --features")
        counts = [len(one) for one in vectors.named.values()]
        owners = np.repeat(np.arange(1, len(counts) + 1), counts).astype(np.int32)
        rows, zeros = (
            unit(np.concatenate(list(vectors.named.values()))),
            np.zeros(len(counts) + 1, np.float32),
        )
        return cls(("background", *vectors.named), Prototypes(rows, vectors.mean, owners, zeros))

    def call(self, means: Float32, kinds: Int32, numbered: Sequence[str]) -> list[str]:
        """What each of C kinds is called: as the concept that its regions resemble, or its number.

        A kind's margin to a concept is the median of its regions' cosines to the concept less the concept's
        threshold; the largest that is above 0, and above that of the background's vectors, names it. So half
        of the regions of a kind at least are above the threshold, which was made for single regions.
        Several kinds of one concept are called "cat", "cat 2", that with the largest margin first.

        Args:
            means: [R, s] float32, unit, of regions as concepts see them: of unit features less their mean.
            kinds: [R] int32, the kind of each region.
            numbered: what those are called that no concept names.
        Examples:
            >>> owners, thresholds = np.int32([1]), np.float32([0, 0.5])
            >>> mug = Prototypes(np.float32([[1, 0]]), np.zeros(2, np.float32), owners, thresholds)
            >>> concepts = KnownConcepts(("background", "mug"), mug)
            >>> concepts.call(np.eye(2, dtype=np.float32), np.int32([0, 1]), ["thing 1", "thing 2"])
            ['mug', 'thing 2']
        """
        known = self.prototypes
        margins = RegionNamer(unit(known.vectors), known.owners, known.thresholds).margins(means)
        best, above = np.zeros(len(numbered), np.int64), np.zeros(len(numbered))
        for kind in np.unique(kinds):
            medians = np.median(margins[kinds == kind], axis=0)
            best[kind] = medians.argmax()
            above[kind] = medians[best[kind]]
        found = {
            int(kind): self.labels[best[kind]]
            for kind in np.argsort(-above, kind="stable")
            if best[kind] > 0 and above[kind] > 0
        }
        return called(numbered, found)


def called(numbered: Sequence[str], found: dict[int, str]) -> list[str]:
    """The names of kinds: those found, in their order, the second of a name with a 2; else the number.

    Examples:
        >>> called(["thing 1", "thing 2", "thing 3"], {2: "cat", 0: "cat"})
        ['cat 2', 'thing 2', 'cat']
    """
    names = list(numbered)
    taken = {name for kind, name in enumerate(numbered) if kind not in found}
    for kind, name in found.items():
        tries = (name if n == 1 else f"{name} {n}" for n in range(1, len(numbered) + len(taken) + 2))
        names[kind] = next(one for one in tries if one not in taken)
        taken.add(names[kind])
    return names


def _meaning(features: FeatureSetSpec) -> dict[str, Any]:
    """What a feature set is, whatever its output is called."""
    return features.model_dump(exclude={"output"})
