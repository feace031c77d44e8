"""Serves a bundle over HTTP and WebSocket: `patchcut serve`, or `Service` in a program of your own."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from patchcut import telemetry

if TYPE_CHECKING:
    from patchcut_server.model import Model
    from patchcut_server.options import ServeOptions
    from patchcut_server.service import Service

telemetry.switch_off()  # before anything here imports an engine

__all__ = ["Model", "ServeOptions", "Service"]

_HOME = {"Model": "model", "ServeOptions": "options", "Service": "service"}


def __getattr__(name: str) -> Any:
    """A public name, imported on first use: the command's help needs no FastAPI."""
    if name not in _HOME:
        raise AttributeError(f"module 'patchcut_server' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"patchcut_server.{_HOME[name]}"), name)
    return value
