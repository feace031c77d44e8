"""What the sources of a batch hold: photos and videos, found while the folders are walked."""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from patchcut.checks import check_text
from patchcut.errors import SourceError
from patchcut.output.manifest import recorded_files
from patchcut.pixels import AS_IT_COMES, PixelRule
from patchcut.sources.av_videos import PacketTimes
from patchcut.sources.key_frames import packet_times
from patchcut.sources.several import expanded, missing_path
from patchcut.sources.sniffing import kind_of
from patchcut.sources.walking import Walk, files_matching
from patchcut.texts import name_text

# Videos that are read for their key frames at once: what is waited for is the disk or the network.
_READERS = 8
# Files that are found ahead of one whose key frames are still looked for.
_MOST_WAITING = 10_000


@dataclass(frozen=True)
class Found:
    """A file.

    Attributes:
        path: relative to the root of the sources.
        kind: what it holds.
        times: when the frames of a video are shown; None of a photo, and where it cannot be cut.
    """

    path: str
    kind: Literal["photo", "video"]
    times: PacketTimes | None = None


class Listing:
    """The photos and videos that texts mean: folders, files and globs.

    A file is found once, however often it is named. Hidden files, and results that runs of patchcut have on
    record, are left out. No more than the names in one folder are in memory.

    Args:
        texts: the sources.
        rule: which videos are refused.
    Attributes:
        texts: the sources as absolute paths.
        root: the folder that holds them all.
        problems: a line for each folder and file that cannot be read; complete once iteration ends.
    Raises:
        SourceError: one of them does not exist, or is no file.
    """

    def __init__(self, texts: Sequence[str], *, rule: PixelRule = AS_IT_COMES) -> None:
        self.texts = tuple(os.path.abspath(expanded(_checked(text))) for text in texts)  # noqa: PTH100
        self.problems: list[str] = []
        self._rule = rule
        self._folders = [Path(text) for text in self.texts if Path(text).is_dir()]
        self._files = [path for text in self.texts if not Path(text).is_dir() for path in self._named(text)]
        homes = [*self._folders, *(path.parent for path in self._files)]
        self.root = Path(os.path.commonpath(homes))

    def __iter__(self) -> Iterator[Found]:
        """What is found, files that were named first; a video's key frames are looked for meanwhile."""
        with ThreadPoolExecutor(_READERS, "patchcut-key-frames") as pool:
            waiting: deque[Found | tuple[str, Future[PacketTimes | None]]] = deque()
            below = os.path.join(self.root, "")  # noqa: PTH118 - relpath takes a third of all the time
            try:
                for path in self._paths():
                    if (kind := self._kind(path)) is None:
                        continue
                    relative = path[len(below) :]
                    if kind == "photo" and not waiting:
                        yield Found(relative, "photo")
                        continue
                    looked = (relative, pool.submit(packet_times, Path(path), rule=self._rule))
                    waiting.append(Found(relative, "photo") if kind == "photo" else looked)
                    while waiting and (len(waiting) > _MOST_WAITING or _is_known(waiting[0])):
                        yield self._known(waiting.popleft())
                while waiting:
                    yield self._known(waiting.popleft())
            finally:
                pool.shutdown(cancel_futures=True)

    def _paths(self) -> Iterator[str]:
        named = dict.fromkeys(map(str, self._files))
        yield from named
        alone = self._folders[0] if len(self.texts) == 1 and self._folders else None
        walk, own = Walk(), _Records(alone or Path(self.root.anchor))  # a shell's * names results, too
        for paths in walk.by_folder(self._folders):
            yield from (path for path in own.without_results(paths) if path not in named)
        self.problems += walk.problems

    def _named(self, text: str) -> list[Path]:
        path = Path(text)
        if path.is_file():
            return [path]
        if glob.has_magic(text) and not os.path.lexists(text):
            return files_matching(text, self.problems)
        raise missing_path(text)

    def _kind(self, path: str) -> Literal["photo", "video"] | None:
        try:
            kind = kind_of(Path(path))
        except OSError as error:
            what = f"cannot be read: {error.strerror}"
            self.problems.append(str(SourceError(name_text(path), what, "check its rights")))
            return None
        if kind == "raw":
            what = "is a camera's raw file, which is left out"
            self.problems.append(str(SourceError(name_text(path), what, "develop it to JPEG or PNG")))
        return kind if kind in ("photo", "video") else None

    @staticmethod
    def _known(one: Found | tuple[str, Future[PacketTimes | None]]) -> Found:
        """The video with its key frames; what is wrong with one is told by whoever decodes it."""
        if isinstance(one, Found):
            return one
        path, looked = one
        times = None
        with suppress(SourceError, OSError):
            times = looked.result()
        return Found(path, "video", times)


class _Records:
    """What runs of patchcut have on record, in the folders from a base to the one that is looked at."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._recorded: dict[Path, frozenset[str]] = {}

    def without_results(self, paths: list[str]) -> list[str]:
        """The files of one folder that no run has written."""
        if not paths:
            return paths
        home = Path(paths[0]).parent
        above = [folder for folder in (home, *home.parents) if folder.is_relative_to(self._base)]
        known = self._recorded
        self._recorded = {one: known[one] if one in known else recorded_files(one) for one in above}
        for folder, names in self._recorded.items():
            if names:
                paths = [path for path in paths if name_text(os.path.relpath(path, folder)) not in names]
        return paths


def _is_known(one: Found | tuple[str, Future[PacketTimes | None]]) -> bool:
    return isinstance(one, Found) or one[1].done()


def _checked(text: str) -> str:
    check_text("source", text)
    if text == "-" or "://" in text:
        what = f"{name_text(text)} is no file, and a batch is done again from where it was stopped"
        raise SourceError("source", what, "name folders, files and globs; `patchcut run` takes the rest")
    return text
