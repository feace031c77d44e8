"""Engines: what executes the backbone. Each is one module and one entry point in `patchcut.engines`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Literal, Protocol, cast

import numpy as np
import numpy.typing as npt

from patchcut.bundle import Bundle, GraphSpec, Precision
from patchcut.errors import EngineError, OptionError

Device = Literal["auto", "cpu", "cuda"]

DEVICES: tuple[Device, ...] = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "int8", "fp16", "fp32")
ENTRY_POINTS = "patchcut.engines"
DEFAULT_ENGINE = "onnxruntime"


@dataclass(frozen=True)
class EngineOptions:
    """What a caller asks of an engine.

    Attributes:
        device: where to run; "auto" lets the engine choose.
        precision: of the graph; "auto" is the one that suits the device best.
        size: side of the square input in pixels; None is the bundle's default.
        threads: CPU threads; None is `patchcut_kernels.default_threads()`.
    """

    device: Device = "auto"
    precision: Literal["auto", "int8", "fp16", "fp32"] = "auto"
    size: int | None = None
    threads: int | None = None


class Engine(Protocol):
    """A backbone ready to run, for one frame at a time.

    Attributes:
        name: as in the entry point.
        provider: what of the engine really executes, such as "CPUExecutionProvider".
        device: "cpu" or "cuda".
        graph: the graph of the bundle that was chosen.
        weights: precision that its weights are stored in; a graph in fp32 may stand on weights in int8.
        threads: CPU threads it may use.
        image: [3, Sh, Sw] float32, the engine's own input; fill it, then call `run`.
    """

    @property
    def name(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def graph(self) -> GraphSpec: ...
    @property
    def weights(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def image(self) -> npt.NDArray[np.float32]: ...

    def run(self) -> npt.NDArray[np.float32]:
        """[n, d] float32, features of `image`; the engine's own memory, overwritten by the next call.

        Raises:
            EngineError: the run failed.
        """
        ...


EngineFactory = Callable[[Bundle, EngineOptions], Engine]


def engine_names() -> list[str]:
    """Names of the installed engines, sorted."""
    return sorted({point.name for point in entry_points(group=ENTRY_POINTS)})


def open_engine(bundle: Bundle, options: EngineOptions, name: str = "auto") -> Engine:
    """The engine called `name`, loaded with the bundle's backbone; "auto" is "onnxruntime".

    Raises:
        OptionError: no such engine, or an option with a value that the bundle or the engine does not offer.
        EngineError: the engine's package is missing, the device is not there, or the graph does not load.
    """
    check_choice("engine", name, ("auto", *engine_names()))
    check_choice("device", options.device, DEVICES)
    check_choice("precision", options.precision, PRECISIONS)
    check_threads(options.threads)
    wanted = DEFAULT_ENGINE if name == "auto" else name
    points = [point for point in entry_points(group=ENTRY_POINTS) if point.name == wanted]
    if not points:
        raise EngineError("engine", f"{wanted} is not registered", "reinstall patchcut: pip install patchcut")
    return cast("EngineFactory", points[0].load())(bundle, options)


def choose_graph(bundle: Bundle, options: EngineOptions, preferred: Sequence[Precision]) -> GraphSpec:
    """The graph of the size asked for, in the precision asked for or else the first of `preferred` there is.

    Raises:
        OptionError: the bundle has no such size or precision; lists those it has.
    """
    graphs = bundle.spec.backbone.graphs
    size_hw = graphs[0].size_hw if options.size is None else (options.size, options.size)
    of_size = {graph.precision: graph for graph in graphs if graph.size_hw == size_hw}
    if not of_size or isinstance(options.size, bool):
        sizes = ", ".join(
            str(h) if h == w else f"{h}x{w}" for h, w in dict.fromkeys(g.size_hw for g in graphs)
        )
        raise OptionError("size", f"must be one of the bundle's sizes ({sizes}), got {options.size!r}")
    if options.precision == "auto":
        return next(of_size[precision] for precision in preferred if precision in of_size)
    if options.precision not in of_size:
        held = ", ".join(of_size)
        raise OptionError("precision", f"the bundle has {held} at this size, got {options.precision!r}")
    return of_size[options.precision]


def check_choice(option: str, value: object, allowed: Sequence[str]) -> None:
    """Nothing, if `value` is one of `allowed`.

    Raises:
        OptionError: '[device] must be one of "auto", "cpu", "cuda", got "gpu"'.
    """
    if not isinstance(value, str) or value not in allowed:
        listed = ", ".join(f'"{choice}"' for choice in allowed)
        raise OptionError(option, f"must be one of {listed}, got {value!r}")


def check_threads(threads: object) -> None:
    """Nothing, if `threads` is None or a whole number from 1 to 256.

    Raises:
        OptionError: "[threads] must be a whole number from 1 to 256, got 0".
    """
    if threads is None:
        return
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= 256:
        raise OptionError("threads", f"must be a whole number from 1 to 256, got {threads!r}")
