"""A video with its overlay written, several videos at once, and how old answers of a live stream are."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import patchcut
from patchcut import Frame, MultiStream, Result, Segmenter
from patchcut.output.folder import OutputFolder
from patchcut.sources import Source
from patchcut.video import StreamMode

from bench import subjects
from bench.cases import Options, Target
from bench.harness import Contender, Times, interleave
from bench.machine import resident_mb
from bench.rows import Outcome

TITLE = "streams at 224: a video with its overlay written, four at once, and a camera of 60 frames a second"
SIZE = 224
VIDEO = "vtest.avi"
CASES = ("video with overlay 224", "camera of 60 fps 224", "four streams at once 224")
REPEATS = 7
TARGETS = (
    Target(CASES[0], "rate_over_backbone", ">=", 0.9, "", "rate of a video with overlay / backbone alone"),
    Target(CASES[1], "age_p99_over_frame", "<=", 2.2, "", "age of a live answer, p99 / time of a frame"),
    Target(CASES[1], "grown_mb", "<=", 8, " MB", "memory that a live stream grows by"),
    Target(CASES[2], "rate_over_in_turn", ">=", 1.15, "", "rate of four streams at once / one after another"),
)
STREAMS, STREAM_FRAMES = 4, 16
STREAMED, IN_TURN, BACKBONE = "patchcut", "frame by frame", "the backbone alone"
ONE_AT_A_TIME, BESIDE = "patchcut, one at a time", "backbones alone, beside each other"
VIDEO_FRAMES, PLACES = 60, 4
CAMERA_FPS, CAMERA_S = 60, 60
# Until memory that grows once, such as that of allocators, has grown.
SETTLED_S = 5


def run(options: Options) -> Iterator[Outcome]:
    """Videos need the folder `videos` in the data; the camera and the four streams are made."""
    folder = options.dataset("stream", "videos", VIDEO)
    yield from _four(options)
    segmenter = patchcut.load(settings=replace(options.settings, size=SIZE, refine="guided"))
    yield from _video(segmenter, folder / VIDEO, options)
    yield from _camera(segmenter, options)


def _video(segmenter: Segmenter, path: Path, options: Options) -> Iterator[Outcome]:
    """Decoding, segmenting, drawing and encoding; each way once a sample, from opening to the whole file."""
    with patchcut.open_source(path) as source:
        assert source.fps is not None
        stop_s = (VIDEO_FRAMES - 0.5) / source.fps
        image = next(iter(source)).image
    segmenter.extractor.preprocess([Frame(image)])
    beside = patchcut.load(settings=replace(segmenter.settings, throughput=True))

    def backbone() -> None:
        for _ in range(VIDEO_FRAMES):
            segmenter.extractor.engine.run(1)

    def backbones() -> None:
        with beside.extractor.places(PLACES) as places:
            for i in range(VIDEO_FRAMES):
                if i >= PLACES:
                    places.wait(i % PLACES)
                places.begin(i % PLACES, Frame(image))

    calls: dict[str, Callable[[], object]] = {
        STREAMED: lambda: _written(path, lambda: beside.stream(path, stop=stop_s)),
        ONE_AT_A_TIME: lambda: _written(path, lambda: segmenter.stream(path, stop=stop_s)),
        IN_TURN: lambda: _written(path, lambda: _each(segmenter, path)),
        BACKBONE: backbone,
        BESIDE: backbones,
    }
    contenders = [Contender(name, call, lead=0) for name, call in calls.items()]
    times = interleave(contenders, options.repeats or REPEATS, warmup=1)
    a_frame = {name: Times(tuple(ms / VIDEO_FRAMES for ms in one.samples_ms)) for name, one in times.items()}
    insides = {
        STREAMED: "decoded, segmented, drawn and encoded by `stream` as `patchcut run` does, a frame",
        ONE_AT_A_TIME: "the same by `stream` without throughput, a frame",
        IN_TURN: "the same in one loop of `seg(frame)`, a frame",
        BACKBONE: "ready image to features",
        BESIDE: "fitted and run with throughput, a frame",
    }

    def rate_over(other: str, name: str) -> float:
        pairs = zip(a_frame[other].samples_ms, a_frame[name].samples_ms, strict=True)
        return float(np.median([theirs / ours for theirs, ours in pairs]))

    for name, inside in insides.items():
        yield Outcome(
            CASES[0],
            name,
            inside,
            a_frame[name],
            {"frame": image.shape},
            segmenter.describe().precision,
            metrics={
                "rate_over_backbone": rate_over(BACKBONE, name),
                "rate_over_beside": rate_over(BESIDE, name),
                "frames_per_s": 1e3 / a_frame[name].median_ms,
            },
            bundle=options.bundle,
        )


def _each(segmenter: Segmenter, path: Path) -> Iterator[Result]:
    with patchcut.open_source(path) as source:
        yield from map(segmenter, source)


def _four(options: Options) -> Iterator[Outcome]:
    """Four recordings in memory, with `throughput` and without; a sample is all frames of all four."""
    settings = replace(options.settings, size=SIZE)
    single, many = (patchcut.load(settings=replace(settings, throughput=one)) for one in (False, True))
    image = subjects.frame(subjects.VGA_HW)
    clips = [np.roll(image, 50 * i, axis=1) for i in range(STREAMS)]

    def in_turn(segmenter: Segmenter) -> None:
        for clip in clips:
            for _ in segmenter.stream(_Recording(clip)):
                pass

    def at_once(segmenter: Segmenter) -> None:
        for _ in MultiStream(segmenter, [_Recording(clip) for clip in clips]):
            pass

    ways: dict[str, tuple[Callable[[Segmenter], None], Segmenter, str]] = {
        STREAMED: (at_once, many, "`MultiStream` with throughput"),
        "one after another": (in_turn, single, "`stream` of each"),
        "one after another, throughput": (in_turn, many, "`stream` of each with throughput"),
        "at once, no throughput": (at_once, single, "`MultiStream`"),
    }
    contenders = [Contender(name, partial(way, one), lead=0) for name, (way, one, _) in ways.items()]
    times = interleave(contenders, options.repeats or REPEATS, warmup=1)
    frames = STREAMS * STREAM_FRAMES
    for name, (_, segmenter, inside) in ways.items():
        a_frame = Times(tuple(ms / frames for ms in times[name].samples_ms))
        metrics = {"frames_per_s": 1e3 / a_frame.median_ms}
        if name == STREAMED:
            for metric, other in (
                ("rate_over_in_turn", "one after another"),
                ("rate_over_throughput", "one after another, throughput"),
            ):
                pairs = zip(times[other].samples_ms, times[name].samples_ms, strict=True)
                metrics[metric] = float(np.median([theirs / ours for theirs, ours in pairs]))
        yield Outcome(
            CASES[2],
            name,
            f"{STREAMS} recordings of {STREAM_FRAMES} frames in memory, {inside}, a frame",
            a_frame,
            {"frame": image.shape},
            segmenter.describe().precision,
            metrics=metrics,
            bundle=options.bundle,
        )


class _Recording(Source):
    """A video in memory, that moves."""

    def __init__(self, image: npt.NDArray[np.uint8]) -> None:
        super().__init__("video", "made", total=STREAM_FRAMES)
        self._image = image

    def __iter__(self) -> Iterator[Frame]:
        for index in range(STREAM_FRAMES):
            yield Frame(np.roll(self._image, 7 * index, axis=1), "bgr", self.name, index, index / 25)


def _written(path: Path, results: Callable[[], Iterator[Result]]) -> None:
    """Writes the overlay video of the first frames."""
    with (
        tempfile.TemporaryDirectory() as folder,
        patchcut.open_source(path) as part,
        OutputFolder(folder, ["overlay"]) as out,
    ):
        out.start(part)
        for result in islice(results(), VIDEO_FRAMES):
            out.write(result)
        out.finish_part()


def _camera(segmenter: Segmenter, options: Options) -> Iterator[Outcome]:
    """Ages of answers, from the moment that the camera gave the frame."""
    modes: dict[str, StreamMode] = {STREAMED: "live", "patchcut, every frame": "video"}
    for name, mode in modes.items():
        ages_ms: list[float] = []
        frames_ms: list[float] = []
        dropped, early_mb = 0, 0.0
        begun_s = time.monotonic()
        for result in segmenter.stream(_made_camera(), mode=mode):
            now_s = time.monotonic()
            ages_ms.append(1e3 * (now_s - (result.time_s or 0.0)))
            frames_ms.append(sum(ms for stage, ms in result.timings_ms.items() if stage != "read"))
            dropped += result.dropped
            if not early_mb and now_s - begun_s > SETTLED_S:
                early_mb = resident_mb()
        frame_ms = float(np.median(frames_ms))
        yield Outcome(
            CASES[1],
            name,
            f'mode="{mode}": from the camera to whoever takes the result',
            Times(tuple(ages_ms)),
            {"frame": (*subjects.VGA_HW, 3)},
            segmenter.describe().precision,
            metrics={
                "age_p99_over_frame": float(np.percentile(ages_ms, 99)) / frame_ms,
                "age_over_frame": float(np.median(ages_ms)) / frame_ms,
                "frame_ms": frame_ms,
                "frame_p99_ms": float(np.percentile(frames_ms, 99)),
                "dropped": dropped,
                "grown_mb": resident_mb() - early_mb if early_mb else 0.0,
            },
            bundle=options.bundle,
        )


def _made_camera() -> Iterator[Frame]:
    """Frames each 1/60 s, whose `time_s` is when they came; one that nobody takes in time comes late."""
    image = subjects.frame(subjects.VGA_HW)
    begun_s = time.monotonic()
    for index in range(CAMERA_FPS * CAMERA_S):
        due_s = begun_s + index / CAMERA_FPS
        time.sleep(max(due_s - time.monotonic(), 0.0))
        if time.monotonic() - begun_s > CAMERA_S:
            return
        yield Frame(np.roll(image, index, axis=1), "bgr", "camera", index, max(due_s, time.monotonic()))
