"""Engines: what executes the backbone. Each is one module and one entry point in `patchcut.engines`."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from patchcut.bundle import BackboneSpec, Bundle
from patchcut.checks import check_choice
from patchcut.engines.base import (
    BesideEngine,
    CapturableEngine,
    Engine,
    EngineFactory,
    EngineFacts,
    choose_graph,
)
from patchcut.engines.choice import Choice, choose
from patchcut.engines.cpu_kind import cpu_kind
from patchcut.errors import EngineError, install_hint
from patchcut.settings import Settings

__all__ = [
    "BesideEngine",
    "CapturableEngine",
    "Choice",
    "Engine",
    "EngineFactory",
    "EngineFacts",
    "choose_engine",
    "choose_graph",
    "cpu_kind",
    "engine_names",
    "open_engine",
]

ENTRY_POINTS = "patchcut.engines"


def engine_names() -> list[str]:
    """Names of the installed engines, sorted.

    Examples:
        >>> "onnxruntime" in patchcut.engines.engine_names()
        True
    """
    return sorted(_registered())


@cache  # each look goes through all packages that are installed
def _registered() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def choose_engine(backbone: BackboneSpec, settings: Settings) -> Choice:
    """The engine and the precision that the settings stand for on this machine, and why.

    Raises:
        OptionError: there is no such engine, or the backbone has no such size.
    Examples:
        >>> patchcut.engines.choose_engine(bundle.spec.backbone, patchcut.Settings(device="cpu")).why
        '...'
    """
    check_choice("engine", settings.engine, ("auto", *engine_names()))
    return choose(backbone, settings, engine_names())


def open_engine(bundle: Bundle, backbone: BackboneSpec, settings: Settings) -> Engine:
    """The engine that the settings name, loaded with a backbone of the bundle; `choose_engine` is "auto".

    Args:
        backbone: one of the bundle's, with those of its feature sets that are wanted.
    Raises:
        OptionError: a setting has a value that the bundle or the engine does not offer.
        EngineError: the engine's package is missing, the device is not there, or the graph does not load.
    Examples:
        >>> settings = patchcut.Settings(device="cpu")
        >>> patchcut.engines.open_engine(bundle, bundle.spec.backbone, settings).images(1).shape
        (1, 3, 224, 224)
    """
    chosen = choose_engine(backbone, settings)
    point = _registered().get(chosen.engine)
    if point is None:
        raise EngineError(
            "engine", f"{chosen.engine} is not registered", f"install it again: {install_hint()}"
        )
    try:
        factory = cast("EngineFactory", point.load())
    except ImportError as error:
        what = f"{chosen.engine} cannot be imported: {error}"
        raise EngineError("engine", what, f"install it again: {install_hint()}") from error
    return factory(bundle, backbone, replace(settings, engine=chosen.engine, precision=chosen.precision))
