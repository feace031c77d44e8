"""An extractor whose engine is opened for the first image: where all features are kept, there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from patchcut.bundle import BackboneSpec, Bundle, GraphSpec
from patchcut.engines import Engine, choose_engine, choose_graph, open_engine
from patchcut.engines.base import EngineFacts
from patchcut.engines.choice import DEFAULT_ENGINE
from patchcut.errors import EngineError
from patchcut.features import Array
from patchcut.settings import Settings
from patchcut.stages import Extractor


def open_late(bundle: Bundle, settings: Settings, needs: Sequence[str]) -> Extractor:
    """The extractor of a bundle's first backbone, which opens its engine for the first image.

    Where only the engine can tell which graph it runs, it is opened at once.

    Args:
        bundle: an open bundle, which stays open until the first image was looked at.
        settings: as in `Extractor.open`.
        needs: the feature sets that are wanted.
    Raises:
        OptionError, EngineError, BundleError: as `Extractor.open` does; of the engine, maybe only then.
    """
    every = bundle.spec.backbone
    backbone = every.model_copy(update={"features": {name: every.features[name] for name in needs}})
    choice = choose_engine(backbone, settings)
    if choice.engine != DEFAULT_ENGINE or choice.precision == "auto":
        return Extractor.open(bundle, settings, needs=needs)
    graph = choose_graph(backbone, replace(settings, precision=choice.precision), ())
    late = _LateEngine(graph, lambda: open_engine(bundle, backbone, settings))
    return _LateExtractor(backbone, late, choice.why, graph)


class _LateEngine:
    """Opens an engine as soon as something is asked of it."""

    def __init__(self, graph: GraphSpec, opening: Callable[[], Engine]) -> None:
        self._graph, self._opening = graph, opening

    @cached_property
    def _opened(self) -> Engine:
        engine = self._opening()
        if engine.facts.graph != self._graph:
            what = f"runs {engine.facts.graph.file}, not {self._graph.file}"
            raise EngineError("engine", what, "say --device and --precision")
        return engine

    @property
    def facts(self) -> EngineFacts:
        return self._opened.facts

    def images(self, batch: int) -> Array:
        return self._opened.images(batch)

    def run(self, batch: int) -> Mapping[str, Array]:
        return self._opened.run(batch)


class _LateExtractor(Extractor):
    """Knows its graph before there is an engine."""

    def __init__(self, backbone: BackboneSpec, engine: _LateEngine, why: str, graph: GraphSpec) -> None:
        super().__init__(backbone, engine, why)
        self._graph = graph

    @property
    def graph(self) -> GraphSpec:
        """The graph that runs: its size, grid and precision."""
        return self._graph
