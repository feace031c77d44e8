"""Features of a folder of images on disk: made once, resumed when interrupted, read as a memory map."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from patchcut.bundle import Bundle, FeatureSetSpec
from patchcut.checks import check_choice
from patchcut.errors import OutputError, SourceError
from patchcut.output.whole_files import check_writable, output_error, write_whole
from patchcut.sources import open_source
from patchcut.sources.photos import PHOTO_SUFFIXES
from patchcut.sources.walking import Walk
from patchcut.stages import Extractor

from patchcut_export.memory_maps import give_back
from patchcut_export.training.extraction import Extraction, LocalExtraction, file_sha256

_FEATURES = "features.npy"
_STATE = "state.json"
_FLUSH_EVERY = 64
# What the features of caches that do not tell depend on.
_UNTOLD = {
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "fit": "stretch",
    "output": "features",
    "sets": {},
}

Advance = Callable[[int, int], None]
_Table = np.memmap[tuple[int, ...], np.dtype[np.float16]]


@dataclass(frozen=True)
class CachedFeatures:
    """Features of N images.

    Attributes:
        features: [N, n, d] float16, a read-only memory map.
        images: the N images' names, under the folder they were read from.
        grid_hw: rows and columns of the patch grid, n = h * w.
        problems: a line for each image that was skipped.
        contents: sha256 of each image's file, as it was when it was looked at.
        sets: every set that is kept, by name: [N, n, d] float16, or [N, 1, d] where it has a row an image,
            each a read-only memory map; the first is `features`.
    """

    features: npt.NDArray[np.float16]
    images: tuple[str, ...]
    grid_hw: tuple[int, int]
    problems: tuple[str, ...]
    contents: tuple[str, ...] = ()
    sets: Mapping[str, npt.NDArray[np.float16]] = field(default_factory=dict)

    def take(self, rows: slice | npt.NDArray[np.int64], name: str | None = None) -> npt.NDArray[np.float16]:
        """[m, n, d] float16, a copy for m of the images. However many are taken, no more stay in memory.

        Args:
            rows: which images.
            name: which of `sets`; None is the first.
        """
        features = self.features if name is None else self.sets[name]
        taken = np.array(features[rows])
        give_back(features)
        return taken


def cache_features(
    images: Path,
    bundle: Bundle,
    extractor: Extractor,
    folder: Path,
    advance: Advance,
    sets: Sequence[str] | None = None,
    names: Collection[str] | None = None,
    extraction: Extraction | None = None,
) -> CachedFeatures:
    """The features of every image in a folder, from `folder` as far as they are there already.

    An image is known by its name and its content: another picture under the same name is another image.
    All sets come from one pass of the backbone.

    Args:
        images: a folder of images, searched with its subfolders.
        bundle: the one that the extractor is from.
        extractor: makes the features.
        folder: where the cache is kept; made if missing. The first set is its `features.npy`, each other
            `features-NAME.npy`.
        advance: called after each image with (done, total).
        sets: names of the extractor's feature sets that are kept; None is its first.
        names: of the images that are looked at, such as "part/1.jpg"; None is all in the folder.
        extraction: where the backbone looks at them; None for this machine.
    Raises:
        OptionError: the extractor does not make one of the sets.
        SourceError: the folder holds no images, or none of them can be read.
        OutputError: the cache cannot be written, or holds the features of something else.
    """
    graph, kept = extractor.graph, _chosen_sets(extractor, sets)
    paths, problems = _list_photos(images)
    photos = {path.relative_to(images).as_posix(): path for path in paths}
    if names is not None:
        photos = {name: path for name, path in photos.items() if name in names}
    key = _key(images, len(photos), bundle, extractor, kept)
    contents = _read_contents(folder, key)
    done = list(contents)
    if not photos.keys() >= set(done) or any(file_sha256(photos[name]) != contents[name] for name in done):
        raise _foreign(folder)
    check_writable(folder)
    missing = {name: path for name, path in photos.items() if name not in contents}
    files = _table_files(folder, kept)
    try:
        shapes = {files[name]: (len(photos), one.rows(graph.grid_hw), one.dim) for name, one in kept.items()}
        tables = dict(zip(kept, _open_tables(shapes, fresh=not done), strict=True))
        with closing((extraction or LocalExtraction()).run(bundle, extractor, missing, list(kept))) as looked:
            for made in looked:
                if made.problem:
                    problems.append(made.problem)
                    continue
                for one, table in tables.items():
                    table[len(done)] = made.sets[one]
                contents[made.name] = made.content
                done.append(made.name)
                if len(done) % _FLUSH_EVERY == 0:
                    _flush(tables.values())
                    _write_contents(folder, key, contents)
                advance(len(done), len(photos))
        _flush(tables.values())
    except OSError as error:
        raise output_error(folder, error) from error
    _write_contents(folder, key, contents)
    if not done:
        raise SourceError(str(images), "none of its images can be read", "; ".join(problems[:1]))
    features = {name: np.load(file, mmap_mode="r")[: len(done)] for name, file in files.items()}
    first = next(iter(features.values()))
    return CachedFeatures(
        first, tuple(done), graph.grid_hw, tuple(problems), tuple(contents.values()), features
    )


def _chosen_sets(extractor: Extractor, sets: Sequence[str] | None) -> dict[str, FeatureSetSpec]:
    """The sets that are kept, by name, in the order in which they were asked for."""
    there = extractor.backbone.features
    if not sets:
        return dict(list(there.items())[:1])
    for name in sets:
        check_choice("sets", name, tuple(there))
    return {name: there[name] for name in sets}


def _table_files(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Each set's file. A bundle may call a set as it likes: what no file's name can have is quoted."""
    files = {name: folder / f"features-{quote(name, safe='')}.npy" for name in names}
    return files | {next(iter(files)): folder / _FEATURES}


def _flush(tables: Iterable[_Table]) -> None:
    for table in tables:
        table.flush()
        give_back(table)


def _list_photos(folder: Path) -> tuple[list[Path], list[str]]:
    """Every photo below a folder that is not hidden, and what could not be listed; nothing is decoded.

    Raises:
        SourceError: it is not a folder, or holds no photos.
    """
    with open_source(folder) as source:
        problems = list(source.problems)
    if not folder.is_dir():
        raise SourceError(str(folder), "is not a folder", "name a folder of images")
    paths = sorted(path for path in Walk().files(folder) if path.suffix.lower() in PHOTO_SUFFIXES)
    return paths, problems


def _key(
    images: Path, total: int, bundle: Bundle, extractor: Extractor, kept: Mapping[str, FeatureSetSpec]
) -> dict[str, Any]:
    """What the features depend on, as JSON has it; of the sets, the graph's output that each is."""
    files, backbone = bundle.spec.files, extractor.backbone
    first, *others = kept
    return {
        "images": str(images.resolve()),
        "total": total,
        "graph_sha256": files[extractor.graph.file].sha256,
        "weights_sha256": files[backbone.weights].sha256 if backbone.weights else "",
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "fit": backbone.fit,
        "output": kept[first].output,
        "sets": {name: kept[name].output for name in others},
    }


def _open_tables(shapes: Mapping[Path, tuple[int, int, int]], *, fresh: bool) -> list[_Table]:
    """The files as arrays of these shapes; fresh ones are all made, or none is."""
    if not fresh:
        return [_open_table(path, shape) for path, shape in shapes.items()]
    try:
        return [_make_table(path, shape) for path, shape in shapes.items()]
    except OSError:
        for path in shapes:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise


def _open_table(path: Path, shape: tuple[int, int, int]) -> _Table:
    try:
        np.load(path, mmap_mode="r")  # a file that was cut short: "r+" would lengthen it with zeros
        table: _Table = np.lib.format.open_memmap(path, "r+")
    except (ValueError, EOFError, FileNotFoundError) as error:
        raise _damaged(path, error) from error
    if table.dtype != np.dtype(np.float16) or table.shape != tuple(shape):
        raise _damaged(path, f"it is {table.dtype} {table.shape}, not float16 {shape}")
    return table


def _make_table(path: Path, shape: tuple[int, int, int]) -> _Table:
    table: _Table = np.lib.format.open_memmap(path, "w+", np.float16, shape)
    with path.open("r+b") as file:  # a full disk is an error here, and a crash when a mapped page has no room
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return table


def _damaged(path: Path, why: object) -> OutputError:
    return OutputError("features", f"{path} is damaged: {why}", f"delete {path.parent}")


def _foreign(folder: Path) -> OutputError:
    problem = f"{folder} holds features of other images, other sets or another backbone"
    return OutputError("features", problem, "name another --work folder, or delete it")


def _read_contents(folder: Path, key: dict[str, Any]) -> dict[str, str]:
    """The images whose rows are written, in the rows' order, and the sha256 of each one's file."""
    path = folder / _STATE
    if not path.is_file():
        return {}
    try:
        fields = json.loads(path.read_text("utf-8"))
        theirs, names = {**_UNTOLD, **fields["key"]}, list(fields["names"])
        contents = [str(one) for one in fields.get("contents", [""] * len(names))]
        if theirs.keys() != key.keys():
            raise ValueError(f"its key has {', '.join(theirs)}")
        if len(set(names)) != len(names):
            raise ValueError("it names an image twice")
        if len(contents) != len(names):
            raise ValueError("it does not have each image's content")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error
    if theirs != key:
        raise _foreign(folder)
    return dict(zip(names, contents, strict=True))


def _write_contents(folder: Path, key: dict[str, Any], contents: dict[str, str]) -> None:
    fields = {"key": key, "names": list(contents), "contents": list(contents.values())}
    write_whole(folder / _STATE, json.dumps(fields).encode())
