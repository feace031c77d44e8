"""The protocol of engines, and how a graph is chosen for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from patchcut_kernels import cuda

from patchcut.bundle import BackboneSpec, Bundle, GraphSpec, Precision
from patchcut.errors import OptionError
from patchcut.features import Array
from patchcut.settings import Settings


@dataclass(frozen=True)
class EngineFacts:
    """What really runs.

    Attributes:
        name: as in the entry point.
        provider: the engine's provider that executes, such as "CPUExecutionProvider".
        device: "cpu", "cuda", or what else the settings name.
        graph: the graph of the bundle that was chosen.
        precision: what it computes in, such as "bf16"; an engine may compute an fp32 graph in fewer bits.
        weights: precision that its weights are stored in; a graph in fp32 may stand on weights in int8.
        threads: CPU threads that it may use.
        max_batch: the largest number of frames in one run.
        beside: whether frames of a batch run beside each other, each begun and waited for by itself: such an
            engine is a `BesideEngine`.
    """

    name: str
    provider: str
    device: str
    graph: GraphSpec
    precision: Precision
    weights: str
    threads: int
    max_batch: int
    beside: bool = False


class Engine(Protocol):
    """A backbone ready to run."""

    @property
    def facts(self) -> EngineFacts: ...

    def images(self, batch: int) -> Array:
        """[batch, 3, Sh, Sw] float32 to be filled before `run`: the engine's own memory, where it wants it.

        The same memory for the same batch, until another batch is asked for.
        """
        ...

    def run(self, batch: int) -> Mapping[str, Array]:
        """Feature set → [batch, rows, d] float32 of `images(batch)`, in the engine's own memory.

        The next run overwrites them. A set has a row a patch, or one for the image (`FeatureSetSpec.rows`).
        Features of an image do not depend on the others of its batch, but for how sums are rounded.
        Every set of the backbone that it was opened with is there, in the order of that backbone.

        Raises:
            EngineError: the run failed.
        """
        ...


class BesideEngine(Engine, Protocol):
    """One that runs the frames of a batch beside each other: `run` is to start each and to wait for each."""

    def start(self, frame: int) -> None:
        """Begins the run of one frame of the batch that `images` was last asked for, and does not wait.

        Raises:
            EngineError: it cannot begin.
        """
        ...

    def wait(self, frame: int) -> Mapping[str, Array]:
        """Feature set → [1, rows, d] float32 of a frame that was started, as soon as its own run has ended.

        Raises:
            EngineError: the run failed.
        """
        ...


class CapturableEngine(Engine, Protocol):
    """An engine on a GPU whose work can be a part of a graph of CUDA; `Extractor` makes these graphs.

    `run` gives all of its work to the stream that `images` names, and makes no graph by itself.
    """

    @property
    def capturable(self) -> bool:
        """Whether `capture` can be tried; an engine without this attribute cannot be captured."""
        ...

    def capture(self, work: Callable[[], None]) -> cuda.Launchable:
        """What `work` gives to the engine's stream, of which `run` is a part, as one graph of CUDA.

        Everything in it must have been done once before.

        Raises:
            EngineError, RuntimeError: what is done in it cannot be captured.
        """
        ...


# Opens a backbone of an open bundle; heeds the device, precision, size and threads of the settings.
EngineFactory = Callable[[Bundle, BackboneSpec, Settings], Engine]


def choose_graph(backbone: BackboneSpec, settings: Settings, preferred: Sequence[Precision]) -> GraphSpec:
    """The graph of the size asked for, in the precision asked for or else the first of `preferred` there is.

    Raises:
        OptionError: the backbone has no such size or precision; lists those it has.
    Examples:
        >>> settings = patchcut.Settings(size=448)
        >>> patchcut.engines.choose_graph(bundle.spec.backbone, settings, ("fp32", "int8")).precision
        'fp32'
    """
    graphs, size = backbone.graphs, settings.size
    size_hw = graphs[0].size_hw if size is None else (size, size)
    known = size is None or type(size) is int  # True is no size, and an array equals nothing by itself
    of_size = {graph.precision: graph for graph in graphs if known and graph.size_hw == size_hw}
    if not of_size:
        sizes = ", ".join(
            str(h) if h == w else f"{h}x{w}" for h, w in dict.fromkeys(g.size_hw for g in graphs)
        )
        raise OptionError("size", f"must be one of the bundle's sizes ({sizes}), got {size!r}")
    if settings.precision == "auto":
        return next(of_size[precision] for precision in preferred if precision in of_size)
    if settings.precision not in of_size:
        held = ", ".join(of_size)
        raise OptionError("precision", f"the bundle has {held} at this size, got {settings.precision!r}")
    return of_size[settings.precision]
