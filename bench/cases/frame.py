"""A whole frame, beside ONNX Runtime that does the backbone alone: the same graph, and a float one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import patchcut
import patchcut_kernels as kernels
from patchcut import Result, Segmenter

from bench import subjects
from bench.cases import BenchError, Options, Target
from bench.harness import Contender, interleave
from bench.rows import Outcome

TITLE = "frame in memory to Result with masks, beside plain ONNX Runtime doing only the backbone"
SIZES = (224, 448)
SAME_GRAPH = "onnxruntime, the same graph"
FLOAT_GRAPH = "onnxruntime, the float graph"
REFINED = "frame 224 refined"
CASES = (*(f"frame {size}" for size in SIZES), REFINED)
REPEATS = 60
TARGETS = (
    Target("frame 224", "ratio_to_fp32", "<=", 0.65, "", "whole frame at 224 / fp32 backbone alone"),
    Target(REFINED, "ratio_to_fp32", "<=", 0.65, "", "whole refined frame at 224 / fp32 backbone alone"),
    Target("frame 224", "share_besides_backbone", "<=", 0.20, "", "share of a frame besides the backbone"),
)


def run(options: Options) -> Iterator[Outcome]:
    """640x480 BGR frame to Result incl. `result.masks`; the neighbours get their image ready-made."""
    try:
        import onnx  # noqa: F401 - the neighbours' graphs
    except ImportError as error:
        raise BenchError(f"frame needs onnx ({error}): pip install -e '.[dev]'") from None
    for size in SIZES:
        yield from _run_size(options, size)
    yield from _run_refined(options)


@dataclass
class _Stages:
    """Milliseconds of the stages of each timed frame."""

    ms: list[dict[str, float]] = field(default_factory=list)
    besides_backbone: list[float] = field(default_factory=list)
    regions: int = 0

    def observe(self, value: object, total_ms: float) -> None:
        result = cast("Result", value)
        self.ms.append(result.timings_ms)
        self.besides_backbone.append(1 - result.timings_ms["backbone"] / total_ms)
        self.regions = len(result)

    def metrics(self) -> dict[str, float]:
        stages = {
            f"{stage}_ms": float(np.median([frame[stage] for frame in self.ms])) for stage in self.ms[0]
        }
        share = float(np.median(self.besides_backbone))
        return {**stages, "share_besides_backbone": share, "regions": self.regions}


def _run_size(options: Options, size: int) -> Iterator[Outcome]:
    from bench.competitors.plain_onnxruntime import open_float, open_same

    frame = subjects.frame(subjects.VGA_HW)
    segmenter = patchcut.load(options.bundle, size=size, device="cpu", refine="none", threads=options.threads)
    backbone = segmenter.spec.backbone
    image = kernels.preprocess(frame, size, backbone.mean, backbone.std, fit=backbone.fit)[None]
    precision = segmenter.describe().precision
    same = open_same(options.bundle, size, precision, options.threads)
    exact = open_float(options.bundle, size, options.threads)
    stages = _Stages()

    def segment() -> Result:
        result = segmenter(frame)
        assert result.masks.dtype == bool  # masks are made when they are first asked for
        return result

    contenders = (
        Contender("patchcut", segment, stages.observe),
        Contender(SAME_GRAPH, lambda: same.run(None, {"image": image})),
        Contender(FLOAT_GRAPH, lambda: exact.run(None, {"image": image})),
    )
    times = interleave(contenders, options.repeats or REPEATS)
    ours = times["patchcut"]
    yield Outcome(
        f"frame {size}",
        "patchcut",
        "frame in memory to Result, masks made",
        ours,
        {"frame": frame.shape, "image": image.shape[1:]},
        precision,
        _recorded_quality(segmenter),
        {
            "ratio_to_fp32": ours.median_ms / times[FLOAT_GRAPH].median_ms,
            "ratio_to_same_graph": ours.median_ms / times[SAME_GRAPH].median_ms,
            **stages.metrics(),
        },
        options.bundle,
    )
    for name, dtype in ((SAME_GRAPH, precision), (FLOAT_GRAPH, "fp32")):
        yield Outcome(
            f"frame {size}",
            name,
            "ready image to features: the backbone alone",
            times[name],
            {"image": image.shape[1:]},
            dtype,
            bundle=options.bundle,
        )


def _run_refined(options: Options) -> Iterator[Outcome]:
    """The same frame with each refiner; the first is the default for videos."""
    from bench.competitors.plain_onnxruntime import open_float

    frame = subjects.frame(subjects.VGA_HW)
    names = {"guided": "patchcut", "none": "patchcut, no refiner", "bilateral": "patchcut, bilateral solver"}
    segmenters = {
        name: patchcut.load(options.bundle, size=224, device="cpu", refine=refine, threads=options.threads)
        for refine, name in names.items()
    }
    stages = {name: _Stages() for name in segmenters}
    backbone, exact = segmenters["patchcut"].spec.backbone, open_float(options.bundle, 224, options.threads)
    image = kernels.preprocess(frame, 224, backbone.mean, backbone.std, fit=backbone.fit)[None]

    def call(segmenter: Segmenter) -> Callable[[], Result]:
        return lambda: segmenter(frame)

    contenders = [
        Contender(name, call(segmenter), stages[name].observe) for name, segmenter in segmenters.items()
    ]
    contenders.append(Contender(FLOAT_GRAPH, lambda: exact.run(None, {"image": image})))
    times = interleave(contenders, options.repeats or REPEATS)
    for name, segmenter in segmenters.items():
        yield Outcome(
            REFINED,
            name,
            f"frame in memory to Result, refine={segmenter.describe().refine}",
            times[name],
            {"frame": frame.shape},
            segmenter.describe().precision,
            _recorded_quality(segmenter),
            {
                "ratio_to_fp32": times[name].median_ms / times[FLOAT_GRAPH].median_ms,
                **stages[name].metrics(),
            },
            options.bundle,
        )


def _recorded_quality(segmenter: Segmenter) -> dict[str, float]:
    """What the bundle's report says of just this size, precision and refiner; it is not measured here."""
    what = segmenter.describe()
    wanted = (what.size_hw[0], what.precision, what.refine)
    head = segmenter.spec.head()
    own = [row for row in (head.report if head else ()) if not row.head]
    rows = [row for row in own if (row.size, row.precision, row.refine) == wanted]
    return {f"{row.dataset} {row.metric} (from the bundle's report)": row.value for row in rows}
