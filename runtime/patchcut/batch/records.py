"""What a batch keeps in its folder: what it was made of, which shards are done, and what failed.

    DIR/batch.json                what results depend on, the sources, how many frames and shards there are
    DIR/shards/000000.parquet     the rows of a shard
    DIR/failures.jsonl            a line for each frame and file that could not be segmented
    DIR/coco.json                 all rows, where that was asked for
    DIR/.batch/plan.jsonl         which frames go into which shard
    DIR/.batch/done.jsonl         a line for each shard that is done

A shard is done when a line says so and its file has the size that the line tells. The file is written first:
who is killed between the two does that shard again, and replaces the file by the same one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchcut.batch.formats import FORMATS
from patchcut.errors import SourceError
from patchcut.texts import name_text

_VERSION = 1
ABOUT, SHARDS, FAILURES = "batch.json", "shards", "failures.jsonl"
PLAN, DONE = ".batch/plan.jsonl", ".batch/done.jsonl"


@dataclass(frozen=True)
class Failure:
    """A frame, or a file, that could not be segmented.

    Attributes:
        name: as in `FrameRow`.
        index: of the frame; None where it is the whole file.
        why: `[name] what; remedy`.
    """

    name: str
    index: int | None
    why: str


@dataclass(frozen=True)
class ShardReport:
    """What became of a shard.

    Attributes:
        number: the shard's.
        rows: frames in its file.
        size_bytes: of its file.
        failures: the frames that are not in it.
    """

    number: int
    rows: int
    size_bytes: int
    failures: tuple[Failure, ...] = ()

    def line(self) -> bytes:
        """The report as a line of a journal."""
        failures = [[one.name, one.index, one.why] for one in self.failures]
        return json.dumps([self.number, self.rows, self.size_bytes, failures]).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> ShardReport:
        """What `line` told.

        Raises:
            ValueError, TypeError: it is no such line.
        """
        number, rows, size, failures = json.loads(line)
        return cls(int(number), int(rows), int(size), tuple(Failure(*one) for one in failures))


@dataclass(frozen=True)
class About:
    """What a folder says of itself.

    Attributes:
        recipe: what its results depend on.
        format: of its shards.
        root: the folder that names of photos and videos are relative to.
        frames, shards: how many there are; None before the plan is made.
        unread: a line for each file and folder that could not be listed.
    """

    recipe: dict[str, Any]
    format: str
    root: str
    frames: int | None = None
    shards: int | None = None
    unread: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """What `about_of` reads."""
        told = {"made_by": "patchcut batch", "version": _VERSION, **vars(self)}
        return (json.dumps(told, indent=1) + "\n").encode()


def failure_lines(shard: int | None, failures: Iterable[Failure]) -> bytes:
    """What the list of failures says of those of a shard; of no shard where they could not be listed."""
    return "".join(json.dumps({**vars(one), "shard": shard}) + "\n" for one in failures).encode()


def shard_path(folder: Path, format: str, number: int) -> Path:
    """The file of a shard."""
    return folder / SHARDS / f"{number:06d}{FORMATS[format].suffix}"


def about_of(folder: Path) -> About | None:
    """What a folder says of itself; None where it says nothing.

    Raises:
        SourceError: that is damaged, or of a newer patchcut.
    """
    path = folder / ABOUT
    try:
        told = json.loads(path.read_bytes())
        if not isinstance(told, dict) or told.pop("made_by") != "patchcut batch":
            raise ValueError("it was not made by patchcut batch")
        if (version := told.pop("version")) != _VERSION:
            what = f"is of version {version}, this patchcut reads {_VERSION}"
            raise SourceError(name_text(path), what, "install the patchcut that made it")
        about = About(**{**told, "unread": tuple(told["unread"])})
        if about.format not in FORMATS:
            raise ValueError(f"there is no format {about.format}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, LookupError) as error:
        what = f"is damaged or foreign: {error}"
        raise SourceError(name_text(path), what, "choose another folder") from error
    return about


def read_journal(file: Iterable[bytes]) -> tuple[dict[int, ShardReport], int]:
    """The last report of each shard, and where the last whole line ends."""
    reports, end = dict[int, ShardReport](), 0
    for line in file:
        with contextlib.suppress(ValueError, TypeError):
            report = ShardReport.of_line(line)
            reports[report.number] = report
        if line.endswith(b"\n"):
            end += len(line)
    return reports, end
