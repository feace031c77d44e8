"""What runs have written into an output folder, on record in DIR/.patchcut.

Each run keeps one journal there, run-<random>.jsonl, which it holds locked while it works. The next run takes
over the journals of runs that are over. A line is written before its file takes its place, so that no file of
a run that was killed is unknown. The lines are JSON:

    ["file", "masks/a/01.png", 1234]       this run wrote that file, of that many bytes
    ["recipe", "5f0c...", {...}]           what results depend on, under a short name
    ["done", "a.jpg", {...}]               everything of that photo or video is written, see `Done`
    ["note", "coco", "a", {...}]           what a sink remembers of it
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from patchcut.output.whole_files import CREATE, lock

OWN_FOLDER = ".patchcut"
_LONGEST_LINE = 2**26  # of a journal; one that was planted may have no end
OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(frozen=True)
class Done:
    """A photo or video of which everything is written.

    Attributes:
        name: what its results are called.
        stamp: what its file was, see `patchcut.sources.base.stamp_of`.
        words: the sinks that wrote it.
        recipe: the short name of what its results depend on.
        files: their files, and how many bytes each has; of a video those that are not of one frame.
        frame_files: how many files those of a video's frames are.
    """

    name: str
    stamp: str
    words: list[str]
    recipe: str
    files: dict[str, int]
    frame_files: int = 0


@dataclass
class Records:
    """All that journals tell.

    Attributes:
        files: paths below the folder, and how many bytes each had.
        done: by the name of the results, with the name of their photo or video, which may have been named
            twice; the last entry of each sink counts.
        recipes: by their short names.
        notes: by sink, then by the name of the results.
    """

    files: dict[str, int] = field(default_factory=dict)
    done: dict[str, list[tuple[str, Done]]] = field(default_factory=dict)
    recipes: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, line: bytes) -> None:
        """Takes one line in; one that was cut short or is none of ours is passed over."""
        with contextlib.suppress(ValueError, TypeError, LookupError, RecursionError):
            kind, *told = json.loads(line)
            if kind == "file" and is_below(told[0]):
                self.files[told[0]] = int(told[1])
            elif kind == "recipe":
                self.recipes[str(told[0])] = dict(told[1])
            elif kind == "done":
                self._add_done(str(told[0]), _checked(Done(**told[1])))
            elif kind == "note":
                self.notes.setdefault(str(told[0]), {})[str(told[1])] = told[2]

    def redo(self, words: Collection[str]) -> None:
        """Forgets that these sinks are done with anything."""
        self.done = {
            name: kept
            for name, all_done in self.done.items()
            if (kept := [(key, one) for key, one in all_done if not set(words) & set(one.words)])
        }
        self.notes = {word: notes for word, notes in self.notes.items() if word not in words}

    def lines(self) -> Iterator[tuple[Any, ...]]:
        """What `add` takes, to write it down again."""
        yield from (("file", path, size) for path, size in self.files.items())
        yield from (("recipe", name, recipe) for name, recipe in self.recipes.items())
        for all_done in self.done.values():
            yield from (("done", key, asdict(done)) for key, done in all_done)
        for word, notes in self.notes.items():
            yield from (("note", word, name, note) for name, note in notes.items())

    def _add_done(self, key: str, done: Done) -> None:
        """Takes an entry in, for those whose files it has replaced."""
        words = set(done.words)
        kept = [
            (other, one)
            for other, one in self.done.get(done.name, [])
            if not (set(one.words) <= words if other == key else set(one.words) & words)
        ]
        self.done[done.name] = [*kept, (key, done)]


def _checked(done: Done) -> Done:
    """The entry itself.

    Raises:
        TypeError: it is none that a run has written.
    """
    texts = [done.name, done.stamp, done.recipe, *done.words, *done.files]
    if not isinstance(done.words, list) or not isinstance(done.files, dict):
        raise TypeError("words and files")
    if not all(isinstance(text, str) for text in texts) or not all(map(is_below, done.files)):
        raise TypeError("texts")
    return done


def is_below(relative: object) -> bool:
    """Whether a text is a path of a file below the folder; a journal may have been planted."""
    if not isinstance(relative, str) or "\0" in relative or relative.startswith("/"):
        return False
    parts = relative.split("/")
    return not {"", ".", "..", OWN_FOLDER} & set(parts)


def recorded_files(folder: str | os.PathLike[str]) -> frozenset[str]:
    """Paths below `folder` that runs have written there; none where no run has."""
    try:
        own = os.open(Path(folder, OWN_FOLDER), OPEN_FOLDER)
    except (OSError, ValueError):
        return frozenset()
    try:
        records = Records()
        for name in _journals(own):
            with contextlib.suppress(OSError), _opened(own, name) as descriptor:
                _read(descriptor, 0, records, b'["file"')
        return frozenset(records.files)
    finally:
        os.close(own)


class Manifest:
    """The journals of one folder: those of others to read, an own one to write.

    Args:
        root: descriptor of the output folder.
        redo: sinks that do everything again.
    Attributes:
        over: what runs that are over have written; theirs may be removed.
        folder: descriptor of DIR/.patchcut, -1 where it is not there.
    """

    def __init__(self, root: int, redo: Collection[str] = ()) -> None:
        self.over = Records()
        self._others: set[str] = set()
        self.folder = -1
        self._root = root
        self._redo = redo
        self._removed: set[str] = set()
        self._told = False
        self._journal = -1
        self._run = ""
        self._torn = False
        self._read_to: dict[str, int] = {}
        if self._open(create=False):
            self._begin()

    def add(self, *line: Any) -> None:
        """Writes a line down; the first one makes the journal.

        Raises:
            OSError: it cannot be written.
        """
        self.begin()
        self._told = True
        self._append(json.dumps(line).encode() + b"\n")

    def begin(self) -> None:
        """Makes the folder of journals and the run's own, if they are not there."""
        if self._journal < 0:
            self._open(create=True)
            self._begin()

    def partial(self, suffix: str) -> str:
        """A new name for an unfinished file in `folder`, which shows whose it is."""
        self.begin()
        return f"partial-{self._run}-{secrets.token_hex(8)}{suffix}"

    def knows(self, relative: str) -> bool:
        """Whether a run has written a file, so that it may be replaced; one that runs now included."""
        return relative in self.over.files or relative in self._others

    def refresh(self) -> None:
        """Learns what this run and those that run now have written since."""
        if self.folder < 0:
            return
        for name in _journals(self.folder):
            with contextlib.suppress(OSError):
                self._read_journal(name)

    def forget(self, relative: str) -> None:
        """Takes a file out that was removed."""
        self._removed.add(relative)
        self.over.files.pop(relative, None)

    def close(self) -> None:
        """Lets the journal go for the next run to take over; harmless when called again.

        Raises:
            OSError: it could not be written anew without what was removed.
        """
        try:
            if self._journal >= 0 and (self._removed or not self._told):
                self._rewrite()
        finally:
            for descriptor in (self._journal, self.folder):
                if descriptor >= 0:
                    os.close(descriptor)
            self._journal = self.folder = -1

    def _open(self, create: bool) -> bool:
        try:
            self.folder = os.open(OWN_FOLDER, OPEN_FOLDER, dir_fd=self._root)
        except FileNotFoundError:
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(OWN_FOLDER, dir_fd=self._root)
                self.folder = os.open(OWN_FOLDER, OPEN_FOLDER, dir_fd=self._root)
        return self.folder >= 0

    def _begin(self) -> None:
        """Makes the own journal and takes over those that nobody holds."""
        while True:
            self._run = secrets.token_hex(8)
            name = f"run-{self._run}.jsonl"
            flags = CREATE & ~os.O_WRONLY | os.O_RDWR | os.O_APPEND
            self._journal = os.open(name, flags, 0o666, dir_fd=self.folder)
            lock(self._journal)
            if os.fstat(self._journal).st_nlink:  # else another run took it for one that is over
                break
            os.close(self._journal)
        held: list[tuple[str, int]] = []
        for other in _journals(self.folder):
            with contextlib.suppress(OSError):
                held += self._read_journal(other, keep=True)
        self.over.redo(self._redo)
        if self.over.files:
            self._told = True
            self._append(b"".join(json.dumps(line).encode() + b"\n" for line in self.over.lines()))
        for other, descriptor in held:
            self._take_over(other)
            os.close(descriptor)

    def _rewrite(self) -> None:
        records = Records()
        _read(self._journal, 0, records)
        for path in self._removed:
            records.files.pop(path, None)
        name = f"run-{self._run}.jsonl"
        if not records.files:
            os.unlink(name, dir_fd=self.folder)
            with contextlib.suppress(OSError):
                os.rmdir(OWN_FOLDER, dir_fd=self._root)
            return
        partial = self.partial(".jsonl")
        descriptor = os.open(partial, CREATE, 0o666, dir_fd=self.folder)
        lock(descriptor)
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.writelines(json.dumps(line).encode() + b"\n" for line in records.lines())
        os.rename(partial, name, src_dir_fd=self.folder, dst_dir_fd=self.folder)
        os.close(self._journal)
        self._journal = descriptor

    def _read_journal(self, name: str, *, keep: bool = False) -> list[tuple[str, int]]:
        """Reads what is new in a journal; with `keep`, its name and descriptor if its run is over."""
        if keep and name == f"run-{self._run}.jsonl":
            return []
        with _opened(self.folder, name) as descriptor:
            over = keep and lock(descriptor)
            records = self.over if over else Records()
            self._read_to[name] = _read(descriptor, self._read_to.get(name, 0), records)
            if not over:
                self._others |= records.files.keys()
            return [(name, os.dup(descriptor))] if over else []

    def _take_over(self, name: str) -> None:
        """Removes the journal of a run that is over, and what it left unfinished."""
        run = name.removeprefix("run-").removesuffix(".jsonl")
        for left in _listed(self.folder):
            if left == name or left.startswith(f"partial-{run}-"):
                with contextlib.suppress(OSError):
                    os.unlink(left, dir_fd=self.folder)

    def _append(self, data: bytes) -> None:
        view = memoryview(b"\n" + data if self._torn else data)
        self._torn = True
        while view:
            view = view[os.write(self._journal, view) :]
        self._torn = False


def recipe_name(recipe: Mapping[str, Any]) -> str:
    """A short name of what results depend on, equal where that is equal."""
    import hashlib

    return hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode()).hexdigest()[:16]


def words_of(relative: str) -> str:
    """The sink that wrote a file: its first folder; of one in none its name, of results.jsonl its suffix."""
    name, _, suffix = PurePosixPath(relative).parts[0].partition(".")
    return suffix if name == "results" and suffix else name


def _journals(folder: int) -> list[str]:
    return sorted(name for name in _listed(folder) if name.startswith("run-") and name.endswith(".jsonl"))


def _listed(folder: int) -> list[str]:
    return os.listdir(folder)


@contextlib.contextmanager
def _opened(folder: int, name: str) -> Iterator[int]:
    """A descriptor of a regular file; a link or a pipe of that name is none of ours."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("no regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int, start: int, records: Records, kind: bytes = b"") -> int:
    """Takes the whole lines of a journal from `start` on in, and returns where they end.

    Args:
        kind: what lines begin with that are wanted.
    """
    os.lseek(descriptor, start, os.SEEK_SET)
    with os.fdopen(os.dup(descriptor), "rb") as file:
        while len(line := file.readline(_LONGEST_LINE)) < _LONGEST_LINE and line.endswith(b"\n"):
            if line.startswith(kind):
                records.add(line)
            start += len(line)
    return start
