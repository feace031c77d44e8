"""The whole way of a frame on a GPU as one graph of CUDA, made once for frames of one shape."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import patchcut_kernels as kernels
from patchcut_kernels import cuda
from patchcut_kernels.cuda import DeviceArray

from patchcut.features import Array, Features
from patchcut.frames import Frame
from patchcut.heads.base import Head
from patchcut.stages.canvas import Canvas
from patchcut.stages.extractor import Extractor
from patchcut.stages.masks import FoundOnDevice, Masks
from patchcut.stages.regions import Components

# Shapes whose graphs are kept; one of a 1080p frame has 50 MB.
MAX_GRAPHS = 4
# Shapes that are remembered to have come once.
_MAX_SEEN = 64


class FrameGraph:
    """b frames of one shape to their components: one copy up, one down, nothing waits in between.

    An engine that can be captured (`CapturableEngine`) is a part of the graph; another one runs between two
    graphs, on the same stream.

    Args:
        extractor: its engine has its memory on the GPU.
        head: one that can be captured, `capturable`.
        masks: `stays_on_device` for the frames' canvas.
        frame_hw: size of the frames.
        color: order of their channels.
        batch: how many frames.
        on_host: False where frames are written to `frames` and results read from `found` on the GPU.
    Attributes:
        frames: [b, H, W, 3] uint8 on the GPU.
        assignment: [b, n, k] float32 on the GPU, or [b, c * c * n, k]; written by each launch.
        found: the components on the GPU, written by each launch.
    """

    def __init__(
        self,
        extractor: Extractor,
        head: Head,
        masks: Masks,
        frame_hw: tuple[int, int],
        color: str,
        batch: int = 1,
        *,
        on_host: bool = True,
    ) -> None:
        self._extractor, self._head, self._masks = extractor, head, masks
        self._color, self._batch = color, batch
        self._canvas = Canvas.of(frame_hw, extractor.backbone, extractor.graph)
        self._images = cast("DeviceArray", extractor.engine.images(batch))
        assert self._images.stream is not None
        self.stream = self._images.stream
        self._up = cuda.empty_host((batch, *frame_hw, 3), np.uint8) if on_host else None
        self._down: Any = None
        self.frames = cuda.empty((batch, *frame_hw, 3), np.uint8, stream=self.stream)
        _, found = self.run()  # what is made in a first call cannot be made in a capture
        self.stream.synchronize()
        if on_host:
            self._down = cuda.empty_host(found.packed.memory.shape, np.uint8)
        self.assignment: DeviceArray
        self.found: FoundOnDevice
        self._graphs = self._capture()

    def __call__(self, frames: Sequence[Frame]) -> list[tuple[Components, DeviceArray]]:
        """The components of each frame, and its assignment [n, k] float32 on the GPU; all of it fresh memory.

        Args:
            frames: b of the shape and colour that the graph is for.
        Examples:
            >>> ((components, assignment),) = graph([patchcut.Frame(frame)])  # doctest: +SKIP
        """
        assert self._up is not None
        for frame, place in zip(frames, self._up, strict=True):
            np.copyto(place, frame.image)
        self.launch()
        confidence, assignment = (self._copy(one) for one in (self.found.confidence, self.assignment))
        self.stream.synchronize()
        host = tuple(one.copy() for one in self.found.packed.views(self._down))
        found = self.found.components(host, confidence)
        return [(components, assignment[i]) for i, components in enumerate(found)]

    def launch(self) -> None:
        """Gives all of it to the stream, and waits for nothing.

        Examples:
            >>> graph.launch()  # doctest: +SKIP
            >>> graph.stream.synchronize()  # doctest: +SKIP
        """
        for before in self._graphs[:-1]:
            before.launch(self.stream)
            self._extractor.engine.run(self._batch)
        self._graphs[-1].launch(self.stream)

    def fits(self) -> bool:
        """Whether the engine still has its memory where the graph was told.

        Examples:
            >>> graph.fits()  # doctest: +SKIP
            True
        """
        alone = len(self._graphs) == 1
        return alone or cast("DeviceArray", self._extractor.engine.images(self._batch)).pointer == (
            self._images.pointer
        )

    def run(self) -> tuple[DeviceArray, FoundOnDevice]:
        """Gives the stages to the stream one by one, and returns what they make, in fresh memory.

        Examples:
            >>> assignment, found = graph.run()  # doctest: +SKIP
        """
        self._before()
        return self._after(self._extractor.engine.run(self._batch))

    def _before(self) -> None:
        """Frames to the engine's images."""
        if self._up is not None:
            cuda.copy(self._up, self.frames, stream=self.stream)
        backbone = self._extractor.backbone
        kernels.preprocess(
            self.frames,
            self._extractor.graph.size_hw,
            backbone.mean,
            backbone.std,
            color=cast("Any", self._color),
            fit=backbone.fit,
            out=self._images,
        )

    def _after(self, features: Mapping[str, Array]) -> tuple[DeviceArray, FoundOnDevice]:
        """Features to assignment and components."""
        assignment = cast("DeviceArray", self._head(Features(features, self._extractor.graph.grid_hw)))
        found = self._masks.find_on_device(assignment, self._canvas)
        if self._down is not None:
            cuda.copy(found.packed.memory, self._down, stream=self.stream)
        return assignment, found

    def _capture(self) -> list[cuda.Launchable]:
        """One graph, or those before and after the engine."""

        def whole() -> None:
            self.assignment, self.found = self.run()

        if (graph := self._extractor.capture(whole)) is not None:
            return [graph]
        with cuda.graph_memory(self.stream), cuda.capture(self.stream) as before:
            self._before()
        features = self._extractor.engine.run(self._batch)
        with cuda.graph_memory(self.stream), cuda.capture(self.stream) as after:
            self.assignment, self.found = self._after(features)
        return [before, after]

    def _copy(self, array: DeviceArray) -> DeviceArray:
        made = cuda.empty(array.shape, array.dtype, device=array.device, stream=self.stream)
        cuda.copy(array, made, stream=self.stream)
        return made


class FrameGraphs:
    """The graphs of the shapes that frames have, each made when frames of its shape come again.

    A folder of photos of as many sizes makes none; a video makes one with its second frame.
    """

    def __init__(self) -> None:
        self._seen: dict[Hashable, None] = {}
        self._graphs: dict[Hashable, FrameGraph] = {}

    def __call__(
        self, extractor: Extractor, frames: Sequence[Frame], head: Head, masks: Masks
    ) -> list[tuple[Components, DeviceArray]] | None:
        """As `FrameGraph`; None where frames must go their way stage by stage.

        That is: where the head, the masks or the engine need the host, where a frame is partly unseen, where
        frames differ in shape or colour, and where frames of this shape come for the first time.

        Examples:
            >>> graphs = patchcut.stages.FrameGraphs()
            >>> graphs(seg.extractor, [patchcut.Frame(frame)], seg.head, seg.masks) is None
            True
        """
        if not _stay_on_device(extractor, frames, head, masks):
            return None
        first, batch = frames[0], len(frames)
        key = (batch, first.image.shape, first.color, id(extractor), id(head), masks.min_area_patches)
        graph = self._graphs.pop(key, None)
        if graph is None or not graph.fits():
            if not self._has_seen(key):
                return None
            height, width = first.image.shape[:2]
            graph = FrameGraph(extractor, head, masks, (height, width), first.color, batch)
        self._graphs[key] = graph  # the newest last
        while len(self._graphs) > MAX_GRAPHS:
            del self._graphs[next(iter(self._graphs))]
        return graph(frames)

    def _has_seen(self, key: Hashable) -> bool:
        """Whether frames of this kind have come before; from now on they have."""
        seen = key in self._seen
        self._seen[key] = None
        while len(self._seen) > _MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        return seen


def _stay_on_device(extractor: Extractor, frames: Sequence[Frame], head: Head, masks: Masks) -> bool:
    """Whether all that is done with the frames can be done on the GPU."""
    if extractor.device != "cuda" or "cuda" not in head.devices or not getattr(head, "capturable", False):
        return False
    alike = {(frame.image.shape, frame.color) for frame in frames}
    if len(alike) != 1 or any(frame.visible is not None for frame in frames):
        return False
    height, width = frames[0].image.shape[:2]
    canvas = Canvas.of((height, width), extractor.backbone, extractor.graph)
    on_device = isinstance(extractor.engine.images(len(frames)), DeviceArray)
    return on_device and masks.stays_on_device(canvas)
