"""The segmenter: a bundle, an engine and a head, ready to turn frames into results."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

from patchcut.bundle import Bundle, BundleSpec, open_bundle
from patchcut.engines import Device, Engine, EngineOptions, check_choice, open_engine
from patchcut.errors import OptionError
from patchcut.frames import ColorOrder, Frame, as_frame, check_color
from patchcut.heads import PARTS, FittedHead, Head, KMeansHead, open_head, open_parts
from patchcut.heads.base import check_number
from patchcut.result import Result
from patchcut.stages.canvas import canvas_of, upsample
from patchcut.stages.modes import MODES, Divider, Division
from patchcut.stages.refiners import REFINERS, Coarse, refine
from patchcut.stages.regions import Regions, Rules, divide_regions, find_regions

if TYPE_CHECKING:
    from patchcut.sources import Source

_logger = logging.getLogger("patchcut")

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Description:
    """What a segmenter is and what really runs.

    Attributes:
        bundle: name and path.
        engine: name, as in the entry point.
        provider: what of the engine executes, such as "CPUExecutionProvider".
        precision: that the graph computes in.
        weights: precision that its weights are stored in, such as "int8" under a graph in fp32.
        size_hw: of the backbone's input, in pixels.
        device: "cpu" or "cuda".
        threads: CPU threads of the engine.
        kernel_threads: CPU threads of the kernels at this moment; they are the whole process's.
        head: name of the first stage.
        head_settings: of a head that is fitted to each frame.
        mode: "foreground", "parts" or "scene".
        parts: name of the second stage; "" where there is none.
        parts_settings: as `head_settings`.
        refine: name.
        min_score: below it no region is reported.
        nothing_below: where no region scores this, none is reported.
        single: whether the best region alone is reported.
        calibrated: whether scores are probabilities.
        color: order of channels expected of arrays.
    """

    bundle: str
    engine: str
    provider: str
    precision: str
    weights: str
    size_hw: tuple[int, int]
    device: str
    threads: int
    kernel_threads: int
    head: str
    head_settings: dict[str, Any]
    mode: str
    parts: str
    parts_settings: dict[str, Any]
    refine: str
    min_score: float
    nothing_below: float
    single: bool
    calibrated: bool
    color: str

    def __str__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["size_hw"] = "x".join(map(str, self.size_hw))
        for name in ("head", "parts"):
            values[name] = settings_text(values[name], values.pop(f"{name}_settings"))
        return "\n".join(f"{name:<15}{value}" for name, value in values.items() if value != "")


def settings_text(name: str, settings: dict[str, Any]) -> str:
    """A head and its settings, such as "cc (alpha 3.0, solver moves)"."""
    listed = ", ".join(f"{key} {value}" for key, value in settings.items())
    return f"{name} ({listed})" if listed else name


class Segmenter:
    """Turns frames into results, one at a time: calls from several threads wait. Made by `load`.

    Attributes:
        spec: the bundle's manifest: names, licence, what it was trained on, measured accuracy.
    """

    def __init__(
        self,
        spec: BundleSpec,
        path: Path,
        engine: Engine,
        head: Head,
        divider: Divider | None,
        *,
        color: ColorOrder,
        mode: str,
        refine: str,
        rules: Rules,
    ) -> None:
        self.spec = spec
        self._path = path
        self._engine = engine
        self._head = head
        self._divider = divider
        self._color = color
        self._mode = mode
        self._refine = refine
        self._rules = rules
        self._lock = threading.Lock()

    def __call__(self, frame: object) -> Result:
        """The regions of one frame, best first.

        Args:
            frame: [H, W, 3] uint8 in the `color` given to `load`, any strides; a PIL image; or a Frame.
        Returns:
            A Result whose arrays are its own: nothing in it changes with the next frame. Only its `frame` is
            the caller's memory.
        Raises:
            FrameError: the object is not a frame.
            EngineError: the backbone failed.
        """
        checked = as_frame(frame, self._color)
        with self._lock:
            return self._segment(checked)

    def stream(self, source: object) -> Iterator[Result]:
        """Results of each frame of a source, made as they are asked for; the source is closed at the end.

        The source is opened now; each result has its `frame`. Cameras and live streams give their newest
        frame: what comes while one is worked on is dropped. What has to be skipped is logged as a warning of
        the logger "patchcut"; to have it as a list, open the source with `patchcut.open_source` and read its
        `.problems` afterwards.

        Args:
            source: what `open_source` takes: file, folder, glob, camera, URL, iterable, or a source itself.
        Raises:
            SourceError: the source cannot be opened.
        """
        from patchcut.sources import open_source

        return self._results(open_source(source, color=self._color))

    def _results(self, source: Source) -> Iterator[Result]:
        with source:
            told = 0
            for frame in source:
                told = _log_problems(source.problems, told)
                yield self(frame)
            _log_problems(source.problems, told)

    def describe(self) -> Description:
        """What runs: bundle, engine, provider, precision, size, device, threads, head, refiner, colours."""
        graph = self._engine.graph
        return Description(
            bundle=f"{self.spec.name} ({self._path})",
            engine=self._engine.name,
            provider=self._engine.provider,
            precision=graph.precision,
            weights=self._engine.weights,
            size_hw=graph.size_hw,
            device=self._engine.device,
            threads=self._engine.threads,
            kernel_threads=kernels.get_threads(),
            head=self._head.name,
            head_settings=_settings(self._head),
            mode=self._mode,
            parts="" if self._divider is None else self._divider.parts.name,
            parts_settings={} if self._divider is None else _settings(self._divider.parts),
            refine=self._refine,
            min_score=self._rules.min_score,
            nothing_below=self._rules.nothing_below,
            single=self._rules.single,
            calibrated=self._rules.calibration is not None,
            color=self._color,
        )

    def _segment(self, frame: Frame) -> Result:
        graph, backbone = self._engine.graph, self.spec.backbone
        started = perf_counter()
        kernels.preprocess(
            frame.image,
            graph.size_hw,
            backbone.mean,
            backbone.std,
            color=frame.color,
            fit=backbone.fit,
            out=self._engine.image,
        )
        preprocessed = perf_counter()
        features = self._engine.run()
        ran = perf_counter()
        assignment = self._head(features, graph.grid_hw)
        division = None
        if self._divider is not None:
            division = self._divider(features, assignment, graph.grid_hw)
        assigned = perf_counter()
        regions = self._regions(frame, assignment, division)
        done = perf_counter()
        timings_ms = {
            "preprocess": 1e3 * (preprocessed - started),
            "backbone": 1e3 * (ran - preprocessed),
            "head": 1e3 * (assigned - ran),
            "masks": 1e3 * (done - assigned),
        }
        return Result(
            **vars(regions),
            **self._columns(assignment, division),
            grid_hw=graph.grid_hw,
            timings_ms=timings_ms,
            frame=frame.image,
            color=frame.color,
            name=frame.name,
            index=frame.index,
            time_s=frame.time_s,
        )

    def _columns(self, assignment: Float32, division: Division | None) -> dict[str, Any]:
        """What a result says of its columns."""
        if division is None:
            return {"assignment": assignment, "labels": self._head.labels[: assignment.shape[1]]}
        return {name: getattr(division, name) for name in ("assignment", "labels", "background_columns")}

    def _regions(self, frame: Frame, assignment: Float32, division: Division | None) -> Regions:
        graph, backbone = self._engine.graph, self.spec.backbone
        height, width = frame.image.shape[:2]
        canvas = canvas_of((height, width), graph.size_hw, backbone.fit, backbone.covered(graph.size_hw))
        columns = assignment if division is None else division.foreground
        label_map, confidence = upsample(columns, graph.grid_hw, canvas)
        patch_area = math.prod(canvas.size_hw) / math.prod(graph.grid_hw)
        min_area = max(1, math.ceil(self.spec.regions.min_area_patches * patch_area))
        coarse = Coarse(label_map, confidence, columns.shape[1] == 2, math.sqrt(patch_area))
        label_map, confidence = refine(self._refine, coarse, frame, min_area)
        objects = find_regions(label_map, confidence, replace(self._rules, min_area=min_area))
        if division is None:
            return objects
        label_map = division.label_map(objects.label_map > 0, graph.grid_hw, canvas)
        behind = division.background_columns
        return divide_regions(objects, label_map, confidence, min_area=min_area, background=behind)


def _log_problems(problems: list[str], told: int) -> int:
    """Logs the problems from number `told` on, and returns how many have been told now."""
    for problem in problems[told:]:
        _logger.warning("%s", problem)
    return len(problems)


def load(
    bundle: str | Path | None = None,
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    size: int | None = None,
    head: str | Head = "auto",
    mode: str = "foreground",
    parts: str | FittedHead = "auto",
    refine: str = "auto",
    min_score: float = 0.0,
    nothing_below: float | None = None,
    single: bool = False,
    color: str = "bgr",
    threads: int | None = None,
) -> Segmenter:
    """A segmenter that is ready to run.

    Args:
        bundle: path of a `.patchcut` file; None is the embedded one.
        engine: name of an installed engine; "auto" is "onnxruntime".
        device: "cpu", "cuda", or "auto": CUDA where the engine has it, else the CPU. `describe` tells.
        precision: "int8", "fp16" or "fp32"; "auto" is int8 on a CPU and fp16 on CUDA where the bundle has it.
        size: side of the backbone's input in pixels, one that the bundle has; None is its default.
        head: "auto" is the one that the bundle was made with; "gnn-fit", "cc", "ncut" and "kmeans" are fitted
            to each frame and need no training. One with settings is an object, such as
            `patchcut.heads.CcHead(alpha=5)`.
        mode: "foreground": what stands out, in as many columns as the head has; "parts": the foreground
            divided; "scene": its parts and the regions of the background.
        parts: what divides the foreground: "auto" is the bundle's head for parts if it has one, else "kmeans"
            with k=4; a fitted head's name, or the object. The background of a scene is divided by the same
            head if it is a fitted one.
        refine: what moves borders onto the frame's edges: "none", "guided" or "bilateral"; "auto" is "guided"
            for frames of a video, which have a time, and "none" for others.
        min_score: regions that score less, in [0, 1], become background.
        nothing_below: where no region scores this, in [0, 1], there is nothing; None is what the bundle's
            calibration says, which is of its own head, and 0 without one.
        single: True to leave all but the best region out; in a scene they are background.
        color: order of channels of array frames, "bgr" or "rgb".
        threads: CPU threads from 1 to 256; None is one a physical core that this process may use (see
            `patchcut_kernels.default_threads`) and leaves the kernels' threads as they are. A number also
            sets the kernels' threads, for the whole process.
    Raises:
        OptionError: an argument is not among what is allowed; the message lists that.
        BundleError: the bundle is missing, damaged, foreign or newer.
        EngineError: the engine's package or the device is not there.
    """
    check_choice("mode", mode, MODES)
    check_choice("refine", refine, ("auto", *REFINERS))
    order = check_color(color)
    check_number("min_score", min_score, 0, 1)
    if nothing_below is not None:
        check_number("nothing_below", nothing_below, 0, 1)
    if not isinstance(single, bool):
        raise OptionError("single", f"must be True or False, got {single!r}")
    options = EngineOptions(cast("Device", device), cast("Any", precision), size, threads)
    with open_bundle(bundle) as opened:
        spec, path = opened.spec, opened.path
        opened_head = open_head(opened, head)
        divider = _open_divider(opened, mode, parts)
        opened_engine = open_engine(opened, options, engine)
    if threads is not None:
        kernels.set_threads(threads)
    return Segmenter(
        spec,
        path,
        opened_engine,
        opened_head,
        divider,
        color=order,
        mode=mode,
        refine=refine,
        rules=_rules(spec, opened_head, min_score, nothing_below, single),
    )


def _open_divider(bundle: Bundle, mode: str, parts: str | FittedHead) -> Divider | None:
    """The second stage that a mode needs, None for "foreground"."""
    if mode == "foreground":
        if parts != "auto":
            raise OptionError("parts", 'needs the mode "parts" or "scene", got "foreground"')
        return None
    opened = open_parts(bundle, parts)
    grounds = opened if isinstance(opened, FittedHead) else KMeansHead(k=PARTS)
    return Divider(opened, grounds if mode == "scene" else None)


def _rules(
    spec: BundleSpec, head: Head, min_score: float, nothing_below: float | None, single: bool
) -> Rules:
    """How regions score; a calibration holds for the head that it was made for alone."""
    own = spec.head()
    calibration = own.calibration if own is not None and head.name == own.kind else None
    if nothing_below is None:
        nothing_below = 0.0 if calibration is None else calibration.nothing_below
    return Rules(min_score=min_score, nothing_below=nothing_below, single=single, calibration=calibration)


def _settings(head: Head) -> dict[str, Any]:
    return asdict(head) if is_dataclass(head) and not isinstance(head, type) else {}
