"""The embedded bundle `tiny` beside the bundle that was chosen, each at the first of its sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import patchcut
from patchcut import Result
from patchcut.bundle import find_bundle

from bench import subjects
from bench.cases import BenchError, Options, Target
from bench.cases.quality import DATASETS, measured
from bench.harness import Contender, interleave
from bench.rows import Outcome

TITLE = "frame in memory to Result, and quality on development images: tiny beside the default"
SMALL = "tiny"
FRAME = "a frame of 640x480"
CASES = (FRAME, *(dataset.folder for dataset in DATASETS))
REPEATS = 60
TARGETS = (
    Target(FRAME, "times_as_fast", ">=", 3, "×", "tiny, times as fast as the default"),
    Target("ecssd-dev", "mean foreground IoU", ">=", 0.72, "", "tiny on ECSSD, IoU, not refined"),
    Target("voc2007-dev", "CorLoc", ">=", 0.63, "", "tiny on VOC2007, CorLoc, not refined"),
)


def run(options: Options) -> Iterator[Outcome]:
    """Time in turns; then, of the data sets that `--data` has, the quality of both."""
    small = find_bundle(SMALL)
    yield from _frame(options, small)
    present = [d for d in DATASETS if options.data is not None and (options.data / d.folder).is_dir()]
    if options.data is not None and not present:
        names = " or ".join(dataset.folder for dataset in DATASETS)
        raise BenchError(f"tiny needs in --data a folder that holds {names}")
    for dataset in present:
        root = cast("Path", options.data) / dataset.folder
        settings = replace(options.settings, nothing_below=0.0)
        yield measured(dataset.folder, dataset.layout, root, settings, "patchcut", bundle=small)
        yield measured(dataset.folder, dataset.layout, root, settings, _name(options))


def _frame(options: Options, small: Path) -> Iterator[Outcome]:
    frame = subjects.frame(subjects.VGA_HW)
    segmenters = {
        "patchcut": patchcut.load(small, settings=options.settings),
        _name(options): patchcut.load(settings=options.settings),
    }
    contenders = []
    stages: dict[str, list[dict[str, float]]] = {name: [] for name in segmenters}
    for name, segmenter in segmenters.items():

        def observe(value: object, ms: float, name: str = name) -> None:
            stages[name].append(cast("Result", value).timings_ms)

        contenders.append(Contender(name, partial(segmenter, frame), observe))
    times = interleave(contenders, options.repeats or REPEATS)
    larger = times[_name(options)].median_ms
    for name, segmenter in segmenters.items():
        ran = segmenter.describe()
        backbone = sorted(one["backbone"] for one in stages[name])
        yield Outcome(
            FRAME,
            name,
            f"frame in memory to Result at {ran.size_hw[0]}",
            times[name],
            shapes={"frame": frame.shape},
            dtype=ran.precision,
            metrics={
                "times_as_fast": larger / times[name].median_ms,
                "backbone_ms": backbone[len(backbone) // 2],
            },
            bundle=segmenter.settings.bundle
            if isinstance(segmenter.settings.bundle, Path)
            else options.bundle,
        )


def _name(options: Options) -> str:
    return f"patchcut, {options.bundle.stem}"
