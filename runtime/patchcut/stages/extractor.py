"""The first stage: frames to features of their patches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, cast

import patchcut_kernels as kernels
from patchcut_kernels import cuda

from patchcut.bundle import BackboneSpec, Bundle, GraphSpec
from patchcut.engines import BesideEngine, Engine, choose_engine, open_engine
from patchcut.engines.processes import check_process
from patchcut.errors import EngineError
from patchcut.features import Array, Features
from patchcut.frames import Frame
from patchcut.settings import Settings


class Extractor:
    """A backbone and the engine that runs it.

    Attributes:
        backbone: its spec: how frames are fitted into its image, and which feature sets it gives.
        engine: what executes it.
        why: why it is this engine, and this precision, in a line.
    """

    def __init__(self, backbone: BackboneSpec, engine: Engine, why: str = "it was put in by hand") -> None:
        self.backbone = backbone
        self.engine = engine
        self.why = why
        self._opened_by = os.getpid()

    @classmethod
    def open(
        cls, bundle: Bundle, settings: Settings, *, backbone: str | None = None, needs: Sequence[str] = ()
    ) -> Extractor:
        """The extractor of a bundle's backbone.

        Args:
            bundle: an open bundle; may be closed afterwards.
            settings: its engine, device, precision, size and threads are heeded.
            backbone: its name; None is the bundle's first.
            needs: the feature sets that are wanted; the first of the backbone where none is named.
        Raises:
            OptionError, EngineError, BundleError: as `patchcut.engines.open_engine` does.
        Examples:
            >>> extractor = patchcut.stages.Extractor.open(bundle, patchcut.Settings(size=448))
            >>> extractor.graph.size_hw
            (448, 448)
        """
        spec = bundle.spec.backbone if backbone is None else bundle.spec.backbones[backbone]
        wanted = tuple(needs) or (next(iter(spec.features)),)
        features = {name: spec.features[name] for name in wanted}
        spec = spec.model_copy(update={"features": features})
        return cls(spec, open_engine(bundle, spec, settings), choose_engine(spec, settings).why)

    @property
    def graph(self) -> GraphSpec:
        """The graph that runs: its size, grid and precision."""
        return self.engine.facts.graph

    @property
    def device(self) -> str:
        """Where features lie: the engine's device, and the host where the kernels cannot run on that."""
        return self.engine.facts.device if cuda.is_available() else "cpu"

    def __call__(self, frames: Sequence[Frame]) -> Features:
        """Features of frames, which may differ in size.

        They are the engine's own memory on the engine's device, overwritten by the next call.

        Args:
            frames: as many as the engine takes at once, at least one.
        Raises:
            EngineError: the backbone failed, or there are no frames or too many.
        Examples:
            >>> extractor([patchcut.Frame(frame)])["key"].shape
            (1, 256, 384)
        """
        self.preprocess(frames)
        return self.run(len(frames))

    def check_process(self) -> None:
        """Checks that this is the process that opened the engine.

        Raises:
            EngineError: "[segmenter] was loaded before the fork (by process 7), and its threads stayed there;
                load after the fork, ...".
        Examples:
            >>> extractor.check_process() is None
            True
        """
        check_process(self._opened_by)

    def preprocess(self, frames: Sequence[Frame]) -> None:
        """Fits each frame into the engine's input; to one on a GPU each frame goes in one copy.

        Raises:
            EngineError: "[extractor] takes 1 to 1 frames at once, got 2; ...".
        Examples:
            >>> extractor.preprocess([patchcut.Frame(frame)])
            >>> extractor.engine.images(1).shape
            (1, 3, 224, 224)
        """
        images = self._images(len(frames))
        for i, frame in enumerate(frames):
            self._fit(frame, images[i])

    def run(self, batch: int) -> Features:
        """Features of the frames that `preprocess` was given, `batch` of them.

        Examples:
            >>> extractor.run(1).grid_hw
            (16, 16)
        """
        self.check_process()
        return Features(self.engine.run(batch), self.graph.grid_hw)

    @contextmanager
    def beside(self, frames: Sequence[Frame]) -> Iterator[Iterator[Features]]:
        """Features of each frame, of an engine that runs them beside each other (`engine.facts.beside`).

        A frame's run begins as soon as it is fitted, and its features are there as soon as its own run has
        ended, while those of later frames go on. No run goes on where the context is left.

        Args:
            frames: as many as the engine takes at once, at least one.
        Raises:
            EngineError: as when it is called.
        Examples:
            >>> extractor = patchcut.load(throughput=True, threads=2).extractor
            >>> with extractor.beside([patchcut.Frame(frame)] * 3) as each:
            ...     [features.batch for features in each]
            [1, 1, 1]
        """
        engine = cast("BesideEngine", self.engine)
        images = self._images(len(frames))
        with ExitStack() as begun:
            for i, frame in enumerate(frames):
                self._fit(frame, images[i])
                engine.start(i)
                begun.callback(_let_end, engine, i)
            yield (Features(engine.wait(i), self.graph.grid_hw) for i in range(len(frames)))

    def _images(self, count: int) -> Array:
        """The engine's memory for so many frames."""
        self.check_process()
        max_batch = self.engine.facts.max_batch
        if not 1 <= count <= max_batch:
            came = f"takes 1 to {max_batch} frames at once, got {count}"
            raise EngineError("extractor", came, "pass them in several calls")
        return self.engine.images(count)

    def _fit(self, frame: Frame, out: Array) -> None:
        """Writes a frame into the engine's memory [3, Sh, Sw] of one."""
        image: Any = frame.image
        if isinstance(out, cuda.DeviceArray):
            image = cuda.to_device(image, device=out.device, stream=out.stream)
        kernels.preprocess(
            image,
            self.graph.size_hw,
            self.backbone.mean,
            self.backbone.std,
            color=frame.color,
            fit=self.backbone.fit,
            out=out,
        )


def _let_end(engine: BesideEngine, frame: int) -> None:
    """Waits for a run whose features nobody wants any more, or that was waited for."""
    with suppress(EngineError):
        engine.wait(frame)
