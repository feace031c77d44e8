"""Features of a folder of images on disk: made once, resumed when interrupted, read as a memory map."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels
from patchcut.bundle import BackboneSpec, Bundle
from patchcut.engines import Engine, EngineOptions, open_engine
from patchcut.errors import OutputError, SourceError
from patchcut.frames import ColorOrder
from patchcut.sources import open_source
from patchcut.whole_files import output_error

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


def cache_features(
    images: Path, bundle: Bundle, options: EngineOptions, folder: Path, advance: Advance
) -> CachedFeatures:
    """The features of every image in a folder, from `folder` as far as they are there already.

    Args:
        images: a folder of images, searched with its subfolders.
        bundle: whose backbone makes the features.
        options: size, precision, device and threads to run it with.
        folder: where the cache is kept; made if missing.
        advance: called after each image with (done, total).
    Raises:
        SourceError: the folder holds no images, or none of them can be read.
        OutputError: the cache cannot be written, or holds the features of something else.
    """
    engine = open_engine(bundle, options)
    graph = engine.graph
    with open_source(images, color="bgr") as source:
        total = source.total or 0
        state = _read_state(folder, _Key.of(images, total, bundle, graph.file))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            shape = (total, graph.grid_hw[0] * graph.grid_hw[1], bundle.spec.backbone.feature_dim)
            table = _open_table(folder, shape, fresh=not state.names)
            frames = iter(source)
            _check_names(folder, state, [frame.name for frame in islice(frames, state.seen)])
            for frame in frames:
                table[len(state.names)] = features_of(frame.image, frame.color, bundle.spec.backbone, engine)
                state.names.append(frame.name)
                state.seen += 1
                if len(state.names) % _FLUSH_EVERY == 0:
                    table.flush()
                    _write_state(folder, state)
                advance(state.seen, total)
            table.flush()
            _write_state(folder, state)
        except OSError as error:
            raise output_error(folder, error) from error
        problems = tuple(source.problems)
    if not state.names:
        raise SourceError(str(images), "none of its images can be read", "; ".join(problems[:1]))
    done = np.load(folder / _FEATURES, mmap_mode="r")[: len(state.names)]
    return CachedFeatures(done, tuple(state.names), graph.grid_hw, problems)


def features_of(
    image: npt.NDArray[np.uint8], color: ColorOrder, backbone: BackboneSpec, engine: Engine
) -> npt.NDArray[np.float32]:
    """[n, d] float32, features of one image [H, W, 3] uint8; overwritten by the next call."""
    kernels.preprocess(
        image,
        engine.graph.size_hw,
        backbone.mean,
        backbone.std,
        color=color,
        fit=backbone.fit,
        out=engine.image,
    )
    return engine.run()


@dataclass(frozen=True)
class _Key:
    """What the features depend on."""

    images: str
    total: int
    graph_sha256: str
    weights_sha256: str

    @staticmethod
    def of(images: Path, total: int, bundle: Bundle, graph_file: str) -> _Key:
        files, weights = bundle.spec.files, bundle.spec.backbone.weights
        weights_sha256 = files[weights].sha256 if weights else ""
        return _Key(str(images.resolve()), total, files[graph_file].sha256, weights_sha256)


@dataclass
class _State:
    """How far a cache is: the names of the rows that are written, and how many frames were seen for them."""

    key: _Key
    names: list[str]
    seen: int = 0


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
    what = f"{folder} holds features of other images or another backbone"
    return OutputError("features", what, "name another --work folder, or delete it")


def _check_names(folder: Path, state: _State, names: list[str]) -> None:
    """Refuses a cache whose rows are of images that are there no more."""
    if names != state.names:
        raise _foreign(folder)


def _read_state(folder: Path, key: _Key) -> _State:
    path = folder / _STATE
    if not path.is_file():
        return _State(key, [])
    try:
        fields = json.loads(path.read_text("utf-8"))
        state = _State(_Key(**fields["key"]), list(fields["names"]), int(fields["seen"]))
        if not 0 <= state.seen == len(state.names):
            raise ValueError(f"it tells of {state.seen} images and names {len(state.names)}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error
    if state.key != key:
        raise _foreign(folder)
    return state


def _write_state(folder: Path, state: _State) -> None:
    beside = folder / f"{_STATE}.part"
    beside.write_text(json.dumps(asdict(state)), "utf-8")
    beside.replace(folder / _STATE)
