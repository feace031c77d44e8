"""What a worker does, here or on another machine: it opens the segmenter once, and makes shards with it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from patchcut.ahead import Ahead
from patchcut.batch.formats import open_shard
from patchcut.batch.frames import Place, ShardFrames, told_of
from patchcut.batch.plan import Shard
from patchcut.batch.records import Failure, ShardReport
from patchcut.batch.rows import FrameRow
from patchcut.errors import BundleError
from patchcut.frames import Frame
from patchcut.recipe import settings_recipe
from patchcut.segmenter import Segmenter
from patchcut.settings import Settings

# Frames that are read while others are segmented; on a GPU so many also go through the backbone at once.
_AHEAD = 2
_MOST_TOGETHER = 8


@dataclass(frozen=True)
class Job:
    """What all shards of a batch have in common.

    Attributes:
        settings: of the segmenter; its bundle is an embedded one's name, or an absolute path.
        bundle_sha256: of the bundle's manifest, which has to be the same on every machine.
        format: of the shards.
        root: the folder that the paths of a plan are relative to.
        tell_s: seconds after which a worker tells how far it is.
    """

    settings: Settings
    bundle_sha256: str
    format: str
    root: Path
    tell_s: float = 0.25


@dataclass(frozen=True)
class Task:
    """A shard to do.

    Attributes:
        shard: which.
        path: its file.
        carefully: a worker died at it: each place is told before the worker goes there.
        deadly: places that are left out.
    """

    shard: Shard
    path: Path
    carefully: bool = False
    deadly: tuple[Place, ...] = ()


# What a worker tells: how many frames it has done since the last time, where it goes, what became of a shard.
Told = int | Place | ShardReport


class Worker:
    """Makes shards, one at a time.

    Raises:
        PatchcutError: the segmenter cannot be opened, or the bundle is another one here.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        if settings_recipe(job.settings)["bundle"] != job.bundle_sha256:
            what = f"{job.settings.bundle} is another bundle here"
            raise BundleError("bundle", what, "put the same on every machine")
        self._segmenter = Segmenter.open(job.settings)
        facts = self._segmenter.extractor.engine.facts
        self._together = 1 if facts.device == "cpu" else min(_MOST_TOGETHER, facts.max_batch)

    def work(self, task: Task) -> Iterator[Told]:
        """Makes a shard. The last thing told is its report.

        Raises:
            OutputError: the shard cannot be written.
            SourceError: the root of the sources is gone.
        """
        frames = ShardFrames(task.shard, self._job.root, self._job.settings.pixel_rule, task.deadly)
        failures, rows, untold, told_s = list[Failure](), 0, 0, time.monotonic()
        with open_shard(task.path, self._job.format) as add:
            for made in self._carefully(frames) if task.carefully else self._quickly(frames):
                if isinstance(made, Place):
                    yield made
                    continue
                if isinstance(made, Failure):
                    failures.append(made)
                else:
                    add(made.to_dict())
                    rows += 1
                untold += 1
                if time.monotonic() - told_s > self._job.tell_s:
                    yield untold
                    untold, told_s = 0, time.monotonic()
        yield untold
        failures += frames.failures
        yield ShardReport(task.shard.number, rows, task.path.stat().st_size, tuple(failures))

    def _carefully(self, frames: ShardFrames) -> Iterator[Place | FrameRow | Failure]:
        for one in frames:
            if isinstance(one, Place):
                yield one
            else:
                yield from self._segment([one])

    def _quickly(self, frames: ShardFrames) -> Iterator[FrameRow | Failure]:
        """Frames are read on a thread of their own, and on a GPU segmented together."""
        read = (one for one in frames if isinstance(one, Frame))
        ahead = Ahead(read, name="patchcut-frames", most=_AHEAD * self._together)
        try:
            while several := list(islice(ahead, self._together)):
                yield from self._segment(several)
        finally:
            ahead.stop()
            ahead.join()

    def _segment(self, frames: Sequence[Frame]) -> Iterator[FrameRow | Failure]:
        """Rows of frames; where one of several fails, each is tried by itself."""
        try:
            results = self._segmenter.batch(frames)
        except Exception as error:  # whatever a head of one's own raises is about this frame alone
            if len(frames) > 1:
                for frame in frames:
                    yield from self._segment([frame])
                return
            frame = frames[0]
            yield Failure(frame.name, frame.index, str(told_of(frame.name, error)))
            return
        yield from map(FrameRow.of, results)
