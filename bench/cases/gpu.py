"""A frame's whole way on a GPU as one graph: torch in fp16 and our kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import patchcut
from patchcut import Segmenter
from patchcut.stages import FrameGraph
from patchcut_kernels import cuda

from bench import subjects
from bench.cases import BenchError, Options, Target
from bench.harness import Contender, Times, interleave
from bench.rows import Outcome

TITLE = "a frame's way on a GPU: preprocess, torch fp16, head, label map and regions, in one graph"
SIZE = 224
LARGE_BATCH = 64
PRECISION = "fp16"
CASES = (f"gpu frame {SIZE}", f"gpu batch {LARGE_BATCH}", f"gpu Result {SIZE}")
REPEATS = 100
TARGETS = (
    Target(CASES[0], "median_ms", "<=", 1.0, " ms", "frame to label map on the device, 224, H100"),
    Target(CASES[1], "frames_per_s", ">=", 8000, " frames/s", "64 frames to label maps, 224, H100"),
)


def run(options: Options) -> Iterator[Outcome]:
    """640x480 frames; the clock ends when the GPU is done."""
    _require_gpu()
    on_gpu = patchcut.load(
        settings=replace(options.settings, engine="torch", device="cuda", precision=PRECISION, size=SIZE)
    )
    exact = patchcut.load(settings=replace(options.settings, device="cpu", precision="fp32", size=SIZE))
    repeats = options.repeats or REPEATS
    frame = subjects.frame(subjects.VGA_HW)
    expected = exact(frame).label_map
    for case, batch in ((CASES[0], 1), (CASES[1], LARGE_BATCH)):
        yield from on_device(case, on_gpu, frame, batch, expected, repeats)
    yield from to_result(on_gpu, exact, frame, repeats)


def _require_gpu() -> None:
    """Raises unless torch and the kernels both have a GPU.

    Raises:
        BenchError: says what is missing.
    """
    try:
        import torch
    except ImportError as error:
        raise BenchError(f"gpu needs torch ({error}): pip install -e '.[export]'") from None
    if not cuda.is_available():
        raise BenchError(f"gpu needs a GPU: {cuda.why_unavailable()}")
    if cuda.device_name() == "host":
        raise BenchError("gpu needs a GPU: the CUDA kernels of this build run on the host, for tests")
    if not torch.cuda.is_available():
        raise BenchError(f"gpu needs torch with CUDA: torch {torch.__version__} finds none")


def on_device(
    case: str,
    segmenter: Segmenter,
    frame: npt.NDArray[np.uint8],
    batch: int,
    expected: npt.NDArray[np.int32],
    repeats: int,
) -> Iterator[Outcome]:
    """Frames on the device to label maps there; beside it the same op by op, and the backbone alone."""
    way = _Way(segmenter, frame, batch)
    contenders = {
        "patchcut": (way.launch, "preprocess to regions in one graph, and the wait for it"),
        "patchcut, op by op": (way.run, "the same, op by op"),
        "the backbone alone": (way.backbone, "the backbone's own graph"),
    }
    times = interleave([Contender(name, call) for name, (call, _) in contenders.items()], repeats)
    for name, (_, inside) in contenders.items():
        ours = name == "patchcut"
        yield Outcome(
            case,
            name,
            inside,
            times[name],
            {"frames": (batch, *frame.shape)},
            segmenter.describe().precision,
            {"labels as on the CPU in fp32": way.agreement(expected)} if ours else {},
            _rates(times[name], batch),
            device="cuda",
        )


def to_result(
    on_gpu: Segmenter, on_cpu: Segmenter, frame: npt.NDArray[np.uint8], repeats: int
) -> Iterator[Outcome]:
    """A frame in host memory to its Result: one copy up, one down; beside the CPU in fp32."""
    segmenters = {"patchcut": on_gpu, "patchcut on the CPU": on_cpu}
    times = interleave(
        [Contender(name, _segmenting(one, frame)) for name, one in segmenters.items()], repeats
    )
    for name, segmenter in segmenters.items():
        ran = segmenter.describe()
        yield Outcome(
            CASES[2],
            name,
            "frame in host memory to Result",
            times[name],
            {"frame": frame.shape},
            ran.precision,
            metrics=_rates(times[name], 1),
            device=ran.device,
        )


def _segmenting(segmenter: Segmenter, frame: npt.NDArray[np.uint8]) -> Callable[[], Any]:
    return lambda: segmenter(frame)


def _rates(times: Times, batch: int) -> dict[str, float]:
    return {"frames_per_s": 1e3 * batch / times.median_ms}


class _Way:
    """b copies of a frame that lie on the device, and what becomes of them there."""

    def __init__(self, segmenter: Segmenter, frame: npt.NDArray[np.uint8], batch: int) -> None:
        self._extractor = segmenter.extractor
        self._batch = batch
        self._graph = FrameGraph(
            segmenter.extractor,
            segmenter.head,
            segmenter.masks,
            (frame.shape[0], frame.shape[1]),
            "bgr",
            batch,
            on_host=False,
        )
        cuda.copy(np.stack([frame] * batch), self._graph.frames, stream=self._graph.stream)
        self._graph.stream.synchronize()

    def launch(self) -> None:
        """All of it at once, until it is done."""
        self._graph.launch()
        self._graph.stream.synchronize()

    def run(self) -> None:
        """One op after the other, until the last is done."""
        self._graph.run()
        self._graph.stream.synchronize()

    def backbone(self) -> None:
        """The engine alone, until it is done."""
        self._extractor.run(self._batch)
        self._graph.stream.synchronize()

    def agreement(self, expected: npt.NDArray[np.int32]) -> float:
        """Share of the last frame's pixels that have the label which `expected` [H, W] gives them."""
        self.launch()
        labels = self._graph.found.label_map.numpy()[-1]
        return float(np.mean((labels > 0) == (expected > 0)))
