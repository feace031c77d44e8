"""Engines: what executes the backbone. Each is one module and one entry point in `patchcut.engines`."""

from patchcut.engines.base import (
    DEFAULT_ENGINE,
    ENTRY_POINTS,
    PRECISIONS,
    Device,
    Engine,
    EngineFactory,
    EngineOptions,
    check_choice,
    check_threads,
    choose_graph,
    engine_names,
    open_engine,
)

__all__ = [
    "DEFAULT_ENGINE",
    "ENTRY_POINTS",
    "PRECISIONS",
    "Device",
    "Engine",
    "EngineFactory",
    "EngineOptions",
    "check_choice",
    "check_threads",
    "choose_graph",
    "engine_names",
    "open_engine",
]
