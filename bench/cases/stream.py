"""A video with its overlay written, beside the backbone alone; and how old answers of a live stream are."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import patchcut
from patchcut import Frame, Result, Segmenter
from patchcut.output.folder import OutputFolder
from patchcut.video import StreamMode

from bench import subjects
from bench.cases import Options, Target
from bench.harness import Contender, Times, interleave
from bench.machine import resident_mb
from bench.rows import Outcome

TITLE = "streams at 224: a video with its overlay written, and a camera of 60 frames a second"
SIZE = 224
VIDEO = "vtest.avi"
CASES = ("video with overlay 224", "camera of 60 fps 224")
REPEATS = 7
TARGETS = (
    Target(CASES[0], "rate_over_backbone", ">=", 0.9, "", "rate of a video with overlay / backbone alone"),
    Target(CASES[1], "age_p99_over_frame", "<=", 2.2, "", "age of a live answer, p99 / time of a frame"),
    Target(CASES[1], "grown_mb", "<=", 8, " MB", "memory that a live stream grows by"),
)
STREAMED, IN_TURN, BACKBONE = "patchcut", "frame by frame", "the backbone alone"
VIDEO_FRAMES = 60
CAMERA_FPS, CAMERA_S = 60, 30
# Until memory that grows once, such as that of allocators, has grown.
SETTLED_S = 5


def run(options: Options) -> Iterator[Outcome]:
    """Videos need the folder `videos` in the data; the camera is made."""
    folder = options.dataset("stream", "videos", VIDEO)
    segmenter = patchcut.load(settings=replace(options.settings, size=SIZE, refine="guided"))
    yield from _video(segmenter, folder / VIDEO, options)
    yield from _camera(segmenter, options)


def _video(segmenter: Segmenter, path: Path, options: Options) -> Iterator[Outcome]:
    """Decoding, segmenting, drawing and encoding; each way once a sample, from opening to the whole file."""
    with patchcut.open_source(path) as source:
        image = next(iter(source)).image
    segmenter.extractor.preprocess([Frame(image)])

    def backbone() -> None:
        for _ in range(VIDEO_FRAMES):
            segmenter.extractor.engine.run(1)

    calls: dict[str, Callable[[], object]] = {
        STREAMED: lambda: _written(path, lambda: segmenter.stream(path)),
        IN_TURN: lambda: _written(path, lambda: _each(segmenter, path)),
        BACKBONE: backbone,
    }
    contenders = [Contender(name, call, lead=0) for name, call in calls.items()]
    times = interleave(contenders, options.repeats or REPEATS, warmup=1)
    a_frame = {name: Times(tuple(ms / VIDEO_FRAMES for ms in one.samples_ms)) for name, one in times.items()}
    insides = {
        STREAMED: "decoded, segmented, drawn and encoded by `stream`, a frame",
        IN_TURN: "the same in one loop of `seg(frame)`, a frame",
        BACKBONE: "ready image to features",
    }
    for name, inside in insides.items():
        pairs = zip(a_frame[BACKBONE].samples_ms, a_frame[name].samples_ms, strict=True)
        yield Outcome(
            CASES[0],
            name,
            inside,
            a_frame[name],
            {"frame": image.shape},
            segmenter.describe().precision,
            metrics={
                "rate_over_backbone": float(np.median([alone / ours for alone, ours in pairs])),
                "frames_per_s": 1e3 / a_frame[name].median_ms,
            },
            bundle=options.bundle,
        )


def _each(segmenter: Segmenter, path: Path) -> Iterator[Result]:
    with patchcut.open_source(path) as source:
        yield from map(segmenter, source)


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
