"""`patchcut batch`: killed at random moments, and with two workers against one."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from patchcut import Settings, batch
from patchcut.batch.listing import Listing
from patchcut.cli.demo import SAMPLES
from patchcut.pyav import load_av
from patchcut.sources.photos import read_photo

from bench.cases import BenchError, Options, Target
from bench.rows import Outcome

TITLE = "batches: kill -9 at random moments, and two workers against one, each with one thread"
CASES = ("killed", "two processes", "two actors of Ray")
TARGETS = (
    Target(CASES[0], "lost", "<=", 0, "", "frames without a row after kill -9 at random moments"),
    Target(CASES[0], "doubled", "<=", 0, "", "frames with two rows after them"),
    Target(CASES[1], "rate_over_one", ">=", 1.6, "", "rate of two processes / of one, on two cores or more"),
    Target(CASES[2], "rate_over_one", ">=", 1.6, "", "rate of two actors / of one, on two cores or more"),
)
REPEATS, KILLS = 3, 100
FEW, MANY = (40, 40), (120, 120)  # photos, and frames of a video: for the kills, and for the rates
SHARD_SIZE, PHOTO_HW = 8, (480, 640)
_PATIENCE_S = 3600.0


def run(options: Options) -> Iterator[Outcome]:
    """Needs no data; PyAV for a video among the photos, and Ray for the last case."""
    settings = replace(options.settings, threads=1)
    with tempfile.TemporaryDirectory(prefix="patchcut-batch-") as folder:
        home = Path(folder)
        frames = write_sources(home / "killed/in", *FEW)
        yield _killed(options, settings, home / "killed", frames)
        write_sources(home / "in", *MANY)
        yield from _two_against_one(options, settings, home, "local", CASES[1])
        try:
            import ray
        except ImportError:
            return
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield from _two_against_one(options, settings, home, "ray", CASES[2])
        finally:
            ray.shutdown()


def write_sources(folder: Path, photos: int, video_frames: int) -> set[tuple[str, int]]:
    """Photos of many sizes of content and one video; the name and index of each frame."""
    folder.mkdir(parents=True)
    samples = [cv2.resize(read_photo(path), PHOTO_HW[::-1]) for path in sorted(SAMPLES.glob("*.jpg"))]
    frames: set[tuple[str, int]] = set()
    for number in range(photos):
        image = np.roll(samples[number % len(samples)], 7 * number, axis=1)
        frames.add((f"{number:04d}.jpg", 0))
        (folder / f"{number:04d}.jpg").write_bytes(cv2.imencode(".jpg", image)[1].tobytes())
    if (av := load_av()) is not None:
        with av.open(str(folder / "x.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.height, stream.width = PHOTO_HW
            for number in range(video_frames):
                image = np.ascontiguousarray(np.roll(samples[0], 3 * number, axis=1))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "bgr24")))
                frames.add(("x.mp4", number))
            container.mux(stream.encode())
    return frames


def _killed(options: Options, settings: Settings, home: Path, frames: set[tuple[str, int]]) -> Outcome:
    tally = kill_at_random(home, frames, settings, KILLS if options.kills is None else options.kills)
    inside = f"kill -9 of `patchcut batch` over {len(frames)} frames at random moments, then again to the end"
    return Outcome(CASES[0], "patchcut", inside, metrics=tally, bundle=options.bundle)


def kill_at_random(
    home: Path, frames: set[tuple[str, int]], settings: Settings, kills: int, *, seed: int = 0
) -> dict[str, float]:
    """Runs over HOME/in that are killed at moments from their begin to the end of one that is left alone.

    Returns:
        How many frames were lost or doubled in folders that were finished afterwards, how many shards differ
        from those of a run that was left alone, and how many kills and folders there were.
    """
    random_s = random.Random(seed)
    _start(home, "warm-up", settings).wait(_PATIENCE_S)
    begun_s = time.monotonic()
    _start(home, "alone", settings).wait(_PATIENCE_S)
    longest_s, alone = time.monotonic() - begun_s, _shards(home / "alone")
    tally = Counter[str]()
    folder = (f"out{number}" for number in count())
    dst = next(folder)
    while tally["kills"] < kills:
        running = _start(home, dst, settings)
        try:
            running.wait(random_s.uniform(0, longest_s))
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
            tally["kills"] += 1
        else:
            tally += _check(home / dst, frames, alone, running.returncode)
            dst = next(folder)
    last = _start(home, dst, settings)
    last.wait(_PATIENCE_S)
    tally += _check(home / dst, frames, alone, last.returncode)
    names = ("kills", "folders", "lost", "doubled", "foreign", "changed_shards", "failed_runs")
    return {name: float(tally[name]) for name in names}


def _start(home: Path, dst: str, settings: Settings) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "patchcut", "batch", str(home / "in"), str(home / dst), *settings.words()]
    own = ["--format", "webdataset", "--shard-size", str(SHARD_SIZE), "--workers", "2", "--quiet"]
    return subprocess.Popen([*words, *own], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _shards(dst: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (dst / "shards").glob("[0-9]*")}


def _check(dst: Path, frames: set[tuple[str, int]], alone: dict[str, bytes], status: int) -> Counter[str]:
    """What is wrong with a folder of which a run says that it is finished."""
    found = Counter((row.name, row.index) for row in batch.rows(dst))
    made = _shards(dst)
    return Counter(
        folders=1,
        lost=len(frames - found.keys()),
        doubled=sum(number - 1 for number in found.values()),
        foreign=len(found.keys() - frames),
        changed_shards=sum(made.get(name) != data for name, data in alone.items()) + len(made.keys() - alone),
        failed_runs=int(status != 0),
    )


class _Clock(batch.Watch):
    """The rate over the second half of the frames: when all workers have been started."""

    def __init__(self) -> None:
        self.half_s = self.end_s = 0.0
        self._done = self.half = self._total = 0

    def begin(self, done: int, total: int) -> None:
        self._total = total

    def advance(self, frames: int) -> None:
        self._done += frames
        self.end_s = time.monotonic()
        if self._done * 2 >= self._total and not self.half:
            self.half_s, self.half = self.end_s, self._done

    @property
    def rate(self) -> float:
        """Frames a second."""
        return (self._done - self.half) / max(self.end_s - self.half_s, 1e-6)


def _two_against_one(
    options: Options, settings: Settings, home: Path, engine: str, case: str
) -> Iterator[Outcome]:
    rates: dict[int, list[float]] = {1: [], 2: []}
    row_bytes = 0.0
    for repeat in range(options.repeats or REPEATS):
        for workers in (1, 2) if repeat % 2 == 0 else (2, 1):
            dst, clock = home / f"{engine}-{workers}-{repeat}", _Clock()
            how: dict[str, Any] = {
                "engine": engine,
                "workers": workers,
                "shard_size": SHARD_SIZE,
                "format": "webdataset",
            }
            outcome = batch.make([home / "in"], dst, settings=settings, watch=clock, **how)
            if outcome.failures:
                raise BenchError(f"{outcome.failures} frames of the batch failed")
            rates[workers].append(clock.rate)
            row_bytes = sum(path.stat().st_size for path in (dst / "shards").iterdir()) / outcome.rows
    begun_s = time.monotonic()
    listed = sum(1 for _ in Listing([str(home / "in")]))
    list_s = time.monotonic() - begun_s
    one, two = (float(np.median(rates[workers])) for workers in (1, 2))
    ratio = float(np.median([both / alone for alone, both in zip(rates[1], rates[2], strict=True)]))
    metrics = {
        "rate_over_one": ratio,
        "frames_per_s": two,
        "row_bytes": row_bytes,
        "listed_per_s": listed / list_s,
    }
    inside = "photos and a video of 640x480 from files to shards, the second half of them"
    yield Outcome(case, "patchcut", f"{inside}, two workers", metrics=metrics, bundle=options.bundle)
    yield Outcome(
        case, "one worker", f"{inside}, one worker", metrics={"frames_per_s": one}, bundle=options.bundle
    )
