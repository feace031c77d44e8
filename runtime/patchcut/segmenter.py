"""The segmenter: a bundle, an engine and a head, ready to turn frames into results."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

from patchcut.bundle import BundleSpec, open_bundle
from patchcut.engines import Device, Engine, EngineOptions, check_choice, open_engine
from patchcut.errors import BundleError
from patchcut.frames import ColorOrder, Frame, as_frame, check_color
from patchcut.heads import Head, open_head
from patchcut.regions import Regions, find_regions
from patchcut.result import Result

_logger = logging.getLogger("patchcut")

LabelMap = npt.NDArray[np.int32]
Refiner = Callable[[LabelMap, npt.NDArray[np.float32], Frame], LabelMap]


def keep_borders(label_map: LabelMap, confidence: npt.NDArray[np.float32], frame: Frame) -> LabelMap:
    """`label_map` itself: borders stay where the upsampled assignment has them."""
    return label_map


# Each maps (label map [H, W] int32, confidence [H, W] float32, frame) to a label map [H, W] int32.
REFINERS: Mapping[str, Refiner] = {"none": keep_borders}


@dataclass(frozen=True)
class Description:
    """What a segmenter is and what really runs.

    Attributes:
        bundle: name and path.
        engine: name, as in the entry point.
        provider: what of the engine executes, such as "CPUExecutionProvider".
        precision: of the graph.
        size_hw: of the backbone's input, in pixels.
        device: "cpu" or "cuda".
        threads: CPU threads of the engine and of the kernels.
        head, refine: names.
        color: order of channels expected of arrays.
    """

    bundle: str
    engine: str
    provider: str
    precision: str
    size_hw: tuple[int, int]
    device: str
    threads: int
    head: str
    refine: str
    color: str

    def __str__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["size_hw"] = "x".join(map(str, self.size_hw))
        return "\n".join(f"{name:<10}{value}" for name, value in values.items())


class Segmenter:
    """Turns frames into results, one at a time: calls from several threads wait. Made by `load`.

    Attributes:
        spec: the bundle's manifest: names, licence, what it was trained on, measured accuracy.
    """

    def __init__(
        self, spec: BundleSpec, path: Path, engine: Engine, head: Head, *, color: ColorOrder, refine: str
    ) -> None:
        self.spec = spec
        self._path = path
        self._engine = engine
        self._head = head
        self._color = color
        self._refine = refine
        self._lock = threading.Lock()

    def __call__(self, frame: object) -> Result:
        """The regions of one frame, best first.

        Args:
            frame: [H, W, 3] uint8 in the `color` given to `load`, any strides; a PIL image; or a Frame.
        Returns:
            A Result whose arrays are its own: nothing in it changes with the next frame.
        Raises:
            FrameError: the object is not a frame.
            EngineError: the backbone failed.
        """
        checked = as_frame(frame, self._color)
        with self._lock:
            return self._segment(checked)

    def stream(self, source: object) -> Iterator[Result]:
        """Results of each frame of a source, made as they are asked for; the source is closed at the end.

        What has to be skipped is logged as a warning of the logger "patchcut"; to have it as a list, open the
        source with `patchcut.sources.open_source` and read its `.problems` afterwards.

        Args:
            source: what `open_source` takes: file, folder, glob, camera, URL, iterable, or a source itself.
        Raises:
            SourceError: the source cannot be opened.
        """
        from patchcut.sources import open_source

        with open_source(source, color=self._color) as frames:
            told = 0
            for frame in frames:
                told = _log_problems(frames.problems, told)
                yield self(frame)
            _log_problems(frames.problems, told)

    def describe(self) -> Description:
        """What runs: bundle, engine, provider, precision, size, device, threads, head, refiner, colours."""
        graph = self._engine.graph
        return Description(
            bundle=f"{self.spec.name} ({self._path})",
            engine=self._engine.name,
            provider=self._engine.provider,
            precision=graph.precision,
            size_hw=graph.size_hw,
            device=self._engine.device,
            threads=self._engine.threads,
            head=self._head.name,
            refine=self._refine,
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
        assigned = perf_counter()
        regions = self._regions(frame, assignment)
        done = perf_counter()
        timings_ms = {
            "preprocess": 1e3 * (preprocessed - started),
            "backbone": 1e3 * (ran - preprocessed),
            "head": 1e3 * (assigned - ran),
            "masks": 1e3 * (done - assigned),
        }
        return Result(
            **{field.name: getattr(regions, field.name) for field in fields(regions)},
            labels=self._head.labels,
            assignment=assignment,
            grid_hw=graph.grid_hw,
            timings_ms=timings_ms,
            color=frame.color,
            name=frame.name,
            index=frame.index,
            time_s=frame.time_s,
        )

    def _regions(self, frame: Frame, assignment: npt.NDArray[np.float32]) -> Regions:
        height, width = frame.image.shape[:2]
        grid_hw = self._engine.graph.grid_hw
        label_map, confidence = kernels.upsample_argmax(assignment, grid_hw, (height, width), confidence=True)
        label_map = REFINERS[self._refine](label_map, confidence, frame)
        patch_area = height * width / (grid_hw[0] * grid_hw[1])
        min_area = max(1, math.ceil(self.spec.regions.min_area_patches * patch_area))
        return find_regions(label_map, confidence, min_area)


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
    head: str = "auto",
    refine: str = "none",
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
        head: "auto" is the one that the bundle was made with.
        refine: "none".
        color: order of channels of array frames, "bgr" or "rgb".
        threads: CPU threads from 1 to 256; None is one a physical core, and the kernels' own choice for them.
            A number also sets the kernels' threads, for the whole process.
    Raises:
        OptionError: an argument is not among what is allowed; the message lists that.
        BundleError: the bundle is missing, damaged, foreign or newer.
        EngineError: the engine's package or the device is not there.
    """
    check_choice("refine", refine, tuple(REFINERS))
    order = check_color(color)
    options = EngineOptions(cast("Device", device), cast("Any", precision), size, threads)
    with open_bundle(bundle) as opened:
        spec, path = opened.spec, opened.path
        if spec.backbone.fit != "stretch":
            what = f"{path} fits frames by {spec.backbone.fit!r}, this patchcut only by 'stretch'"
            raise BundleError("bundle", what, "upgrade patchcut: pip install -U patchcut")
        opened_head = open_head(opened, head)
        opened_engine = open_engine(opened, options, engine)
    if threads is not None:
        kernels.set_threads(threads)
    return Segmenter(spec, path, opened_engine, opened_head, color=order, refine=refine)
