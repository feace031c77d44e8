"""Features of a folder of images on disk: made once, resumed when interrupted, read as a memory map."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from patchcut.bundle import Bundle
from patchcut.errors import OutputError, SourceError
from patchcut.features import to_host
from patchcut.output.whole_files import check_writable, output_error, write_whole
from patchcut.sources import open_source
from patchcut.sources.photos import PHOTO_SUFFIXES, PhotoSource
from patchcut.stages import Extractor

_FEATURES = "features.npy"
_STATE = "state.json"
_FLUSH_EVERY = 64

Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class CachedFeatures:
    """Features of N images.

    Attributes:
        features: [N, n, d] float16, a read-only memory map.
        images: the N images' names, under the folder they were read from.
        grid_hw: rows and columns of the patch grid, n = h * w.
        problems: a line for each image that was skipped.
    """

    features: npt.NDArray[np.float16]
    images: tuple[str, ...]
    grid_hw: tuple[int, int]
    problems: tuple[str, ...]

    def take(self, rows: slice | npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        """[m, n, d] float16, a copy for m of the images. However many are taken, no more stay in memory."""
        taken = np.array(self.features[rows])
        _give_back(self.features)
        return taken


def cache_features(
    images: Path, bundle: Bundle, extractor: Extractor, folder: Path, advance: Advance
) -> CachedFeatures:
    """The features of every image in a folder, from `folder` as far as they are there already.

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
    names = {path.relative_to(images).as_posix(): path for path in paths}
    state = _read_state(folder, _Key.of(images, len(names), bundle, extractor))
    if not names.keys() >= set(state.names):
        raise _foreign(folder)
    check_writable(folder)
    done = set(state.names)
    source = PhotoSource([path for name, path in names.items() if name not in done], images, str(images))
    try:
        shape = (len(names), graph.grid_hw[0] * graph.grid_hw[1], kept.dim)
        table = _open_table(folder, shape, fresh=not state.names)
        for frame in source:
            table[len(state.names)] = to_host(extractor([frame]).default)[0]
            state.names.append(frame.name)
            if len(state.names) % _FLUSH_EVERY == 0:
                table.flush()
                _give_back(table)
                _write_state(folder, state)
            advance(len(state.names), len(names))
        table.flush()
    except OSError as error:
        raise output_error(folder, error) from error
    _write_state(folder, state)
    problems += source.problems
    if not state.names:
        raise SourceError(str(images), "none of its images can be read", "; ".join(problems[:1]))
    features = np.load(folder / _FEATURES, mmap_mode="r")[: len(state.names)]
    return CachedFeatures(features, tuple(state.names), graph.grid_hw, tuple(problems))


def _give_back(features: npt.NDArray[np.float16]) -> None:
    """Takes a memory map's pages off the process; the system keeps them for as long as it has room."""
    owner: object = features
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)


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
    return any(part.startswith(".") for part in path.parts)


@dataclass(frozen=True)
class _Key:
    """What the features depend on; the defaults are those of caches that do not tell."""

    images: str
    total: int
    graph_sha256: str
    weights_sha256: str
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    fit: str = "stretch"
    output: str = "features"

    @staticmethod
    def of(images: Path, total: int, bundle: Bundle, extractor: Extractor) -> _Key:
        files, backbone = bundle.spec.files, extractor.backbone
        return _Key(
            images=str(images.resolve()),
            total=total,
            graph_sha256=files[extractor.graph.file].sha256,
            weights_sha256=files[backbone.weights].sha256 if backbone.weights else "",
            mean=backbone.mean,
            std=backbone.std,
            fit=backbone.fit,
            output=backbone.default_features.output,
        )

    @staticmethod
    def read(fields: dict[str, Any]) -> _Key:
        key = _Key(**fields)
        return replace(key, mean=tuple(key.mean), std=tuple(key.std))


@dataclass
class _State:
    """How far a cache is: the names of the rows that are written."""

    key: _Key
    names: list[str] = field(default_factory=list)


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


def _read_state(folder: Path, key: _Key) -> _State:
    path = folder / _STATE
    if not path.is_file():
        return _State(key)
    try:
        fields = json.loads(path.read_text("utf-8"))
        state = _State(_Key.read(fields["key"]), list(fields["names"]))
        if len(set(state.names)) != len(state.names):
            raise ValueError("it names an image twice")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error
    if state.key != key:
        raise _foreign(folder)
    return state


def _write_state(folder: Path, state: _State) -> None:
    write_whole(folder / _STATE, json.dumps(asdict(state)).encode())
