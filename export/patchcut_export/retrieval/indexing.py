"""Making and updating an index: only images that are new or changed are looked at."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from patchcut.bundle import Bundle
from patchcut.errors import OptionError, SourceError
from patchcut.output.whole_files import check_writable, lock, output_error, remove
from patchcut.settings import Settings
from patchcut.sources.photos import PHOTO_SUFFIXES
from patchcut.sources.walking import Walk

from patchcut_export.errors import ExportError
from patchcut_export.progress import StepBar
from patchcut_export.retrieval.embedding import embed
from patchcut_export.retrieval.index import (
    MANIFEST,
    ClipIdentity,
    Float,
    ImageIndex,
    IndexedImage,
    check_clip,
    clip_identity,
    open_index,
    write_index,
)
from patchcut_export.retrieval.near_duplicates import first_like
from patchcut_export.retrieval.tokenizer import text_spec
from patchcut_export.training.extraction import Extraction

_SHA_BYTES = 32


@dataclass(frozen=True)
class IndexRequest:
    """What to index.

    Attributes:
        folders: of images, searched with their subfolders.
        clip: an open bundle with a text tower.
        out: the folder of the index, made if missing.
        settings: engine, device, size and threads that the image tower runs with.
        dtype: of the embeddings on disk, "float16" or "float32".
        alike: least cosine of two images that are nearly the same.
        extraction: other machines that look at the images, as float32; None is this one.
    """

    folders: Sequence[Path]
    clip: Bundle
    out: Path
    settings: Settings
    dtype: str = "float16"
    alike: float = 0.97
    extraction: Extraction | None = None


@dataclass(frozen=True)
class IndexUpdate:
    """What an update did.

    Attributes:
        index: as it is now.
        added: images that were looked at now.
        dropped: images of the old index that have gone or changed.
        problems: a line for each image that was left out.
    """

    index: ImageIndex
    added: int
    dropped: int
    problems: tuple[str, ...]


def update_index(request: IndexRequest, bar: StepBar) -> IndexUpdate:
    """Brings the index of some folders up to date, or makes it.

    A file is known by size and time of change, or else by its content, wherever it lies. What is made is kept
    as it is made: stopped at any point, the same call goes on there. Files that have gone are dropped.

    Raises:
        OptionError: an option has a value that is not allowed.
        SourceError: a folder is none, or has no images; or no image can be read.
        ExportError: the index there is another CLIP's or damaged, or another run is writing it.
        OutputError: it cannot be written.
    """
    if request.dtype not in ("float16", "float32"):
        raise OptionError("dtype", f"must be float16 or float32, got {request.dtype!r}")
    if not 0 < request.alike <= 1:
        raise OptionError("alike", f"must be above 0 and at most 1, got {request.alike:g}")
    paths, problems = _list_images(request.folders)
    old = open_index(request.out) if (request.out / MANIFEST).is_file() else None
    if old is not None:
        check_clip(old, request.clip)
    check_writable(request.out)
    identity = clip_identity(request.clip)
    with _open_unfinished(request.out, identity) as file:
        images = _identify(paths, old, bar, problems)
        rows = _known_rows(file, old, request.dtype, _dim(request.clip))
        fresh = {image.sha256: image.path for image in images if image.sha256 not in rows}
        added = _embed(request, fresh, file, rows, bar, problems)
        images = [image for image in images if image.sha256 in rows]
        if not images:
            raise SourceError(
                str(request.folders[0]), "none of its images can be read", "; ".join(problems[:1])
            )
        roots = [str(folder.resolve()) for folder in request.folders]
        _write(request, identity, roots, _in_old_order(images, old), rows, old, bar)
        remove(Path(file.name))
    index = open_index(request.out)
    kept = {(image.path, image.sha256) for image in index.images}
    gone = 0 if old is None else sum((image.path, image.sha256) not in kept for image in old.images)
    return IndexUpdate(index, added, gone, tuple(problems))


def _dim(bundle: Bundle) -> int:
    return text_spec(bundle).dim


def _list_images(folders: Sequence[Path]) -> tuple[list[Path], list[str]]:
    walk, paths = Walk(), []
    for folder in folders:
        if not folder.is_dir():
            raise SourceError(str(folder), "is not a folder", "name a folder of images")
        found = [path for path in walk.files(folder.resolve()) if path.suffix.lower() in PHOTO_SUFFIXES]
        if not found and not any(
            folder.resolve().is_relative_to(one.resolve()) for one in folders if one != folder
        ):
            raise SourceError(str(folder), "has no images", "name a folder of images")
        paths += found
    return paths, list(walk.problems)


def _identify(
    paths: Sequence[Path], old: ImageIndex | None, bar: StepBar, problems: list[str]
) -> list[IndexedImage]:
    """Each image's content: as it is known of a file that has not changed, or read."""
    known = {} if old is None else {image.path: image for image in old.images}
    images = []
    for done, path in enumerate(paths):
        bar.step("files", done, len(paths))
        try:
            status = path.stat()
            before = known.get(str(path))
            same = before is not None and (before.size, before.mtime_ns) == (
                status.st_size,
                status.st_mtime_ns,
            )
            digest = before.sha256 if before is not None and same else _sha256(path)
        except OSError as error:
            problems.append(
                str(SourceError(str(path), f"cannot be read: {error.strerror}", "check its rights"))
            )
            continue
        images.append(IndexedImage(str(path), status.st_size, status.st_mtime_ns, digest))
    return images


def _known_rows(
    file: BinaryIO, old: ImageIndex | None, dtype: str, dim: int
) -> dict[str, npt.NDArray[np.float32]]:
    """Embeddings by content: of the old index, and of a run that was stopped."""
    rows: dict[str, Any] = {}
    if old is not None:
        rows = {image.sha256: old.embeddings[row] for row, image in enumerate(old.images)}
    record = _record(dim)
    size = os.fstat(file.fileno()).st_size // record.itemsize * record.itemsize
    os.ftruncate(file.fileno(), size)  # a record that was being written when the run was stopped
    if size:
        for sha, row in np.memmap(file.name, record, "r"):
            rows[bytes(sha).hex()] = row
    return rows


def _record(dim: int) -> np.dtype[Any]:
    return np.dtype([("sha256", f"V{_SHA_BYTES}"), ("embedding", np.float32, (dim,))])


def _embed(
    request: IndexRequest,
    fresh: Mapping[str, str],
    file: BinaryIO,
    rows: dict[str, npt.NDArray[np.float32]],
    bar: StepBar,
    problems: list[str],
) -> int:
    """Embeds images by content, and notes each in the file; how many there were."""
    if not fresh:
        return 0
    record, done, added = _record(_dim(request.clip)), 0, 0
    looked = embed(request.clip, request.settings, fresh, request.extraction, problems)
    with closing(looked):
        for shas, embeddings, looked_at in looked:
            records = np.zeros(len(shas), record)
            for i, sha in enumerate(shas):
                records[i] = (np.void(bytes.fromhex(sha)), embeddings[i])
                rows[sha] = embeddings[i]
            _append(file, records)
            added += len(shas)
            done += looked_at
            bar.step("images", done, len(fresh))
    return added


def _append(file: BinaryIO, records: npt.NDArray[Any]) -> None:
    try:
        file.write(records.tobytes())
        file.flush()
    except OSError as error:
        raise output_error(Path(file.name), error) from error


def _in_old_order(images: Sequence[IndexedImage], old: ImageIndex | None) -> list[IndexedImage]:
    """Rows that stay in their order, and the others after them."""
    places = {} if old is None else {image.path: row for row, image in enumerate(old.images)}
    return sorted(images, key=lambda image: places.get(image.path, len(places)))


def _write(
    request: IndexRequest,
    identity: ClipIdentity,
    roots: Sequence[str],
    images: list[IndexedImage],
    rows: Mapping[str, npt.NDArray[np.float32]],
    old: ImageIndex | None,
    bar: StepBar,
) -> None:
    embeddings: Float = np.empty((len(images), _dim(request.clip)), request.dtype)
    for row, image in enumerate(images):
        embeddings[row] = rows[image.sha256]
    known = {} if old is None or old.alike != request.alike else _known_likes(images, old)
    likes = first_like(embeddings, request.alike, known, lambda done, total: bar.step("alike", done, total))
    images = [replace(image, like=int(like)) for image, like in zip(images, likes, strict=True)]
    write_index(request.out, identity, roots, images, embeddings, request.alike)


def _known_likes(images: Sequence[IndexedImage], old: ImageIndex) -> dict[int, int]:
    """What is known of rows that stay: the row that each is like, where that stays, too."""
    before = {(image.path, image.sha256): row for row, image in enumerate(old.images)}
    now = {(image.path, image.sha256): row for row, image in enumerate(images)}
    known = {}
    for key, row in now.items():
        if key in before:
            like = old.images[before[key]].like
            first = None if like < 0 else now.get((old.images[like].path, old.images[like].sha256))
            if like < 0 or first is not None:
                known[row] = -1 if first is None else first
    return known


def _open_unfinished(folder: Path, identity: ClipIdentity) -> BinaryIO:
    """The file that notes what a run makes, this run's alone.

    Raises:
        ExportError: another run has it.
        OutputError: it cannot be written.
    """
    path = folder / f"unfinished-{identity.key[:16]}.rows"
    try:
        file = path.open("ab")
    except OSError as error:
        raise output_error(path, error) from error
    if not lock(file.fileno()):
        file.close()
        raise ExportError("index", f"another run is writing {folder}", "wait for it, or stop it")
    return file


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
