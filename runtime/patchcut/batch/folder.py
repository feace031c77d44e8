"""The folder of a batch that is worked on."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchcut.batch.plan import Shard, read_plan
from patchcut.batch.records import (
    ABOUT,
    DONE,
    FAILURES,
    PLAN,
    SHARDS,
    About,
    Failure,
    ShardReport,
    about_of,
    failure_lines,
    read_journal,
    shard_path,
)
from patchcut.errors import OptionError, OutputError, SourceError
from patchcut.output.whole_files import check_writable, lock, output_error, remove, whole_file, write_whole
from patchcut.texts import name_text

if TYPE_CHECKING:
    from typing_extensions import Self


class BatchFolder:
    """The folder of a batch that is worked on: one process at a time holds it.

    Args:
        path: the folder; made if it is not there.
        wanted: what is to be made.
        retry: do shards again in which something failed.
    Attributes:
        about: what is made.
        done: rows and failures of the shards that are done, by their numbers.
    Raises:
        OptionError: it was made of other sources or with other settings, or holds something else.
        OutputError: it cannot be written, or another process works on it.
    """

    def __init__(self, path: Path, wanted: About, *, retry: bool = False) -> None:
        self.path, self.about = path, wanted
        self.done: dict[int, tuple[int, int]] = {}
        before = about_of(path)
        if before is None:
            _check_empty(path)
        check_writable(path)
        check_writable(path / SHARDS)
        check_writable((path / PLAN).parent)
        self._journal = self._hold()
        try:
            reports = self._reports()
            if before is not None:
                self._check_same(before, bool(reports))
            self._begin(before, {} if before is None else reports, retry)
        except BaseException:
            os.close(self._journal)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def failed(self) -> int:
        """How many frames and files failed in shards that are done, or could not be listed."""
        return len(self.about.unread) + sum(failures for _, failures in self.done.values())

    @property
    def rows(self) -> int:
        """How many frames are in shards that are done."""
        return sum(rows for rows, _ in self.done.values())

    @property
    def is_planned(self) -> bool:
        """Whether it is decided which frames go where."""
        return self.about.shards is not None

    def plan(self, shards: Iterator[Shard], told: Callable[[int], object], unread: list[str]) -> None:
        """Writes the plan down.

        Args:
            shards: of the plan.
            told: called with the number of frames of each shard.
            unread: what could not be listed; complete when the shards end.
        Raises:
            SourceError: there is no shard.
            OutputError: it cannot be written.
        """
        frames = count = 0
        with whole_file(self.path / PLAN) as partial, partial.open("w", encoding="ascii") as file:
            for shard in shards:
                file.write(shard.line() + "\n")
                count, frames = count + 1, frames + shard.frames
                told(shard.frames)
        if not count:
            sources = ", ".join(map(name_text, self.about.recipe["sources"][:3]))
            what = unread[0] if unread else "hold no photos and no videos"
            raise SourceError(sources, what, "name photos, videos, or folders of them")
        self._tell(replace(self.about, frames=frames, shards=count, unread=tuple(unread)))
        self._write_failures()

    def shards(self) -> Iterator[Shard]:
        """All shards of the plan.

        Raises:
            OutputError: the plan is damaged.
        """
        path = self.path / PLAN
        try:
            yield from read_plan(path)
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise OutputError("output", f"{path} cannot be read: {error}", "choose another folder") from error

    def shard_path(self, number: int) -> Path:
        """The file of a shard."""
        return shard_path(self.path, self.about.format, number)

    def add(self, report: ShardReport) -> None:
        """Puts on record that a shard is done.

        Raises:
            OutputError: the record cannot be written.
        """
        self._append(self._journal, report.line(), self.path / DONE)
        self.done[report.number] = report.rows, len(report.failures)
        if report.failures:
            path = self.path / FAILURES
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            except OSError as error:
                raise output_error(path, error) from error
            with contextlib.closing(os.fdopen(descriptor, "ab", buffering=0)):
                self._append(descriptor, failure_lines(report.number, report.failures), path)

    def close(self) -> None:
        """Writes the failures of all shards, in their order, and lets the folder go; harmless when repeated.

        Raises:
            OutputError: they cannot be written.
        """
        if self._journal < 0:
            return
        try:
            self._write_failures()
        finally:
            os.close(self._journal)
            self._journal = -1

    def unfinished(self) -> list[int]:
        """Shards of the plan that are not done, or whose file is not as it was left."""
        reports = self._reports()
        return [number for number in range(self.about.shards or 0) if not self._is_whole(number, reports)]

    def _hold(self) -> int:
        path = self.path / DONE
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise output_error(path, error) from error
        if not lock(descriptor):
            os.close(descriptor)
            raise OutputError("output", f"{self.path} is worked on by another process", "wait until it ends")
        return descriptor

    def _check_same(self, before: About, begun: bool) -> None:
        """Checks that the folder was made as it is wanted now; one without a shard may become another.

        Raises:
            OptionError: it was not.
        """
        differing = [name for name, value in self.about.recipe.items() if before.recipe.get(name) != value]
        if begun and (differing or before.recipe.keys() != self.about.recipe.keys()):
            named = ", ".join(_difference(name, before.recipe, self.about.recipe) for name in differing)
            what = f"{name_text(self.path)} holds results of another run: {named or 'other settings'}"
            raise OptionError("dst", what, "choose another folder, or repeat what it was made with")

    def _begin(self, before: About | None, reports: Mapping[int, ShardReport], retry: bool) -> None:
        if before is not None and before.recipe == self.about.recipe and before.shards is not None:
            self.about = before
        else:
            self._start_anew()
        for number, report in reports.items():
            if self._is_whole(number, reports) and not (retry and report.failures):
                self.done[number] = report.rows, len(report.failures)
        self._write_failures()

    def _start_anew(self) -> None:
        """Begins with a folder of which no shard is on record: one may have been written all the same."""
        os.ftruncate(self._journal, 0)
        for path in (self.path / SHARDS).glob("[0-9]*"):
            remove(path)
        self._tell(self.about)

    def _tell(self, about: About) -> None:
        write_whole(self.path / ABOUT, about.to_json())
        self.about = about

    def _reports(self) -> dict[int, ShardReport]:
        """What the journal tells; a last line that was torn is cut off, so that the next one is whole."""
        with (self.path / DONE).open("rb") as file:
            reports, end = read_journal(file)
        if end < os.fstat(self._journal).st_size:
            os.ftruncate(self._journal, end)
        return reports

    def _is_whole(self, number: int, reports: Mapping[int, ShardReport]) -> bool:
        if number not in reports:
            return False
        with contextlib.suppress(OSError):
            return self.shard_path(number).stat().st_size == reports[number].size_bytes
        return False

    def _write_failures(self) -> None:
        """What could not be listed, and what failed in shards that are done, in the order of the plan."""
        reports, path = self._reports(), self.path / FAILURES
        unread = [Failure(text[1:].partition("] ")[0], None, text) for text in self.about.unread]
        lines = [failure_lines(None, unread)]
        for number in sorted(self.done):
            lines.append(failure_lines(number, reports[number].failures))
        if any(lines) or path.exists():
            write_whole(path, b"".join(lines))

    @staticmethod
    def _append(descriptor: int, line: bytes, path: Path) -> None:
        """Writes a line, all of it or none."""
        end = os.fstat(descriptor).st_size
        try:
            if os.write(descriptor, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, end)
            raise output_error(path, error) from error


def _check_empty(path: Path) -> None:
    """Checks that a folder holds nothing, but for what a run may have left that was killed at its begin.

    Raises:
        OptionError: it holds something.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        held = {one.name for one in path.iterdir() if not one.name.startswith(".")}
        if SHARDS in held and not any((path / SHARDS).iterdir()):
            held.remove(SHARDS)
        if held:
            what = f"{name_text(path)} holds {name_text(min(held))}, which is none of a batch's"
            raise OptionError("dst", what, "choose an empty or a new folder")


def _difference(name: str, before: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    if name in ("bundle", "sources"):  # hashes, and long lists
        return f"another {name.removesuffix('s')}"
    return f"{name} was {before.get(name)}, not {wanted[name]}"
