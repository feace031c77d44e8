"""Finding files: below folders, and by globs."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from patchcut.errors import SourceError
from patchcut.output.manifest import recorded_files
from patchcut.texts import name_text


class Walk:
    """The files below folders; each folder is walked once, whatever links lead to it.

    Hidden files and folders are left out by design. Folders come before the links to them, so that a file is
    called by its own path where both are there.

    Attributes:
        problems: a line for each folder that cannot be listed and each link that leads nowhere.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._seen: set[tuple[int, int]] = set()
        self._links: list[Path] = []

    def files(self, folder: Path) -> list[Path]:
        """Every regular file below a folder, in natural order."""
        return in_order(Path(path) for paths in self.by_folder([folder]) for path in paths)

    def by_folder(self, folders: Iterable[Path]) -> Iterator[list[str]]:
        """Every regular file below some folders, those of one at a time, by name: no more are in memory."""
        self._links = []
        for folder in folders:
            yield from self._visit(folder)
        while self._links:
            start, *self._links = in_order(self._links)
            yield from self._visit(start)

    def _visit(self, start: Path) -> Iterator[list[str]]:
        waiting = [str(start)]
        while waiting:
            folder, found, below = waiting.pop(), list[str](), list[str]()
            try:
                status = os.stat(folder)  # noqa: PTH116 - a path is larger
                if (status.st_dev, status.st_ino) in self._seen:
                    continue
                self._seen.add((status.st_dev, status.st_ino))
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if not entry.name.startswith("."):
                            self._take(entry, found, below)
            except OSError as error:
                what = f"cannot be listed: {error.strerror}"
                self.problems.append(str(SourceError(name_text(folder), what, "check the folder's rights")))
            yield sorted(found)
            waiting += sorted(below, reverse=True)

    def _take(self, entry: os.DirEntry[str], found: list[str], below: list[str]) -> None:
        if entry.is_dir(follow_symlinks=False):
            below.append(entry.path)
        elif entry.is_file(follow_symlinks=False) or (
            entry.is_symlink() and self._leads_to_file(Path(entry.path))
        ):
            found.append(entry.path)

    def _leads_to_file(self, link: Path) -> bool:
        """Whether it does; one that leads to a folder is kept for later."""
        try:
            mode = link.stat().st_mode
        except OSError:
            what, remedy = "is a link that leads nowhere", "remove it, or mend what it leads to"
            self.problems.append(str(SourceError(name_text(link), what, remedy)))
            return False
        if stat.S_ISDIR(mode):
            self._links.append(link)
        return stat.S_ISREG(mode)


def files_matching(pattern: str, problems: list[str]) -> list[Path]:
    """The files that a glob matches, in natural order; `**` walks through folders, each once.

    Raises:
        SourceError: there is none.
    """
    base, rest = _split_at_stars(pattern)
    if rest:
        walk = Walk()
        folders = [Path(match) for match in _matches(base)] if glob.has_magic(base) else [Path(base)]
        found = [
            path
            for folder in in_order(folder for folder in folders if folder.is_dir())
            for path in walk.files(folder)
            if _is_match(path.relative_to(folder).parts, rest)
        ]
        problems += walk.problems
    else:
        found = [path for path in map(Path, _matches(pattern)) if path.is_file()]
    if not found:
        raise SourceError(pattern, "matches no file", "check the pattern; ** walks through folders")
    return in_order(found)


def without_results(files: Sequence[Path], base: Path) -> list[Path]:
    """The files that no run of patchcut has written, as far as folders from `base` on have it on record."""
    recorded: dict[Path, frozenset[str]] = {}
    kept = []
    for path in files:
        below_base = path.parents[: len(path.parents) - len(base.parents)]
        for folder in below_base:
            if folder not in recorded:
                recorded[folder] = recorded_files(folder)
        if not any(
            recorded[folder] and name_text(path.relative_to(folder)) in recorded[folder]
            for folder in below_base
        ):
            kept.append(path)
    return kept


def fixed_part(pattern: str) -> Path:
    """The folder before the first part of a glob that can match several."""
    folders = Path(pattern).parts[:-1]
    magic = (i for i, part in enumerate(folders) if glob.has_magic(part))
    return Path(*folders[: next(magic, len(folders))])


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Sorted as a person would: img2 before img10, whatever the case."""
    return sorted(paths, key=lambda path: ([_natural(name) for name in path.parts], str(path)))


def _matches(pattern: str) -> Iterable[str]:
    return glob.iglob(pattern)  # noqa: PTH207 - Path.glob wants a root apart


def _split_at_stars(pattern: str) -> tuple[str, list[str]]:
    """What comes before a part `**`, and the parts from there on; none where there is no such part."""
    parts = list(Path(pattern).parts)
    if "**" not in parts:
        return pattern, []
    first = parts.index("**")
    rest = [part for i, part in enumerate(parts[first:]) if part != "**" or parts[first + i - 1] != "**"]
    return str(Path(*parts[:first])), rest if rest[:1] == ["**"] else ["**", *rest]


def _is_match(names: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not names
    if pattern[0] == "**":
        if pattern[1:] == []:
            return True
        return any(_is_match(names[i:], pattern[1:]) for i in range(len(names)))
    return bool(names) and fnmatch.fnmatchcase(names[0], pattern[0]) and _is_match(names[1:], pattern[1:])


def _natural(text: str) -> list[int | str]:
    # Splitting at digits alternates text and number, so that like is always compared with like.
    pieces = re.split(r"([0-9]+)", text)
    return [int(piece[:4000]) if i % 2 else piece.casefold() for i, piece in enumerate(pieces)]
