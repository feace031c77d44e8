"""Features of a folder of images on disk: made once, resumed when interrupted, read as a memory map."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from patchcut.bundle import Bundle
from patchcut.errors import OutputError, SourceError
from patchcut.features import to_host
from patchcut.output.whole_files import check_writable, output_error, write_whole
from patchcut.sources import open_source
from patchcut.sources.photos import PHOTO_SUFFIXES, read_frame
from patchcut.stages import Extractor

from patchcut_export.memory_maps import give_back

_FEATURES = "features.npy"
_STATE = "state.json"
_FLUSH_EVERY = 64
# What the features of caches that do not tell depend on.
_UNTOLD = {
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "fit": "stretch",
    "output": "features",
}

Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class CachedFeatures:
    """Features of N images.

    Attributes:
        features: [N, n, d] float16, a read-only memory map.
        images: the N images' names, under the folder they were read from.
        grid_hw: rows and columns of the patch grid, n = h * w.
        problems: a line for each image that was skipped.
        contents: sha256 of each image's file, as it was when it was looked at.
    """

    features: npt.NDArray[np.float16]
    images: tuple[str, ...]
    grid_hw: tuple[int, int]
    problems: tuple[str, ...]
    contents: tuple[str, ...] = ()

    def take(self, rows: slice | npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        """[m, n, d] float16, a copy for m of the images. However many are taken, no more stay in memory."""
        taken = np.array(self.features[rows])
        give_back(self.features)
        return taken


def cache_features(
    images: Path, bundle: Bundle, extractor: Extractor, folder: Path, advance: Advance
) -> CachedFeatures:
    """The features of every image in a folder, from `folder` as far as they are there already.

    An image is known by its name and its content: another picture under the same name is another image.

    Args:
        images: a folder of images, searched with its subfolders.
        bundle: the one that the extractor is from.
        extractor: makes the features; those of its first set are kept.
        folder: where the cache is kept; made if missing.
        advance: called after each image with (done, total).
    Raises:
        SourceError: the folder holds no images, or none of them can be read.
        OutputError: the cache cannot be written, or holds the features of something else.
    """
    graph, kept = extractor.graph, extractor.backbone.default_features
    paths, problems = _list_photos(images)
    photos = {path.relative_to(images).as_posix(): path for path in paths}
    key = _key(images, len(photos), bundle, extractor)
    contents = _read_contents(folder, key)
    names = list(contents)
    if not photos.keys() >= set(names) or any(_sha256(photos[name]) != contents[name] for name in names):
        raise _foreign(folder)
    check_writable(folder)
    missing = [name for name in photos if name not in contents]
    try:
        shape = (len(photos), graph.grid_hw[0] * graph.grid_hw[1], kept.dim)
        table = _open_table(folder, shape, fresh=not names)
        for name in missing:
            try:
                frame = read_frame(photos[name], name)
            except SourceError as error:
                problems.append(str(error))
                continue
            table[len(names)] = to_host(extractor([frame]).default)[0]
            contents[name] = _sha256(photos[name])
            names.append(name)
            if len(names) % _FLUSH_EVERY == 0:
                table.flush()
                give_back(table)
                _write_contents(folder, key, contents)
            advance(len(names), len(photos))
        table.flush()
    except OSError as error:
        raise output_error(folder, error) from error
    _write_contents(folder, key, contents)
    if not names:
        raise SourceError(str(images), "none of its images can be read", "; ".join(problems[:1]))
    features = np.load(folder / _FEATURES, mmap_mode="r")[: len(names)]
    return CachedFeatures(features, tuple(names), graph.grid_hw, tuple(problems), tuple(contents.values()))


def _list_photos(folder: Path) -> tuple[list[Path], list[str]]:
    """Every photo below a folder that is not hidden, and what could not be listed; nothing is decoded.

    Raises:
        SourceError: it is not a folder, or holds no photos.
    """
    with open_source(folder) as source:
        problems = list(source.problems)
    if not folder.is_dir():
        raise SourceError(str(folder), "is not a folder", "name a folder of images")
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in PHOTO_SUFFIXES]
    return [path for path in paths if path.is_file() and not _is_hidden(path.relative_to(folder))], problems


def _is_hidden(path: Path) -> bool:
    return any(name.startswith(".") for name in path.parts)


def _key(images: Path, total: int, bundle: Bundle, extractor: Extractor) -> dict[str, Any]:
    """What the features depend on, as JSON has it."""
    files, backbone = bundle.spec.files, extractor.backbone
    return {
        "images": str(images.resolve()),
        "total": total,
        "graph_sha256": files[extractor.graph.file].sha256,
        "weights_sha256": files[backbone.weights].sha256 if backbone.weights else "",
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "fit": backbone.fit,
        "output": backbone.default_features.output,
    }


def _open_table(
    folder: Path, shape: tuple[int, int, int], *, fresh: bool
) -> np.memmap[tuple[int, ...], np.dtype[np.float16]]:
    path = folder / _FEATURES
    table: np.memmap[tuple[int, ...], np.dtype[np.float16]]
    if not fresh:
        try:
            np.load(path, mmap_mode="r")  # a file that was cut short: "r+" would lengthen it with zeros
            table = np.lib.format.open_memmap(path, "r+")
        except (ValueError, EOFError, FileNotFoundError) as error:
            raise _damaged(path, error) from error
        if table.dtype != np.dtype(np.float16) or table.shape != tuple(shape):
            raise _damaged(path, f"it is {table.dtype} {table.shape}, not float16 {shape}")
        return table
    table = np.lib.format.open_memmap(path, "w+", np.float16, shape)
    try:  # a full disk is an error here, and a crash when a mapped page has no room
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError:
        path.unlink()
        raise
    return table


def _damaged(path: Path, why: object) -> OutputError:
    return OutputError("features", f"{path} is damaged: {why}", f"delete {path.parent}")


def _foreign(folder: Path) -> OutputError:
    problem = f"{folder} holds features of other images or another backbone"
    return OutputError("features", problem, "name another --work folder, or delete it")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


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
