"""Sources of frames: photos, folders, globs, videos, cameras, streams, arrays."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from patchcut.errors import OptionError, SourceError
from patchcut.frames import Frame, check_color
from patchcut.settings import ColorOrder
from patchcut.sources.arrays import FrameSource
from patchcut.sources.base import Source, SourceKind
from patchcut.sources.photos import PHOTO_SUFFIXES, PhotoSource, read_photo
from patchcut.sources.videos import VIDEO_SUFFIXES, LiveVideo, VideoFile, without_password

__all__ = ["Source", "SourceKind", "open_source"]

_CAMERA_DEVICE = re.compile(r"/dev/video(\d+)")
_PHOTO_REMEDY = f"photos end in {', '.join(sorted(PHOTO_SUFFIXES - {'.heic', '.heif'}))}"


def open_source(source: object, *, color: ColorOrder = "bgr", every: int = 1) -> Source:
    """The frames of `source`, opened and checked as far as that is possible without reading it all.

    Args:
        source: path of a photo, a video, or a folder (walked to its leaves, in natural order); a glob; a list
            of photos, folders and globs; an index of a camera, as int, or as digits where no file or folder
            has that name; a URL (rtsp://, http://, ...); one frame; an iterable of frames or of paths of
            photos; or a source that is open already.
        color: order of the last axis of arrays; files and cameras say their own.
        every: take frames 0, every, 2 * every, ...
    Raises:
        SourceError: nothing in `source` can be read; what is wrong with a part of it goes to `.problems`.
        OptionError: `color` or `every` is not allowed; `every` was given for a source that is open already.
    """
    check_color(color)
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise OptionError("every", f"must be a whole number from 1, got {every!r}")
    if isinstance(source, Source):
        if every != 1:
            raise OptionError("every", f"must be given where {source.name} is opened, got {every} afterwards")
        return source
    if isinstance(source, int) and not isinstance(source, bool):
        return LiveVideo(source, every=every)
    if isinstance(source, str | os.PathLike):
        return _open_text(os.fspath(source), every)
    if isinstance(source, list | tuple) and source and all(isinstance(p, str | os.PathLike) for p in source):
        return _open_list([os.fspath(path) for path in source], every)
    return FrameSource(_as_frames(source), color=color, every=every)


def _as_frames(source: Any) -> Iterable[object]:
    if isinstance(source, Frame) or (isinstance(source, np.ndarray) and source.ndim != 4):
        return [source]
    if isinstance(source, bytes | bytearray) or not isinstance(source, Iterable):
        if type(source).__module__.startswith("PIL."):
            return [source]
        remedy = "pass a path, a folder, a glob, a camera index, a URL, or an iterable of arrays"
        raise SourceError("source", f"cannot read frames from {type(source).__name__}", remedy)
    return source


def _open_text(text: str, every: int) -> Source:
    if not text:
        raise SourceError("source", "is an empty text", "name a photo, video, folder, camera or stream")
    if text.isdecimal() and not Path(text).exists():
        return LiveVideo(int(text), every=every)
    if device := _CAMERA_DEVICE.fullmatch(text):
        return LiveVideo(int(device[1]), every=every)
    if "://" in text:
        return LiveVideo(text, every=every)
    try:
        return _open_path(text, every)
    except OSError as error:
        raise SourceError(
            text, f"cannot be opened: {error.strerror or error}", "check its name and rights"
        ) from error


def _open_path(text: str, every: int) -> Source:
    path = Path(text).expanduser()
    if path.is_dir():
        return _open_folder(path, every)
    if path.is_file():
        return _open_file(path, every)
    if glob.has_magic(text):
        return _open_glob(str(path), every)
    raise _missing(text)


def _missing(text: str) -> SourceError:
    if Path(text).exists():
        return SourceError(text, "is neither a file nor a folder", "name a photo, video or folder")
    return SourceError(text, "does not exist", f"check the name; this is {Path.cwd()}")


def _open_file(path: Path, every: int) -> Source:
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return VideoFile(path, every=every)
    try:
        return FrameSource([Frame(read_photo(path), "bgr", path.name)], kind="images", name=path.name)
    except SourceError:
        if suffix in PHOTO_SUFFIXES:
            raise
    try:
        return VideoFile(path, every=every)
    except SourceError as error:
        what = "is neither an image nor a video that OpenCV reads"
        raise SourceError(str(path), what, "convert it to JPEG, PNG or MP4") from error


def _open_folder(folder: Path, every: int) -> Source:
    problems: list[str] = []
    source = PhotoSource(_photos_in(folder, problems)[::every], folder, str(folder))
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


def _open_glob(pattern: str, every: int) -> Source:
    files = _matches(pattern)
    if len(files) == 1:
        return _open_file(files[0], every)
    photos = _photos_of_glob(pattern, files)
    return PhotoSource(photos[::every], _common_folder(photos), pattern)


def _matches(pattern: str) -> list[Path]:
    """Files that a glob matches.

    Raises:
        SourceError: there is none.
    """
    matches = map(Path, glob.iglob(pattern, recursive=True))  # noqa: PTH207 - Path.glob wants a root apart
    files = _in_order(path for path in matches if path.is_file())
    if not files:
        raise SourceError(pattern, "matches no file", "check the pattern; ** walks through folders")
    return files


def _photos_of_glob(pattern: str, files: list[Path]) -> list[Path]:
    photos = [path for path in files if path.suffix.lower() in PHOTO_SUFFIXES]
    if not photos:
        raise SourceError(pattern, f"matches {len(files)} files, but no photo", _instead_of_photos(files))
    return photos


def _open_list(texts: list[str], every: int) -> Source:
    """Photos named one by one, as a shell's own globbing does; folders and globs among them are opened."""
    if len(texts) == 1:
        return _open_text(texts[0], every)
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
    source = PhotoSource(photos[::every], _common_folder(photos), f"{len(texts)} paths")
    source.problems += problems
    return source


def _photos_of(text: str, problems: list[str]) -> list[Path]:
    """The photos that one of several paths names."""
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
        return _photos_of_glob(text, _matches(str(path)))
    raise _missing(text)


def _common_folder(paths: list[Path]) -> Path:
    """The deepest folder that holds them all; absolute, so that relative and absolute paths may be mixed."""
    return Path(os.path.commonpath([path.absolute().parent for path in paths]))


def _in_order(paths: Iterable[Path]) -> list[Path]:
    """Sorted as a person would: img2 before img10, whatever the case."""
    return sorted(paths, key=lambda path: ([_natural(part) for part in path.parts], str(path)))


def _natural(text: str) -> list[int | str]:
    # Splitting at digits alternates text and number, so that like is always compared with like.
    return [int(part) if i % 2 else part.casefold() for i, part in enumerate(re.split(r"(\d+)", text))]
