"""An index of images on disk: unit embeddings as a memory map, a manifest, and exact or approximate search.

    INDEX/index.json              the images, row by row, and whose embeddings they are
    INDEX/embeddings-HASH.npy     [N, d] float16 or float32
    INDEX/neighbours-HASH.usearch of large ones, a graph of nearest neighbours

The manifest names the others and is replaced last, so that an index is the old one or the new one, whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from patchcut.bundle import Bundle
from patchcut.errors import OptionError, install_hint
from patchcut.output.whole_files import whole_file, write_whole

from patchcut_export.errors import ExportError

MANIFEST = "index.json"
VERSION = 1
# From so many images on a graph of nearest neighbours is searched, and not every row.
EXACT_BELOW = 100_000

_AGAIN = "delete it, and run `patchcut export index` again"
_logger = logging.getLogger("patchcut")

Float = npt.NDArray[np.float16] | npt.NDArray[np.float32]


@dataclass(frozen=True)
class IndexedImage:
    """One row.

    Attributes:
        path: the file, absolute.
        size, mtime_ns: of the file when it was looked at.
        sha256: of its content.
        like: the first row that is nearly the same image; -1 where there is none.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str
    like: int = -1


@dataclass(frozen=True)
class ClipIdentity:
    """Whose embeddings an index has.

    Attributes:
        key: a hash of graphs, weights, tokenizer and preprocessing, on which embeddings depend.
        name: of the bundle, for people.
        path: where it was.
    """

    key: str
    name: str
    path: str


@dataclass(frozen=True)
class Hit:
    """One image that was found: its row, its file, and the cosine of its embedding."""

    row: int
    path: Path
    cosine: float


@dataclass(frozen=True, eq=False)
class ImageIndex:
    """Images by their embeddings.

    Attributes:
        folder: where it is.
        clip: whose embeddings these are.
        roots: the folders that were indexed.
        images: N of them.
        embeddings: [N, d] float16 or float32 of unit length, a read-only memory map.
        alike: least cosine of images that are nearly the same.
    Examples:
        >>> index = open_index(folder / "index")
        >>> [hit.path.name for hit in index.search(index.embeddings[1], 1)]
        ['1.png']
    """

    folder: Path
    clip: ClipIdentity
    roots: tuple[str, ...]
    images: tuple[IndexedImage, ...]
    embeddings: Float
    alike: float

    def search(self, vector: npt.ArrayLike, k: int = 50, *, repeats: bool = False) -> list[Hit]:
        """The k images nearest to a vector, the nearest first; fewer where there are not so many.

        Below 100,000 images every row is looked at; above, a graph of nearest neighbours (usearch), which
        may miss some.

        Args:
            vector: [d], in the space of the embeddings.
            k: how many.
            repeats: whether images that are nearly the same as an earlier row are given, too.
        Raises:
            OptionError: the vector has another length, is not finite, or k is below 1.
        """
        query = np.asarray(vector, np.float32).reshape(-1)
        if k < 1:
            raise OptionError("k", f"must be at least 1, got {k}")
        if query.shape != self.embeddings.shape[1:] or not np.isfinite(query).all():
            problem = f"must be {self.embeddings.shape[1]} finite numbers, got shape {query.shape}"
            raise OptionError("vector", problem, "take it from the CLIP of the index")
        query = query / max(float(np.linalg.norm(query)), 1e-12)
        wanted = k
        while True:
            rows, cosines = self._nearest(query, wanted)
            chosen = np.ones(len(rows), bool) if repeats else self._firsts[rows]
            if chosen.sum() >= k or len(rows) < wanted or wanted >= len(self.images):
                break
            wanted *= 4
        pairs = zip(rows[chosen][:k], cosines[chosen][:k], strict=True)
        return [Hit(int(row), Path(self.images[row].path), float(cosine)) for row, cosine in pairs]

    def groups(self) -> list[list[int]]:
        """Rows that are nearly the same image, the first of each group first."""
        groups: dict[int, list[int]] = {}
        for row, image in enumerate(self.images):
            if image.like >= 0:
                groups.setdefault(image.like, [image.like]).append(row)
        return list(groups.values())

    @cached_property
    def _firsts(self) -> npt.NDArray[np.bool_]:
        return np.array([image.like < 0 for image in self.images])

    @cached_property
    def _rows(self) -> npt.NDArray[np.float32]:
        """All embeddings in float32, in which a product takes no longer than reading them."""
        return np.asarray(self.embeddings, np.float32)

    @cached_property
    def _neighbours(self) -> Any:
        """The graph of nearest neighbours; None where the index is small, or usearch is missing."""
        if len(self.images) < EXACT_BELOW:
            return None
        usearch, path = import_usearch(), neighbours_path(self.folder, self.embeddings_path)
        if usearch is None or not path.is_file():
            why = "usearch is missing" if usearch is None else f"there is no {path.name}"
            told = install_hint("concepts") if usearch is None else "run `patchcut export index` again"
            _logger.warning("[index] %s: each of %d rows is looked at; %s", why, len(self.images), told)
            return None
        try:
            return usearch.Index.restore(str(path), view=True)
        except Exception as error:  # the library raises bare exceptions
            raise ExportError("index", f"{path} is damaged: {error}", _AGAIN) from error

    @property
    def embeddings_path(self) -> Path:
        """The file of the embeddings."""
        return embeddings_path(self.folder, self.clip, self.images)

    def _nearest(
        self, query: npt.NDArray[np.float32], k: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        k = min(k, len(self.images))
        if self._neighbours is not None:
            found = self._neighbours.search(query, k)
            rows = np.asarray(found.keys, np.int64)
            cosines = np.asarray(self.embeddings[rows], np.float32) @ query
        else:
            every = self._rows @ query
            rows = np.argpartition(-every, k - 1)[:k] if k < len(every) else np.arange(len(every))
            cosines = every[rows]
        order = np.lexsort((rows, -cosines))
        return rows[order], cosines[order]


def open_index(folder: Path) -> ImageIndex:
    """The index in a folder.

    Raises:
        ExportError: there is none, it is damaged, cut short, or of a newer patchcut, or its files have gone.
    """
    path = folder / MANIFEST
    if not path.is_file():
        problem = f"{folder} is no index: it has no {MANIFEST}"
        raise ExportError("index", problem, "make one with `patchcut export index`")
    try:
        told = json.loads(path.read_text("utf-8"))
        version = int(told["version"])
        if version > VERSION:
            problem = f"{folder} was made by a newer patchcut: its version is {version}"
            raise ExportError("index", problem, "install a newer patchcut")
        clip = ClipIdentity(**told["clip"])
        images = tuple(IndexedImage(*row) for row in told["images"])
        dtype, dim, alike = np.dtype(told["dtype"]), int(told["dim"]), float(told["alike"])
        roots = tuple(map(str, told["roots"]))
        _check_rows(images)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ExportError("index", f"{path} is damaged: {error}", _AGAIN) from error
    embeddings = _open_embeddings(embeddings_path(folder, clip, images), (len(images), dim), dtype)
    return ImageIndex(folder, clip, roots, images, embeddings, alike)


def write_index(
    folder: Path,
    clip: ClipIdentity,
    roots: Sequence[str],
    images: Sequence[IndexedImage],
    embeddings: Float,
    alike: float,
) -> None:
    """Writes an index, whole or not at all, in the place of the one that was there.

    Raises:
        OutputError: it cannot be written.
    """
    path = embeddings_path(folder, clip, images)
    with whole_file(path) as partial, partial.open("wb") as file:
        np.save(file, embeddings)
    neighbours = neighbours_path(folder, path)
    usearch = import_usearch() if len(images) >= EXACT_BELOW else None
    if usearch is not None:
        graph = usearch.Index(ndim=embeddings.shape[1], metric="cos", dtype="f16")
        graph.add(np.arange(len(images), dtype=np.uint64), np.asarray(embeddings, np.float32))
        with whole_file(neighbours) as partial:
            graph.save(str(partial))
    told = {
        "version": VERSION,
        "clip": asdict(clip),
        "dim": embeddings.shape[1],
        "dtype": str(embeddings.dtype),
        "alike": alike,
        "roots": list(roots),
        "images": [astuple(image) for image in images],
    }
    write_whole(folder / MANIFEST, json.dumps(told).encode())
    for old in (*folder.glob("embeddings-*.npy"), *folder.glob("neighbours-*.usearch")):
        if old not in (path, neighbours):
            old.unlink(missing_ok=True)


def clip_identity(bundle: Bundle) -> ClipIdentity:
    """Whose embeddings a bundle's towers make.

    Raises:
        BundleError: it has no text tower.
    """
    from patchcut_export.retrieval.tokenizer import text_spec

    text = text_spec(bundle)
    backbone, files = bundle.spec.backbones[text.backbone], bundle.spec.files
    first = backbone.graphs[0]
    members = [first.file, backbone.weights, text.file, text.weights, text.tokenizer]
    depends = {
        "files": [files[name].sha256 for name in members if name is not None],
        "mean": backbone.mean,
        "std": backbone.std,
        "fit": backbone.fit,
    }
    key = hashlib.sha256(json.dumps(depends).encode()).hexdigest()
    return ClipIdentity(key, bundle.spec.name, str(bundle.path.resolve()))


def check_clip(index: ImageIndex, bundle: Bundle) -> None:
    """Checks that a bundle's embeddings are those of an index.

    Raises:
        ExportError: they are another CLIP's.
    """
    if clip_identity(bundle).key != index.clip.key:
        problem = f"{index.folder} was made with another CLIP ({index.clip.name}) than {bundle.path}"
        raise ExportError("index", problem, "pass that one, or index the folders anew into another --out")


def embeddings_path(folder: Path, clip: ClipIdentity, images: Sequence[IndexedImage]) -> Path:
    """The file of the embeddings of these images in this order."""
    digest = hashlib.sha256(clip.key.encode())
    for image in images:
        digest.update(image.sha256.encode())
    return folder / f"embeddings-{digest.hexdigest()[:16]}.npy"


def neighbours_path(folder: Path, embeddings: Path) -> Path:
    """The file of the graph of nearest neighbours beside some embeddings."""
    return folder / f"neighbours-{embeddings.stem.removeprefix('embeddings-')}.usearch"


def import_usearch() -> Any:
    """The module `usearch.index`, or None where it is not installed."""
    try:
        import usearch.index
    except ImportError:
        return None
    return usearch.index


def _check_rows(images: Sequence[IndexedImage]) -> None:
    kinds = {"path": str, "size": int, "mtime_ns": int, "sha256": str, "like": int}
    for row, image in enumerate(images):
        for one in fields(image):
            if not isinstance(getattr(image, one.name), kinds[one.name]):
                raise ValueError(f"{one.name} of image {row} is no {kinds[one.name].__name__}")
        if not -1 <= image.like < row:
            raise ValueError(f"image {row} is said to be like image {image.like}")


def _open_embeddings(path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> Float:
    try:
        embeddings: Float = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise ExportError("index", f"{path} has gone", _AGAIN) from error
    except (ValueError, EOFError, OSError) as error:
        raise ExportError("index", f"{path} is damaged or cut short: {error}", _AGAIN) from error
    if embeddings.shape != shape or embeddings.dtype != dtype:
        came = f"{embeddings.dtype} {embeddings.shape}, not {dtype} {shape}"
        raise ExportError("index", f"{path} is damaged: it is {came}", _AGAIN)
    return embeddings
