"""The files of an output folder: each whole or not there, on record, and in no place of another's."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import weakref
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy.typing as npt

from patchcut.errors import OutputError
from patchcut.output.manifest import (
    OPEN_FOLDER,
    OWN_FOLDER,
    Done,
    Manifest,
    is_below,
    words_of,
)
from patchcut.output.whole_files import (
    CREATE,
    check_writable,
    encode_image,
    output_error,
    partial_suffix,
    remove_empty,
)


class OutputFiles:
    """Writes files below one folder, and remembers in its manifest which.

    Only a file that a manifest names is ever replaced or removed, and nothing is written, replaced or removed
    through a linked folder; the root itself may be a link. Unfinished files have random names in
    DIR/.patchcut; what runs that were killed have left there is removed.

    Args:
        root: the folder; made if it is not there.
        redo: words of sinks whose results are all made again.
    Attributes:
        item: the files written since `begin_item`, and how many bytes each has.
        words: the sinks that have written something.
    Raises:
        OutputError: it cannot be written.
    Examples:
        >>> files = patchcut.output.files.OutputFiles(folder)
        >>> files.write("json/a.json", b"{}")
        >>> files.close()
        >>> (folder / "json/a.json").read_text()
        '{}'
    """

    def __init__(self, root: Path, redo: Collection[str] = ()) -> None:
        self._made = check_writable(root)
        self.root = root
        self.item: dict[str, int] = {}
        self.words: set[str] = set()
        self._rewritten: set[str] | None = set() if redo else None
        self._sorted: list[str] | None = None
        try:
            self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
            self._close_root = weakref.finalize(self, os.close, self._root)
            self.manifest = Manifest(self._root, redo)
            weakref.finalize(self, self.manifest.close)
            self.manifest.begin()  # its journal keeps other runs from taking the folder for an empty one
        except OSError as error:
            raise output_error(root / OWN_FOLDER, error) from error

    def write(self, relative: str | PurePath, data: bytes) -> None:
        """Writes one file.

        Args:
            relative: its path below the root, such as "json/a.json".
        Raises:
            OutputError: "[output] cannot write DIR/json/a.json: No space left on device; ...".
        """
        with self.whole_file(relative) as partial:
            partial.write_bytes(data)

    def write_image(self, relative: str | PurePath, image: npt.NDArray[Any]) -> None:
        """Encodes [H, W], [H, W, 3] BGR or [H, W, 4] BGRA by the path's suffix, and writes it.

        Raises:
            OutputError: it cannot be encoded or written.
        """
        self.write(relative, encode_image(self.path(relative), image))

    @contextlib.contextmanager
    def whole_file(self, relative: str | PurePath) -> Iterator[Path]:
        """A path to write to, of an empty file that is there; when the block ends it takes its place.

        The path is of plain letters whatever the folder's own name is. When an exception ends the block, the
        file is removed, and what was there before stays.

        Args:
            relative: a path below the root as text, or a whole `Path`, see `path`.
        Raises:
            OutputError: as `write`, for any OSError of the block too.
        """
        with self._placed(relative) as (name, folder):
            yield _plain_path(self.root / OWN_FOLDER, folder) / name

    def path(self, relative: str | PurePath) -> Path:
        """The whole path of a file."""
        return self.root / relative

    def begin_item(self) -> None:
        """From here on `item` lists the files written: those of one photo or frame."""
        self.item = {}

    def holds(self, word: str) -> bool:
        """Whether anything is where a sink writes, whoever wrote it.

        Raises:
            OutputError: a link or a file is where its folder would be.
        """
        recorded = self.manifest.over.files
        files = [path for path in recorded if "/" not in path and words_of(path) == word]
        if any(self._size(path) is not None for path in files):
            return True
        try:
            descriptor = os.open(word, OPEN_FOLDER, dir_fd=self._root)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise output_error(self.root / word, error) from error
        try:
            if not os.access(".", os.W_OK, dir_fd=descriptor):
                raise output_error(self.root / word, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
            return bool(os.listdir(descriptor))  # noqa: PTH208 - pathlib takes no descriptor
        finally:
            os.close(descriptor)

    def remove_others(self, folder: str, names: Collection[str]) -> None:
        """Removes what runs that are over wrote directly in a folder, but for these names."""
        for path in self._earlier(f"{folder}/"):
            parent, _, name = path.rpartition("/")
            if parent == folder and name not in names:
                self._remove(path)

    def remove_stale(self, words: Collection[str]) -> None:
        """Removes what runs that are over wrote for these sinks and this run has not written again."""
        if not self._rewritten:  # nothing came of this run
            return
        for path in set(self.manifest.over.files) - self._rewritten:
            if words_of(path) in words:
                self._remove(path)

    def done(self, key: str, done: Done, recipe: Mapping[str, Any]) -> None:
        """Puts on record that everything of a photo or video is written.

        Args:
            key: what its source calls it.
            recipe: what `done.recipe` is the short name of.
        Raises:
            OutputError: the record cannot be written.
        """
        if done.recipe not in self.manifest.over.recipes:
            self.manifest.over.recipes[done.recipe] = dict(recipe)
            self._record("recipe", done.recipe, dict(recipe))
        self._record("done", key, vars(done))

    def is_done(self, key: str, wanted: Done) -> bool:
        """Whether earlier runs did the same, and left all files as they are."""
        missing = set(wanted.words)
        for whose, done in self.manifest.over.done.get(wanted.name, []):
            same = (whose, done.stamp, done.recipe) == (key, wanted.stamp, wanted.recipe)
            if same and self._is_whole(done):
                missing -= set(done.words)
        return not missing

    def note(self, word: str, name: str, note: Any) -> None:
        """Remembers something plain, as JSON can tell it, for runs that resume this one.

        Raises:
            OutputError: it cannot be written.
        """
        self._record("note", word, name, note)

    def notes(self, word: str) -> dict[str, Any]:
        """What runs that are over have noted, by name."""
        return self.manifest.over.notes.get(word, {})

    def close(self, *, keep_empty: bool = True) -> None:
        """Ends the run's record; harmless when called again.

        Args:
            keep_empty: whether a root that was made for this run stays where nothing is in it.
        """
        with contextlib.suppress(OSError):
            self.manifest.close()
        self._close_root()
        if not keep_empty:
            remove_empty(self._made)

    @contextlib.contextmanager
    def _placed(self, relative: str | PurePath) -> Iterator[tuple[str, int]]:
        """An empty file's name and its folder's descriptor; renamed to its place when the block ends."""
        if isinstance(relative, Path):
            relative = relative.relative_to(self.root)
        path = self.path(relative)
        name, made = "", False
        try:
            name = self.manifest.partial(partial_suffix(path))
            os.close(os.open(name, CREATE, 0o666, dir_fd=self.manifest.folder))
            made = True
            yield name, self.manifest.folder
            self._place(name, PurePosixPath(relative).as_posix())
            made = False
        except OSError as error:
            raise output_error(path, error) from error
        finally:
            if made:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self.manifest.folder)

    def _place(self, partial: str, relative: str) -> None:
        if not is_below(relative):
            raise OutputError("output", f"{relative} leads out of {self.root}", "report this")
        *folders, name = relative.split("/")
        own = self.manifest.folder
        status = os.stat(partial, dir_fd=own, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise OutputError("output", f"{self.path(relative)} was replaced while it was written")
        with self._folder(folders, make=True) as folder:
            self._check_ours(folder, name, relative)
            self.manifest.add("file", relative, status.st_size)
            os.rename(partial, name.encode(), src_dir_fd=own, dst_dir_fd=folder)
        self.item[relative] = status.st_size
        self.words.add(words_of(relative))
        if self._rewritten is not None:
            self._rewritten.add(relative)

    def _check_ours(self, folder: int, name: str, relative: str) -> None:
        """Checks that nothing is at a path, or what a run wrote.

        Raises:
            OutputError: somebody else's file is there.
        """
        try:
            os.stat(name.encode(), dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not self.manifest.knows(relative):
            self.manifest.refresh()
        if not self.manifest.knows(relative):
            what = f"{self.path(relative)} is there already, and no run of patchcut has it on record"
            raise OutputError("output", what, "move it away, or choose another folder")

    @contextlib.contextmanager
    def _folder(self, names: list[str], *, make: bool = False) -> Iterator[int]:
        """A descriptor of a folder below the root, reached through no link."""
        descriptor = os.dup(self._root)
        try:
            for name in map(str.encode, names):
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, dir_fd=descriptor)
                below = os.open(name, OPEN_FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)

    def _size(self, relative: str) -> int | None:
        """Bytes of a file, None where there is none."""
        *folders, name = relative.split("/")
        with contextlib.suppress(OSError), self._folder(folders) as folder:
            status = os.stat(name.encode(), dir_fd=folder, follow_symlinks=False)
            return status.st_size if stat.S_ISREG(status.st_mode) else None
        return None

    def _remove(self, relative: str) -> None:
        """Removes a file as a run left it, and the folders that are empty then; not one that was changed."""
        if self._size(relative) != self.manifest.over.files.get(relative):
            return
        *folders, name = relative.split("/")
        with contextlib.suppress(OSError):
            with self._folder(folders) as folder:
                os.unlink(name.encode(), dir_fd=folder)
            self.manifest.forget(relative)
            while folders:
                *folders, last = folders
                with self._folder(folders) as folder:
                    os.rmdir(last.encode(), dir_fd=folder)

    def _is_whole(self, done: Done) -> bool:
        if any(self._size(path) != size for path, size in done.files.items()):
            return False
        if not done.frame_files:
            return True
        frames = [path for word in done.words for path in self._earlier(f"{word}/{done.name}/")]
        earlier = self.manifest.over.files
        return len(frames) == done.frame_files and all(self._size(path) == earlier[path] for path in frames)

    def _earlier(self, prefix: str) -> list[str]:
        """Paths that begin so, of runs that are over."""
        if self._sorted is None:
            self._sorted = sorted(self.manifest.over.files)
        first, last = (bisect_left(self._sorted, text) for text in (prefix, prefix + "\U0010ffff"))
        return [path for path in self._sorted[first:last] if path in self.manifest.over.files]

    def _record(self, *line: Any) -> None:
        try:
            self.manifest.add(*line)
        except OSError as error:
            raise output_error(self.root / OWN_FOLDER, error) from error


def _plain_path(folder: Path, descriptor: int) -> Path:
    """A path of plain letters to an open folder, where this system has one: encoders stumble over others."""
    plain = Path(f"/proc/self/fd/{descriptor}")
    return plain if plain.is_dir() else folder
