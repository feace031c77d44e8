"""Features of single images on disk, by the content of their files: an image is looked at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from patchcut.bundle import Bundle
from patchcut.bundle.tensors import dump_tensors, load_tensors
from patchcut.errors import OutputError
from patchcut.output.whole_files import check_writable, write_whole
from patchcut.stages import Extractor

from patchcut_export.training.extraction import extract_photo, file_sha256

Float16 = npt.NDArray[np.float16]
Advance = Callable[[int, int], None]


class ImageFeatures:
    """Feature sets of images, a file for each below a folder of its own for each backbone.

    Args:
        folder: where they are kept; made if missing.
        bundle: the one that the extractor is from.
        extractor: makes the features.
        sets: names of the feature sets that are kept.
    Raises:
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, bundle: Bundle, extractor: Extractor, sets: Sequence[str]) -> None:
        self._bundle, self._extractor, self._sets = bundle, extractor, tuple(sets)
        self._folder = folder / self._key()
        check_writable(self._folder)

    def take(
        self, paths: Sequence[Path], advance: Advance, say: Callable[[str], None]
    ) -> tuple[list[int], dict[str, Float16]]:
        """Which of the images can be read, and of those each set, [m, n, d] float16.

        Args:
            paths: image files.
            advance: called after each image with (done, total).
            say: is given a line about each file that cannot be read.
        Raises:
            EngineError: the backbone failed.
            OutputError: the features cannot be written, or are damaged.
        """
        kept: list[int] = []
        rows: dict[str, list[Float16]] = {name: [] for name in self._sets}
        for i, path in enumerate(paths):
            try:
                made = self._one(path)
            except OSError as error:
                made = str(error)
            if isinstance(made, str):
                say(f"skipped {made}")
                continue
            kept.append(i)
            for name, row in made.items():
                rows[name].append(row)
            advance(i + 1, len(paths))
        return kept, {name: np.stack(each) for name, each in rows.items() if each}

    def _one(self, path: Path) -> dict[str, Float16] | str:
        """The sets of one image, or why it cannot be read."""
        file = self._folder / f"{file_sha256(path)}.safetensors"
        if file.is_file():
            try:
                known = load_tensors(file.read_bytes())
                return {name: known[name].astype(np.float16, copy=False) for name in self._sets}
            except (ValueError, KeyError) as error:
                raise OutputError(
                    "features", f"{file} is damaged: {error}", f"delete {file.parent}"
                ) from error
        made = extract_photo(self._extractor, path.name, path, self._sets)
        if made.problem:
            return made.problem
        sets = {name: np.asarray(row, np.float16) for name, row in made.sets.items()}
        write_whole(file, dump_tensors(sets))
        return sets

    def _key(self) -> str:
        """What the features depend on, as a name of a folder."""
        files, backbone = self._bundle.spec.files, self._extractor.backbone
        depends = {
            "graph": files[self._extractor.graph.file].sha256,
            "weights": files[backbone.weights].sha256 if backbone.weights else "",
            "fit": [backbone.mean, backbone.std, backbone.fit],
            "sets": {name: backbone.features[name].output for name in self._sets},
        }
        return hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]
