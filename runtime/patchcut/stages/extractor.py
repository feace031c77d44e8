"""The first stage: frames to features of their patches."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import patchcut_kernels as kernels
from patchcut_kernels import cuda

from patchcut.bundle import BackboneSpec, Bundle, GraphSpec
from patchcut.engines import BesideEngine, CapturableEngine, Engine, choose_engine, open_engine
from patchcut.engines.processes import check_process
from patchcut.errors import EngineError
from patchcut.features import Array, Features
from patchcut.frames import Frame
from patchcut.settings import Settings

if TYPE_CHECKING:
    from typing_extensions import Self

_logger = logging.getLogger("patchcut")


@dataclass(frozen=True)
class _Run:
    """A run of the engine as one graph of CUDA, and the features that a launch writes."""

    graph: cuda.Launchable
    stream: cuda.Stream
    features: dict[str, Array]

    def launch(self) -> Mapping[str, Array]:
        self.graph.launch(self.stream)
        return self.features


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
        self._can_capture = True  # until a capture fails
        # By the images that it reads: the graph goes with that memory. None until they come again.
        self._runs: WeakKeyDictionary[Array, _Run | None] = WeakKeyDictionary()

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

        From the second run of a batch on it is one graph of CUDA, where the engine can be captured.

        Raises:
            EngineError: the backbone failed.
        Examples:
            >>> extractor.run(1).grid_hw
            (16, 16)
        """
        self.check_process()
        run = self._captured(batch)
        features = self.engine.run(batch) if run is None else run.launch()
        return Features(features, self.graph.grid_hw)

    def capture(self, work: Callable[[], None]) -> cuda.Launchable | None:
        """What is given to the engine's stream, of which its `run` is a part, as one graph of CUDA.

        None where the engine cannot be captured (`CapturableEngine`). Of one that turns out so the logger
        "patchcut" warns, and it is not tried again.

        Args:
            work: gives it, and has done so once before, so that nothing is left to be made.
        Examples:
            >>> extractor.capture(lambda: None) is None
            True
        """
        if not self._capturable:
            return None
        try:
            return cast("CapturableEngine", self.engine).capture(work)
        except (EngineError, RuntimeError) as error:
            self._can_capture = False
            what = f"{self.engine.facts.provider} cannot be captured in a graph of CUDA, and runs outside"
            _logger.warning("[engine] %s: %s", what, error)
            return None

    @property
    def _capturable(self) -> bool:
        return self._can_capture and getattr(self.engine, "capturable", False)

    def _captured(self, batch: int) -> _Run | None:
        """A run as a graph; None for the first of a batch, and where the engine cannot be captured."""
        if not self._capturable:
            return None
        images = cast("cuda.DeviceArray", self.engine.images(batch))
        if images in self._runs and self._runs[images] is None:
            features: dict[str, Array] = {}
            assert images.stream is not None
            graph = self.capture(lambda: features.update(self.engine.run(batch)))
            self._runs[images] = None if graph is None else _Run(graph, images.stream, features)
        return self._runs.setdefault(images, None)

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
        with self.places(len(frames)) as places:
            for i, frame in enumerate(frames):
                places.begin(i, frame)
            yield map(places.wait, range(len(frames)))

    @contextmanager
    def places(self, count: int) -> Iterator[Places]:
        """Places in which such an engine runs frames beside each other, each anew as soon as it is free.

        No run goes on where the context is left.

        Args:
            count: of places, at least one, and as many as frames that the engine takes at once.
        Raises:
            EngineError: as when it is called.
        Examples:
            >>> extractor = patchcut.load(throughput=True, threads=2).extractor
            >>> with extractor.places(2) as places:
            ...     for place in (0, 1, 0):
            ...         places.begin(place, patchcut.Frame(frame))
            ...     places.wait(1).batch
            1
        """
        with Places(self, self._images(count)) as places:
            yield places

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


class Places:
    """Places for frames that run beside each other; made by `Extractor.places`."""

    def __init__(self, extractor: Extractor, images: Array) -> None:
        self._extractor = extractor
        self._engine = cast("BesideEngine", extractor.engine)
        self._images = images
        self._begun: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        while self._begun:
            self._let_end(self._begun.pop())

    def begin(self, place: int, frame: Frame) -> None:
        """Fits a frame into a place, whose run begins at once; one that goes on there is waited for."""
        if place in self._begun:
            self._let_end(place)
        self._extractor._fit(frame, self._images[place])
        self._engine.start(place)
        self._begun.add(place)

    def wait(self, place: int) -> Features:
        """The features of the frame in a place, as soon as its run has ended; the next one overwrites them.

        Raises:
            EngineError: the run failed.
        """
        features = Features(self._engine.wait(place), self._extractor.graph.grid_hw)
        self._begun.discard(place)
        return features

    def _let_end(self, place: int) -> None:
        """Waits for a run whose features nobody wants."""
        with suppress(EngineError):
            self._engine.wait(place)
