"""OpenVINO beside today's default, ONNX Runtime in int8: single frames, eight at once, and loading."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import numpy as np
import patchcut
from patchcut import EngineError, OptionError, Result, Segmenter
from patchcut.cache_folder import VARIABLE as CACHE_VARIABLE

from bench import subjects
from bench.cases import BenchError, Options, Target
from bench.cases.start import run_fresh
from bench.harness import Contender, Times, interleave
from bench.rows import Outcome

TITLE = "OpenVINO beside today's default, ONNX Runtime in int8: a frame in memory to Result"
SIZES = (224, 448)
PRECISIONS = ("int8-qdq", "bf16", "fp32")
BATCH = 8
EIGHT = "engines: eight frames a call"
LOAD = "engines: load of a cached model 224"
REPEATS = 40
_LOADS = 9


def _case(size: int) -> str:
    return f"engines {size}"


CASES = (*map(_case, SIZES), EIGHT, LOAD)
TARGETS = (
    Target(_case(224), "openvino_int8_qdq_ratio", "<=", 0.75, "", "OpenVINO int8-qdq / default, 224"),
    Target(_case(448), "openvino_int8_qdq_ratio", "<=", 0.68, "", "OpenVINO int8-qdq / default, 448"),
    Target(_case(224), "openvino_bf16_ratio", "<=", 1.0, "", "OpenVINO bf16 / default, 224"),
    Target(_case(448), "openvino_bf16_ratio", "<=", 0.9, "", "OpenVINO bf16 / default, 448"),
    Target(_case(224), "besides_backbone_ms", "<=", 4, " ms", "our own time around the engine, 224"),
    Target(EIGHT, "times_as_many", ">=", 1.6, "×", "images a second of eight frames a call / eight calls"),
    Target(LOAD, "median_ms", "<=", 1500, " ms", "load of a cached model"),
)

_CACHED = """
import time
import patchcut
begin = time.perf_counter()
segmenter = patchcut.load(
    {bundle!r}, engine="openvino", precision={precision!r}, size=224, device="cpu", threads={threads}
)
ms = 1e3 * (time.perf_counter() - begin)
told = segmenter.describe().precision
"""


def run(options: Options) -> Iterator[Outcome]:
    """640x480 BGR frame to Result, the engines in turns; then what OpenVINO's fastest does besides."""
    with _cache_of_its_own():
        for size in SIZES:
            yield from _run_size(options, size)
        fastest = _open_all(options, 224)
        precision = next(one for one in PRECISIONS if _name(one) in fastest)
        yield from _run_eight(options, fastest[_name(precision)], precision)
        yield _run_load(options, precision)


@contextmanager
def _cache_of_its_own() -> Iterator[None]:
    """A folder for what is compiled, which is gone afterwards."""
    before = os.environ.get(CACHE_VARIABLE)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CACHE_VARIABLE] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ[CACHE_VARIABLE]
            else:
                os.environ[CACHE_VARIABLE] = before


def _name(precision: str) -> str:
    return f"patchcut, openvino {precision}"


def _open_all(options: Options, size: int) -> dict[str, Segmenter]:
    """Segmenters by contender, today's default first, then OpenVINO in what it and the bundle have."""
    base = replace(options.settings, size=size, refine="none")
    default = replace(base, engine="onnxruntime", precision="int8")
    segmenters = {"patchcut": patchcut.load(settings=default)}
    for precision in PRECISIONS:
        try:
            settings = replace(base, engine="openvino", precision=precision)
            segmenters[_name(precision)] = patchcut.load(settings=settings)
        except OptionError:  # the bundle or the CPU has none
            continue
        except EngineError as error:
            raise BenchError(f"engines needs openvino: {error}") from error
    return segmenters


class _Besides:
    """What a frame takes besides its backbone."""

    def __init__(self) -> None:
        self.ms: list[float] = []

    def observe(self, value: object, total_ms: float) -> None:
        self.ms.append(total_ms - cast("Result", value).timings_ms["backbone"])


def _run_size(options: Options, size: int) -> Iterator[Outcome]:
    segmenters, frame = _open_all(options, size), subjects.frame(subjects.VGA_HW)
    besides = {name: _Besides() for name in segmenters}
    contenders = [
        Contender(name, _call(segmenter, frame), besides[name].observe)
        for name, segmenter in segmenters.items()
    ]
    times = interleave(contenders, options.repeats or REPEATS)
    ours = times["patchcut"].median_ms
    ratios = {
        f"{name.removeprefix('patchcut, ').replace(' ', '_').replace('-', '_')}_ratio": one.median_ms / ours
        for name, one in times.items()
        if name != "patchcut"
    }
    for name, segmenter in segmenters.items():
        metrics = ratios if name == "patchcut" else {}
        yield Outcome(
            _case(size),
            name,
            "frame in memory to Result",
            times[name],
            {"frame": frame.shape},
            segmenter.describe().precision,
            metrics={**metrics, "besides_backbone_ms": float(np.median(besides[name].ms))},
            bundle=options.bundle,
        )


def _call(segmenter: Segmenter, frame: Any) -> Any:
    return lambda: segmenter(frame)


def _run_eight(options: Options, single: Segmenter, precision: str) -> Iterator[Outcome]:
    settings = replace(single.settings, throughput=True)
    beside, frames = patchcut.load(settings=settings), [subjects.frame(subjects.VGA_HW)] * BATCH
    calls = f"patchcut, {BATCH} calls"
    contenders = (
        Contender("patchcut", lambda: beside.batch(frames)),
        Contender(calls, lambda: [single(frame) for frame in frames]),
    )
    times = interleave(contenders, options.repeats or REPEATS // 2)
    ratio = times[calls].median_ms / times["patchcut"].median_ms
    for name, inside in (("patchcut", f"batch of {BATCH}, throughput"), (calls, f"{BATCH} single frames")):
        rate = 1e3 * BATCH / times[name].median_ms
        metrics = {"images_a_second": rate, **({"times_as_many": ratio} if name == "patchcut" else {})}
        shapes = {"frames": (BATCH, *frames[0].shape)}
        told = f"openvino, size 224, {inside}: frames in memory to Results"
        yield Outcome(
            EIGHT, name, told, times[name], shapes, precision, metrics=metrics, bundle=options.bundle
        )


def _run_load(options: Options, precision: str) -> Outcome:
    code = _CACHED.format(bundle=str(options.bundle), precision=precision, threads=options.threads)
    runs = [run_fresh(code) for _ in range(_LOADS + 1)][1:]  # the first fills the cache
    ms, peaks, precisions = zip(*runs, strict=True)
    return Outcome(
        LOAD,
        "patchcut",
        "load with OpenVINO in a fresh process that has imported patchcut, its own cache filled",
        Times(ms),
        dtype=precisions[0],
        bundle=options.bundle,
        peak_memory_mb=round(float(np.median(peaks)), 1),
    )
