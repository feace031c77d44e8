"""A whole frame, beside ONNX Runtime that does the backbone alone: the same graph, and a float one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import patchcut
from patchcut import Frame, Result

from bench import subjects
from bench.cases import BenchError, Options, Target
from bench.harness import Contender, Times, interleave
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


class _Segmenter:
    """A segmenter on the photo, and what its timed frames tell of their stages."""

    def __init__(self, options: Options, size: int, refine: str) -> None:
        settings = replace(options.settings, size=size, refine=refine)
        self.frame = subjects.frame(subjects.VGA_HW)
        self.segmenter = patchcut.load(settings=settings)
        self.ran = self.segmenter.describe()
        self._ms: list[dict[str, float]] = []
        self._besides_backbone: list[float] = []
        self._regions = 0

    def image(self) -> npt.NDArray[np.float32]:
        """[1, 3, S, S] float32, the photo as the backbone gets it."""
        self.segmenter.extractor.preprocess([Frame(self.frame)])
        return np.array(self.segmenter.extractor.engine.images(1))

    def segment(self) -> Result:
        return self.segmenter(self.frame)

    def segment_with_masks(self) -> Result:
        result = self.segment()
        assert result.masks.dtype == bool  # masks are made when they are first asked for
        return result

    def observe(self, value: object, total_ms: float) -> None:
        result = cast("Result", value)
        self._ms.append(result.timings_ms)
        self._besides_backbone.append(1 - result.timings_ms["backbone"] / total_ms)
        self._regions = len(result)

    def outcome(self, case: str, name: str, inside: str, times: dict[str, Times], **fields: Any) -> Outcome:
        ours = times[name].median_ms
        ratios = {
            ratio: ours / times[graph].median_ms
            for ratio, graph in (("ratio_to_fp32", FLOAT_GRAPH), ("ratio_to_same_graph", SAME_GRAPH))
            if graph in times
        }
        stages = {f"{stage}_ms": float(np.median([one[stage] for one in self._ms])) for stage in self._ms[0]}
        share = float(np.median(self._besides_backbone))
        more = {"share_besides_backbone": share, "regions": self._regions}
        return Outcome(
            case,
            name,
            f"frame in memory to Result, {inside}",
            times[name],
            dtype=self.ran.precision,
            quality=self._recorded_quality(),
            metrics={**ratios, **stages, **more},
            **fields,
        )

    def _recorded_quality(self) -> dict[str, float]:
        """What the bundle says of its head at just this size, precision and refiner; not measured here."""
        wanted = ("", self.ran.size_hw[0], self.ran.precision, self.ran.refine)
        head = self.segmenter.spec.head()
        report = head.report if head else ()
        rows = [row for row in report if (row.head, row.size, row.precision, row.refine) == wanted]
        return {f"{row.dataset} {row.metric} (from the bundle's report)": row.value for row in rows}


def _run_size(options: Options, size: int) -> Iterator[Outcome]:
    from bench.competitors.plain_onnxruntime import open_float, open_same

    ours = _Segmenter(options, size, "none")
    image, precision = ours.image(), ours.ran.precision
    same = open_same(options.bundle, size, precision, options.threads)
    exact = open_float(options.bundle, size, options.threads)
    contenders = (
        Contender("patchcut", ours.segment_with_masks, ours.observe),
        Contender(SAME_GRAPH, lambda: same.run(None, {"image": image})),
        Contender(FLOAT_GRAPH, lambda: exact.run(None, {"image": image})),
    )
    times = interleave(contenders, options.repeats or REPEATS)
    case, shapes = f"frame {size}", {"frame": ours.frame.shape, "image": image.shape[1:]}
    yield ours.outcome(case, "patchcut", "masks made", times, shapes=shapes, bundle=options.bundle)
    for name, dtype in ((SAME_GRAPH, precision), (FLOAT_GRAPH, "fp32")):
        yield Outcome(
            case,
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

    names = {"guided": "patchcut", "none": "patchcut, no refiner", "bilateral": "patchcut, bilateral solver"}
    segmenters = {name: _Segmenter(options, 224, refine) for refine, name in names.items()}
    image, exact = segmenters["patchcut"].image(), open_float(options.bundle, 224, options.threads)
    contenders = [Contender(name, one.segment, one.observe) for name, one in segmenters.items()]
    contenders.append(Contender(FLOAT_GRAPH, lambda: exact.run(None, {"image": image})))
    times = interleave(contenders, options.repeats or REPEATS)
    for name, one in segmenters.items():
        inside, shapes = f"refine={one.ran.refine}", {"frame": one.frame.shape}
        yield one.outcome(REFINED, name, inside, times, shapes=shapes, bundle=options.bundle)
