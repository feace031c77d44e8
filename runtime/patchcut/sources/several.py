"""Several photos at once: folders, globs, and lists of them."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from patchcut.errors import SourceError
from patchcut.pixels import AS_IT_COMES, PixelRule
from patchcut.sources.base import Source
from patchcut.sources.cameras import without_password
from patchcut.sources.photos import PHOTO_SUFFIXES, PhotoSource
from patchcut.sources.videos import VIDEO_SUFFIXES

_PHOTO_REMEDY = f"photos end in {', '.join(sorted(PHOTO_SUFFIXES - {'.heic', '.heif'}))}"


def open_folder(folder: Path, every: int, rule: PixelRule = AS_IT_COMES) -> Source:
    """The photos below a folder, in natural order.

    Raises:
        SourceError: there is none.
    """
    problems: list[str] = []
    photos = _photos_in(folder, problems)
    return _photos(photos, every, rule, folder, str(folder), problems)


def open_glob(pattern: str, files: list[Path], every: int, rule: PixelRule = AS_IT_COMES) -> Source:
    """The photos among the files that a glob matches.

    Raises:
        SourceError: there is none.
    """
    photos = _photos_of_glob(pattern, files)
    return _photos(photos, every, rule, _common_folder(photos), pattern)


def open_list(texts: list[str], every: int, rule: PixelRule = AS_IT_COMES) -> Source:
    """Photos named one by one, as a shell's own globbing does; folders and globs among them are opened.

    Raises:
        SourceError: the first error, where there is no photo at all.
    """
    photos: list[Path] = []
    problems: list[str] = []
    first: SourceError | None = None
    for text in texts:
        try:
            photos += _photos_of(text, problems)
        except SourceError as error:
            first = first or error
            problems.append(str(error))
    if first is not None and not photos:
        raise first
    return _photos(photos, every, rule, _common_folder(photos), f"{len(texts)} paths", problems)


def files_matching(pattern: str) -> list[Path]:
    """The files that a glob matches, in natural order.

    Raises:
        SourceError: there is none.
    """
    matches = map(Path, glob.iglob(pattern, recursive=True))  # noqa: PTH207 - Path.glob wants a root apart
    files = _in_order(path for path in matches if path.is_file())
    if not files:
        raise SourceError(pattern, "matches no file", "check the pattern; ** walks through folders")
    return files


def missing_path(text: str) -> SourceError:
    """The error of a path that is neither a file nor a folder."""
    if Path(text).exists():
        return SourceError(text, "is neither a file nor a folder", "name a photo, video or folder")
    return SourceError(text, "does not exist", f"check the name; this is {Path.cwd()}")


def _photos(
    photos: list[Path], every: int, rule: PixelRule, root: Path, name: str, problems: Sequence[str] = ()
) -> Source:
    source = PhotoSource(photos[::every], root, name, rule=rule)
    source.problems += problems
    return source


def _photos_in(folder: Path, problems: list[str]) -> list[Path]:
    """Every photo below `folder`; folders that cannot be listed are told in `problems`.

    Raises:
        SourceError: there is none.
    """
    errors: list[SourceError] = []
    files = _walk(folder, errors)
    photos = [path for path in files if path.suffix.lower() in PHOTO_SUFFIXES]
    if not photos and errors:
        raise errors[0]
    if not photos:
        raise SourceError(str(folder), "holds no photos", _instead_of_photos(files))
    problems += map(str, errors)
    return photos


def _walk(folder: Path, errors: list[SourceError]) -> list[Path]:
    """Every file below `folder` that is not hidden, in natural order; links to folders are not followed."""

    def unreadable(error: OSError) -> None:
        what = f"cannot be listed: {error.strerror}"
        errors.append(SourceError(str(error.filename), what, "check the folder's rights"))

    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return _in_order(path for path in found if path.is_file())


def _instead_of_photos(files: list[Path]) -> str:
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    if videos:
        return f"name a video by itself, such as {videos[0]}"
    return _PHOTO_REMEDY


def _photos_of_glob(pattern: str, files: list[Path]) -> list[Path]:
    photos = [path for path in files if path.suffix.lower() in PHOTO_SUFFIXES]
    if not photos:
        raise SourceError(pattern, f"matches {len(files)} files, but no photo", _instead_of_photos(files))
    return photos


def _photos_of(text: str, problems: list[str]) -> list[Path]:
    """The photos that one of several paths, folders and globs names."""
    path = Path(text).expanduser()
    if path.is_dir():
        return _photos_in(path, problems)
    if path.is_file():
        if path.suffix.lower() in VIDEO_SUFFIXES:
            raise SourceError(text, "is a video among photos", "run each video by itself")
        return [path]
    if "://" in text:
        raise SourceError(without_password(text), "is an address among photos", "run it by itself")
    if glob.has_magic(text):
        return _photos_of_glob(text, files_matching(str(path)))
    raise missing_path(text)


def _common_folder(paths: list[Path]) -> Path:
    """The deepest folder that holds them all; absolute, so that relative and absolute paths may be mixed."""
    return Path(os.path.commonpath([path.absolute().parent for path in paths]))


def _in_order(paths: Iterable[Path]) -> list[Path]:
    """Sorted as a person would: img2 before img10, whatever the case."""
    return sorted(paths, key=lambda path: ([_natural(name) for name in path.parts], str(path)))


def _natural(text: str) -> list[int | str]:
    # Splitting at digits alternates text and number, so that like is always compared with like.
    pieces = re.split(r"(\d+)", text)
    return [int(piece) if i % 2 else piece.casefold() for i, piece in enumerate(pieces)]
