"""Features of photos in files: what is asked of whoever makes them, and how this machine does."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt
from patchcut.bundle import Bundle
from patchcut.errors import SourceError
from patchcut.features import to_host
from patchcut.sources.photos import read_frame
from patchcut.stages import Extractor


@dataclass(frozen=True, eq=False)
class PhotoFeatures:
    """What was made of a photo.

    Attributes:
        name: the photo's.
        content: sha256 of its file.
        sets: [n, d] of each feature set, by name, or [1, d] of one that has a row an image.
        problem: why it cannot be read, in a line; then there is neither content nor a set.
    """

    name: str
    content: str = ""
    sets: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    problem: str = ""


class Extraction(Protocol):
    """Where the backbone looks at photos."""

    def run(
        self, bundle: Bundle, extractor: Extractor, photos: Mapping[str, Path], sets: Sequence[str]
    ) -> Generator[PhotoFeatures, None, None]:
        """Each photo's features, in order; the arrays may be overwritten by the next photo's.

        Args:
            bundle: the one that the extractor is from.
            extractor: makes them, or tells how they are made.
            photos: files by name.
            sets: names of the feature sets that are wanted.
        Raises:
            PatchcutError: the backbone failed.
        """
        ...


class LocalExtraction:
    """One photo after the other, by the extractor itself."""

    def run(
        self, bundle: Bundle, extractor: Extractor, photos: Mapping[str, Path], sets: Sequence[str]
    ) -> Generator[PhotoFeatures, None, None]:
        """As in `Extraction`."""
        for name, path in photos.items():
            yield extract_photo(extractor, name, path, sets)


def extract_photo(extractor: Extractor, name: str, path: Path, sets: Sequence[str]) -> PhotoFeatures:
    """A photo's features; the arrays are the extractor's own.

    Raises:
        EngineError: the backbone failed.
    """
    try:
        frame = read_frame(path, name)
    except SourceError as error:
        return PhotoFeatures(name, problem=str(error))
    made = extractor([frame])
    return PhotoFeatures(name, file_sha256(path), {one: to_host(made[one])[0] for one in sets})


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
