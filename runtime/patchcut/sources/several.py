"""Several files at once: folders, globs, and lists of them. The photos are one part, each video is one."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from patchcut.errors import SourceError
from patchcut.frames import Frame
from patchcut.pixels import AS_IT_COMES, PixelRule
from patchcut.sources.animations import open_animation
from patchcut.sources.base import Source, stamp_of
from patchcut.sources.cameras import without_password
from patchcut.sources.photos import PHOTO_SUFFIXES, read_frame
from patchcut.sources.sniffing import kind_of
from patchcut.sources.videos import VIDEO_SUFFIXES, open_video
from patchcut.sources.walking import Walk, files_matching, fixed_part, without_results
from patchcut.texts import name_text

_ANY_REMEDY = f"photos end in {', '.join(sorted(PHOTO_SUFFIXES - {'.heic', '.heif'}))}"
_RAW = ("is a camera's raw file, which is left out", "develop it to JPEG or PNG")


@dataclass
class _Files:
    """Files that were found, sorted out.

    Attributes:
        photos, videos: their paths, in natural order.
        others: how many are neither.
        problems, notes: as those of `Source`.
    """

    photos: list[Path] = field(default_factory=list)
    videos: list[Path] = field(default_factory=list)
    others: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, files: Sequence[Path], base: Path) -> None:
        """Takes files in that were found below a folder; results of earlier runs there are left out."""
        kept = without_results(files, base)
        if left := len(files) - len(kept):
            what = f"{left} {'result' if left == 1 else 'results'} of earlier runs left out"
            self.notes.append(str(SourceError(name_text(base), what, "name their folder to take them")))
        for path in kept:
            self._add(path)

    def _add(self, path: Path) -> None:
        try:
            kind = kind_of(path)
        except OSError as error:
            self._tell(path, f"cannot be read: {error.strerror}", "check its rights")
            return
        if kind == "photo":
            self.photos.append(path)
        elif kind == "video":
            self.videos.append(path)
        elif kind == "raw":
            self._tell(path, *_RAW)
        else:
            self.others += 1

    def _tell(self, path: Path, what: str, remedy: str) -> None:
        self.problems.append(str(SourceError(name_text(path), what, remedy)))


class PhotoFiles(Source):
    """Photos of a list, in its order; a photo that cannot be read is skipped and told.

    Args:
        paths: the files.
        root: folder that frame names are relative to.
        name: what a person would call the list.
        every: take photos 0, every, 2 * every, ...
        rule: how pixels are read.
    Attributes:
        animations: those of the files that are videos in fact; complete once iteration ends.
    """

    def __init__(
        self, paths: Sequence[Path], root: Path, name: str, *, every: int = 1, rule: PixelRule = AS_IT_COMES
    ) -> None:
        super().__init__("images", name, total=-(-len(paths) // every))
        self.every = every
        self.animations: list[Path] = []
        self._paths = paths
        self._root = root
        self._rule = rule

    def __iter__(self) -> Iterator[Frame]:
        photos = 0
        for path in self._paths:
            pages = self._open_several(path)
            if pages is not None and pages.is_video:
                pages.close()
                self.animations.append(path)
                continue
            photos += 1
            if (photos - 1) % self.every == 0:
                yield from self._frames(path, (photos - 1) // self.every, pages)

    def _frames(self, path: Path, index: int, pages: Source | None) -> Iterator[Frame]:
        name = relative_name(path, self._root)
        if pages is not None:
            yield from self._pages(pages, path, name, index)
            return
        if self._skips(name, path):
            return
        try:
            frame = read_frame(path, name, index=index, rule=self._rule)
        except SourceError as error:
            self.problems.append(str(error))
            return
        self.take_notes(frame)
        yield frame

    def _open_several(self, path: Path) -> Source | None:
        """The source of an animation or of a file's pages; what is wrong is told when it is read."""
        try:
            return open_animation(path, every=1, rule=self._rule)
        except (SourceError, OSError):
            return None

    def _skips(self, name: str, path: Path) -> bool:
        return self.skip is not None and self.skip(name, stamp_of(path) or "")

    def _pages(self, pages: Source, path: Path, name: str, index: int) -> Iterator[Frame]:
        pages.name, pages.problems, pages.notes = name, self.problems, self.notes
        with pages:
            for page in pages:
                if not self._skips(page.name, path):
                    yield replace(page, index=index)


class SeveralFiles(Source):
    """Photos and videos of a list: first the photos, then each video, and what is animated among the photos.

    Args:
        photos, videos: the files.
        root: folder that names are relative to.
        name: what a person would call them all.
        every: of the photos, and of each video's frames.
        rule: how pixels of photos are read.
    """

    def __init__(
        self,
        photos: Sequence[Path],
        videos: Sequence[Path],
        root: Path,
        name: str,
        *,
        every: int = 1,
        rule: PixelRule = AS_IT_COMES,
    ) -> None:
        total = None if videos else -(-len(photos) // every)
        super().__init__("images" if photos else "video", name, total=total)
        self.every = every
        self._photos, self._videos = photos, videos
        self._root = root
        self._rule = rule

    def __iter__(self) -> Iterator[Frame]:
        for part in self.parts():
            yield from part

    def parts(self) -> Iterator[Source]:
        photos = PhotoFiles(self._photos, self._root, self.name, every=self.every, rule=self._rule)
        photos.problems, photos.notes = self.problems, self.notes
        if self._photos:
            yield photos
        for path in self._videos:
            yield from self._video(path)
        for path in photos.animations:
            yield from self._video(path)

    def _video(self, path: Path) -> Iterator[Source]:
        name = relative_name(path, self._root)
        try:
            video = self._open_video(path)
        except SourceError as error:
            self.problems.append(str(SourceError(name, error.what, error.remedy)))
            return
        except OSError as error:
            what = f"cannot be read: {error.strerror or error}"
            self.problems.append(str(SourceError(name, what, "check the file")))
            return
        video.name, video.stamp, video.every = name, stamp_of(path), self.every
        video.problems, video.notes = self.problems, self.notes
        with video:
            yield video

    def _open_video(self, path: Path) -> Source:
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            animation = open_animation(path, every=self.every, rule=self._rule)
            if animation is not None:
                return animation
        return open_video(path, every=self.every, rule=self._rule)


def open_folder(folder: Path, every: int, rule: PixelRule = AS_IT_COMES) -> Source:
    """The photos and videos below a folder, in natural order.

    Raises:
        SourceError: there is none.
    """
    files = _Files()
    _add_folder(files, folder, folder)
    return _opened(files, folder, name_text(folder), every, rule)


def open_glob(pattern: str, every: int, rule: PixelRule = AS_IT_COMES) -> Source | Path:
    """The photos and videos among the files that a glob matches; the file itself where it is one.

    Raises:
        SourceError: there is none.
    """
    files = _Files()
    matching = files_matching(pattern, files.problems)
    if len(matching) == 1 and not files.problems:
        return matching[0]
    _add_glob(files, pattern, matching)
    return _opened(files, _common_folder([*files.photos, *files.videos]), name_text(pattern), every, rule)


def open_list(texts: list[str], every: int, rule: PixelRule = AS_IT_COMES) -> Source:
    """Files named one by one, as a shell's own globbing does; folders and globs among them are opened.

    Raises:
        SourceError: the first error, where there is no photo and no video at all.
    """
    files = _Files()
    first: SourceError | None = None
    for text in texts:
        try:
            _add_text(files, text)
        except (SourceError, OSError, ValueError) as error:
            told = error if isinstance(error, SourceError) else not_opened(text, error)
            first = first or told
            files.problems.append(str(told))
    if first is not None and not files.photos and not files.videos:
        raise first
    root = _common_folder([*files.photos, *files.videos])
    return _opened(files, root, f"{len(texts)} paths", every, rule)


def expanded(text: str) -> Path:
    """The path that a text means: as it stands where that is there, else with the home folder for a `~`."""
    path = Path(text)
    return path if os.path.lexists(path) else Path(os.path.expanduser(text))  # noqa: PTH111 - it never raises


def not_opened(text: str, error: OSError | ValueError) -> SourceError:
    """The error of a path that the system refuses, or that no file can have."""
    if not isinstance(error, OSError):
        return SourceError(name_text(text), "is no name that a file can have", "check the name")
    what = f"cannot be opened: {error.strerror or error}"
    return SourceError(name_text(text), what, "check its name and rights")


def missing_path(text: str) -> SourceError:
    """The error of a path that is neither a file nor a folder."""
    name = name_text(text)
    path = expanded(text)
    if path.exists():
        what = "is neither a file nor a folder, but a pipe, a socket or a device"
        return SourceError(name, what, "name a photo, video or folder; - reads what is piped in")
    if path.is_symlink():
        return SourceError(name, "is a link that leads nowhere", "mend it, or name what it should lead to")
    return SourceError(name, "does not exist", f"check the name; this is {name_text(Path.cwd())}")


def relative_name(path: Path, root: Path) -> str:
    """What frames of a file are called: its path relative to a folder, as text."""
    return name_text(Path(os.path.relpath(path, root)).as_posix())


def _opened(files: _Files, root: Path, name: str, every: int, rule: PixelRule) -> Source:
    source = SeveralFiles(files.photos, files.videos, root, name, every=every, rule=rule)
    source.problems += files.problems
    source.notes += files.notes
    return source


def _add_folder(files: _Files, folder: Path, base: Path) -> None:
    """Takes every photo and video below a folder in, but for results on record in folders from `base` on.

    Raises:
        SourceError: there is none.
    """
    walk, found = Walk(), _Files()
    found.add(walk.files(folder), base)
    problems = [*walk.problems, *found.problems]
    if not found.photos and not found.videos and (base == folder or not found.notes):
        what = "holds no photos and no videos"
        raise SourceError(name_text(folder), f"{what}: {problems[0]}" if problems else what, _ANY_REMEDY)
    _merge(files, found, problems)


def _add_glob(files: _Files, pattern: str, matching: list[Path]) -> None:
    """Takes the photos and videos among the files that a glob matches in.

    Raises:
        SourceError: there is none.
    """
    found = _Files()
    found.add(matching, fixed_part(pattern))
    if not found.photos and not found.videos:
        what = f"matches {len(matching)} files, but no photo and no video"
        raise SourceError(name_text(pattern), what, found.problems[0] if found.problems else _ANY_REMEDY)
    _merge(files, found, found.problems)


def _merge(files: _Files, found: _Files, problems: list[str]) -> None:
    files.photos += found.photos
    files.videos += found.videos
    files.problems += problems
    files.notes += found.notes


def _add_text(files: _Files, text: str) -> None:
    """Takes in what one of several paths, folders and globs names."""
    if not text:  # which a path takes for the current folder
        raise SourceError("source", "is an empty text", "name a photo, video or folder")
    path = expanded(text)
    if path.is_dir():
        _add_folder(files, path, Path(path.anchor))  # a shell's * names folders of results, too
    elif path.is_file():
        kind = kind_of(path)
        (files.videos if kind == "video" else files.photos).append(path)
    elif text == "-":
        raise SourceError("-", "is standard input among files", "run it by itself")
    elif "://" in text:
        raise SourceError(without_password(text), "is an address among files", "run it by itself")
    elif glob.has_magic(text):
        matching = files_matching(str(path), files.problems)
        _add_glob(files, str(path), matching)
    else:
        raise missing_path(text)


def _common_folder(paths: list[Path]) -> Path:
    """The deepest folder that holds them all, so that relative and absolute paths may be mixed."""
    return Path(os.path.commonpath([Path(os.path.abspath(path)).parent for path in paths]))  # noqa: PTH100
