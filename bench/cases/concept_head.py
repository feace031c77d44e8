"""The head of concepts: 171 classes at frame rate, and a concept that is added while a stream runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import patchcut
from patchcut import Features, Frame, Segmenter
from patchcut.bundle import ConceptsSpec, HeadSpec
from patchcut.heads.prototypes import Prototypes, PrototypesHead
from patchcut.sources.arrays import FrameSource

from bench import subjects
from bench.cases import Options, Target
from bench.harness import Contender, Times, interleave
from bench.rows import Outcome

TITLE = (
    "the head of concepts: 171 classes, each patch by itself; and a concept added while a stream runs, at 224"
)
SIZE, CLASSES, GRIDS, SHOWN = 224, 171, (16, 32), 5
ADDED = f"concept added from {SHOWN} frames 224"
CASES = (*(f"concepts {CLASSES} classes {grid * grid}" for grid in GRIDS), ADDED)
REPEATS = 15
TARGETS = (
    Target(CASES[0], "median_ms", "<=", 2, " ms", "171 classes on 256 patches"),
    Target(CASES[1], "median_ms", "<=", 6, " ms", "171 classes on 1,024 patches"),
    Target(ADDED, "median_ms", "<=", 1000, " ms", "a concept added from 5 frames while a stream runs"),
    Target(ADDED, "frames", "<=", 16, "", "the same / time of a frame of that stream alone"),
    Target(ADDED, "longest_pause_frames", "<=", 8, "", "longest pause of that stream / time of a frame"),
)
_SETTLED = 5  # results of the stream before and after each concept


def run(options: Options) -> Iterator[Outcome]:
    """Times of the head are of made features; the stream is of one frame again and again."""
    for grid, case in zip(GRIDS, CASES, strict=False):
        head, features = made(grid)
        call = partial(head, features)
        (times,) = interleave([Contender("patchcut", call)], options.repeats or REPEATS, warmup=3).values()
        inside = "features to assignment, a prototype for each class and 8 of context, with thresholds"
        yield Outcome(case, "patchcut", inside, times, {"features": (grid * grid, 384)}, "fp32")
    yield _added(options)


def made(grid: int) -> tuple[PrototypesHead, Features]:
    """A head of random prototypes, and random features."""
    rng = np.random.default_rng(0)
    owners = np.concatenate([np.zeros(8, np.int32), np.arange(1, CLASSES + 1, dtype=np.int32)])
    vectors = rng.standard_normal((len(owners), 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    prototypes = Prototypes(vectors, np.zeros(384, np.float32), owners, np.full(CLASSES + 1, 0.2, np.float32))
    spec = HeadSpec(
        name="concepts",
        kind="prototypes",
        role="names",
        backbone="made",
        features=("semantic",),
        labels=("background", *(f"class {i + 1}" for i in range(CLASSES))),
        temperature=0.05,
        concepts=ConceptsSpec(),
        files={"weights": "concepts"},
    )
    rows = rng.standard_normal((1, grid * grid, 384)).astype(np.float32)
    return PrototypesHead(spec, prototypes), Features({"semantic": rows}, (grid, grid))


def _added(options: Options) -> Outcome:
    """From the call to the moment at which frames have the name; and what the stream does meanwhile."""
    segmenter = patchcut.load(settings=replace(options.settings, size=SIZE, head="concepts"))
    image = subjects.frame(subjects.VGA_HW)
    height, width = image.shape[:2]
    box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
    took_ms: list[float] = []
    pauses: list[float] = []
    stream = _Stream(segmenter, image)
    try:
        stream.wait(_SETTLED)
        for i in range(1 + (options.repeats or REPEATS)):
            started = time.perf_counter()
            segmenter.concepts.add(f"concept {i}", [image] * SHOWN, boxes=[box] * SHOWN)
            took_ms.append(1e3 * (time.perf_counter() - started))
            stream.wait(_SETTLED)
            pauses.append(
                max(after - before for before, after in pairwise([started, *stream.since(started)]))
            )
            segmenter.concepts.remove(f"concept {i}")
    finally:
        stream.end()
    alone = np.median(np.diff(stream.at_s[:_SETTLED]))
    return Outcome(
        ADDED,
        "patchcut",
        f"{SHOWN} frames with boxes to a name that the next frame of a running stream has",
        Times(tuple(took_ms[1:])),  # the first also looks at the sample photos
        {"frame": image.shape},
        metrics={
            "first_ms": took_ms[0],
            "longest_pause_ms": 1e3 * max(pauses),
            "longest_pause_frames": float(max(pauses) / alone),
            "frames": float(np.median(took_ms[1:]) / (1e3 * alone)),
        },
        bundle=options.bundle,
    )


class _Stream:
    """Takes the results of a stream of one frame on a thread, and when each came."""

    def __init__(self, segmenter: Segmenter, image: np.ndarray) -> None:
        self.at_s: list[float] = []
        self._ends = False
        frames = (Frame(image, index=i) for i in iter(self._next, -1))
        results = segmenter.stream(FrameSource(frames, kind="video", name="made"))
        self._thread = threading.Thread(target=self._take, args=(results,), daemon=True)
        self._index = 0
        self._thread.start()

    def _next(self) -> int:
        self._index += 1
        return -1 if self._ends else self._index

    def _take(self, results: Iterator[patchcut.Result]) -> None:
        for _ in results:
            self.at_s.append(time.perf_counter())

    def since(self, started_s: float) -> list[float]:
        """When results came, from a moment on."""
        return [at for at in self.at_s if at >= started_s]

    def wait(self, count: int) -> None:
        """Until so many more results have come."""
        wanted = len(self.at_s) + count
        while len(self.at_s) < wanted and self._thread.is_alive():
            time.sleep(0.001)

    def end(self) -> None:
        self._ends = True
        self._thread.join()
