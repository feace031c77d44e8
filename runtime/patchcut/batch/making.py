"""A batch: from sources to a folder of shards."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import patchcut_kernels as kernels
from patchcut_kernels import cuda

from patchcut.batch.crews import Crew, Died, Heard
from patchcut.batch.folder import BatchFolder
from patchcut.batch.formats import FORMATS
from patchcut.batch.frames import MOST_DEATHS, Place
from patchcut.batch.listing import Listing
from patchcut.batch.local import LocalCrew
from patchcut.batch.on_ray import RayCrew
from patchcut.batch.plan import PlanRules, Shard, shards_of
from patchcut.batch.records import About, ShardReport
from patchcut.batch.worker import Job, Task
from patchcut.bundle import embedded_bundles, find_bundle
from patchcut.checks import check_choice, check_whole
from patchcut.errors import EngineError, OutputError, PatchcutError
from patchcut.recipe import settings_recipe
from patchcut.settings import MAX_THREADS, Settings

ENGINES = ("local", "ray")
MAX_SHARD_SIZE, MAX_WORKERS = 1_000_000, 100_000
# How often workers may die one after the other before any of them has done a frame.
_MOST_LOST = 5


class Watch:
    """What is told of a batch while it is made; this one tells nobody."""

    def found(self, frames: int) -> None:
        """So many more frames are in the plan.

        Examples:
            >>> patchcut.batch.Watch().found(1000)
        """

    def begin(self, done: int, total: int) -> None:
        """The plan is made: so many of its frames are done already.

        Examples:
            >>> patchcut.batch.Watch().begin(0, 1000)
        """

    def advance(self, frames: int) -> None:
        """So many more frames are done.

        Examples:
            >>> patchcut.batch.Watch().advance(1)
        """


@dataclass(frozen=True)
class Outcome:
    """What became of a batch.

    Attributes:
        rows: frames in the shards of the folder.
        failures: frames and files that could not be segmented, and folders that could not be listed;
            DIR/failures.jsonl names them.
        shards: files of rows.
        seconds: that this run took, the plan included.
        made: frames that this run has done.
    """

    rows: int
    failures: int
    shards: int
    seconds: float
    made: int


def make(
    sources: Sequence[str | Path],
    dst: str | Path,
    *,
    engine: str = "local",
    format: str = "parquet",
    shard_size: int = 1000,
    workers: int | None = None,
    every: int = 1,
    limit: int | None = None,
    retry: bool = False,
    settings: Settings | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Segments all photos and videos of some sources into shards of rows; called again, it goes on.

    Each frame is segmented by itself, those of videos too, so that neither the number of workers nor where a
    video is cut changes what is found. Whatever dies, each frame of the plan is in the end one row or one
    failure: see `patchcut.batch.records`.

    Args:
        sources: photos, videos, folders and globs; the plan is made of them once.
        dst: the folder of results, new or of the same batch.
        engine: "local", processes of this machine, or "ray", actors of a Ray cluster (extra scale).
        format: "parquet" (extra parquet) or "webdataset".
        shard_size: frames of a shard; a worker that dies does those of one again.
        workers: None for one a core, on a GPU one a GPU.
        every: take photos and frames of videos 0, every, 2 * every, ...
        limit: frames at most.
        retry: do shards again in which something failed.
        settings: the segmenters'; `threads` are those of one worker.
        watch: told how far it is.
    Raises:
        OptionError: an option has a value that is not allowed, or `dst` is of another batch.
        SourceError: a source does not exist, or is gone.
        BundleError, EngineError: the workers cannot open the segmenter, or die again and again.
        OutputError: `dst` cannot be written.
    Examples:
        >>> patchcut.output.whole_files.write_image(folder / "x.png", frame)
        >>> outcome = patchcut.batch.make([folder / "x.png"], folder / "made", format="webdataset", workers=1)
        >>> outcome.rows, outcome.failures
        (1, 0)
    """
    begun_s = time.monotonic()
    check_choice("engine", engine, ENGINES)
    check_choice("format", format, tuple(FORMATS))
    check_whole("shard_size", shard_size, 1, MAX_SHARD_SIZE)
    check_whole("every", every, 1, 2**31 - 1)
    for name, value, most in (("workers", workers, MAX_WORKERS), ("limit", limit, 2**62)):
        if value is not None:
            check_whole(name, value, 1, most)
    FORMATS[format].check()
    chosen, listened = settings or Settings(), watch or Watch()
    listing = Listing([str(source) for source in sources], rule=chosen.pixel_rule)
    recipe = settings_recipe(chosen)
    made_of = {"sources": list(listing.texts), "shard_size": shard_size, "every": every, "limit": limit}
    about = About({**recipe, **made_of, "format": format}, format, str(listing.root))
    job = Job(_elsewhere(chosen), recipe["bundle"], format, listing.root)
    with (
        closing(_crew(engine, job, workers)) as crew,
        BatchFolder(Path(dst).absolute(), about, retry=retry) as folder,
    ):
        if not folder.is_planned:
            rules = PlanRules(shard_size, every, limit, chosen.pixel_rule)
            folder.plan(shards_of(listing, rules), listened.found, listing.problems)
        making = _Making(folder, crew, listened)
        making.run()
        outcome = Outcome(
            folder.rows, folder.failed, len(folder.done), time.monotonic() - begun_s, making.made
        )
    return outcome


def _elsewhere(settings: Settings) -> Settings:
    """Settings that mean the same in every process: the bundle by its name or an absolute path."""
    path = find_bundle(settings.bundle)
    named = [name for name, embedded in embedded_bundles().items() if embedded == path]
    return replace(settings, bundle=named[0] if named else path.absolute())


def _crew(engine: str, job: Job, workers: int | None) -> Crew:
    if engine == "ray":
        threads = job.settings.threads or (None if job.settings.device == "cuda" else 1)
        return RayCrew(replace(job, settings=replace(job.settings, threads=threads)), workers)
    device, cores = job.settings.device, kernels.default_threads()
    on_cpu = device == "cpu" or (device == "auto" and not cuda.is_available())
    threads = job.settings.threads
    if workers is None:
        workers = max(1, cores // (threads or 1)) if on_cpu else 1
    if threads is None and on_cpu:
        threads = min(max(1, cores // workers), MAX_THREADS)
    return LocalCrew(replace(job, settings=replace(job.settings, threads=threads)), workers)


@dataclass
class _Trouble:
    """What is known of a shard at which a worker died."""

    deaths: Counter[Place] = field(default_factory=Counter)
    at: Place | None = None


class _Making:
    """Gives the shards of a plan out, until all are done."""

    def __init__(self, folder: BatchFolder, crew: Crew, watch: Watch) -> None:
        self.made = 0
        self._folder, self._crew, self._watch = folder, crew, watch
        self._again: deque[Task] = deque()
        self._trouble: dict[int, _Trouble] = {}
        self._told: Counter[int] = Counter()
        self._lost = 0

    def run(self) -> None:
        """Does all that is left to do.

        Raises:
            PatchcutError: what stops all shards; those that are done are on record.
        """
        total = self._folder.about.frames or 0
        left = self._left()
        self._watch.begin(total - sum(shard.frames for shard in self._left()), total)
        while True:
            while self._crew.free and (task := self._next(left)) is not None:
                self._crew.give(task)
            if not self._crew.busy:
                break
            for task, heard in self._crew.wait():
                self._take(task, heard)
        if changed := self._folder.unfinished():
            what = f"{len(changed)} shards in {self._folder.path} were changed or removed meanwhile"
            raise OutputError("output", what, "run the same again")

    def _left(self) -> Iterator[Shard]:
        return (shard for shard in self._folder.shards() if shard.number not in self._folder.done)

    def _next(self, left: Iterator[Shard]) -> Task | None:
        if self._again:
            return self._again.popleft()
        shard = next(left, None)
        return None if shard is None else Task(shard, self._folder.shard_path(shard.number))

    def _take(self, task: Task, heard: Heard) -> None:
        number = task.shard.number
        if isinstance(heard, PatchcutError):
            raise heard
        if isinstance(heard, Died):
            self._again.appendleft(self._after_death(task))
        elif isinstance(heard, Place):
            self._trouble[number].at = heard
            self._lost = self._lost if heard == Place() else 0  # others were done before
        elif isinstance(heard, ShardReport):
            self._finish(task, heard)
        else:
            self._lost = 0
            self._count(number, heard)

    def _finish(self, task: Task, report: ShardReport) -> None:
        try:
            there = task.path.stat().st_size
        except OSError:
            there = -1
        if there != report.size_bytes:
            what = f"{task.path} is not here as a worker wrote it"
            raise OutputError("output", what, "choose a folder that all machines share")
        self._folder.add(report)
        self._lost = 0
        self._trouble.pop(report.number, None)
        done = max(task.shard.frames, report.rows)
        self._count(report.number, done - self._told[report.number])
        del self._told[report.number]

    def _count(self, number: int, frames: int) -> None:
        """Counts frames as done; those that are done again are counted once."""
        self._told[number] += frames
        self.made += frames
        self._watch.advance(frames)

    def _after_death(self, task: Task) -> Task:
        """The same shard, for another worker: carefully, and without the frames that it dies at.

        Raises:
            EngineError: workers die before they have done a frame.
        """
        number = task.shard.number
        self._lost += 1
        if self._lost > _MOST_LOST:
            what = f"{self._lost} workers died one after the other before a frame was done"
            raise EngineError("worker", what, "look at the memory of the machine, or choose fewer --workers")
        self._count(number, -self._told[number])
        trouble = self._trouble.setdefault(number, _Trouble())
        deadly = task.deadly
        if trouble.at is not None:
            trouble.deaths[trouble.at] += 1
            if trouble.deaths[trouble.at] == MOST_DEATHS:
                deadly = (*deadly, trouble.at)
                self._lost = 0
        trouble.at = None
        return replace(task, carefully=True, deadly=deadly)
