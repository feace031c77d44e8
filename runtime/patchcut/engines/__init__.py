"""Engines: what executes the backbone. Each is one module and one entry point in `patchcut.engines`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import cast

from patchcut.bundle import BackboneSpec, Bundle
from patchcut.checks import check_choice
from patchcut.engines.base import Engine, EngineFactory, EngineFacts, choose_graph
from patchcut.errors import EngineError, install_hint
from patchcut.settings import Settings

__all__ = ["Engine", "EngineFactory", "EngineFacts", "choose_graph", "engine_names", "open_engine"]

ENTRY_POINTS = "patchcut.engines"
DEFAULT_ENGINE = "onnxruntime"


def engine_names() -> list[str]:
    """Names of the installed engines, sorted.

    Examples:
        >>> "onnxruntime" in patchcut.engines.engine_names()
        True
    """
    return sorted({point.name for point in entry_points(group=ENTRY_POINTS)})


def open_engine(bundle: Bundle, backbone: BackboneSpec, settings: Settings) -> Engine:
    """The engine that the settings name, loaded with a backbone of the bundle; "auto" is "onnxruntime".

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
    check_choice("engine", settings.engine, ("auto", *engine_names()))
    wanted = DEFAULT_ENGINE if settings.engine == "auto" else settings.engine
    points = [point for point in entry_points(group=ENTRY_POINTS) if point.name == wanted]
    if not points:
        raise EngineError("engine", f"{wanted} is not registered", f"install it again: {install_hint()}")
    return cast("EngineFactory", points[0].load())(bundle, backbone, settings)
