"""Real-time segmentation without labels: a frame goes in, masks and boxes come out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patchcut.bundle import Bundle, open_bundle
    from patchcut.errors import (
        BundleError,
        EngineError,
        FrameError,
        OptionError,
        OutputError,
        PatchcutError,
        SourceError,
    )
    from patchcut.frames import Frame
    from patchcut.result import Result
    from patchcut.segmenter import Description, Segmenter, load
    from patchcut.sources import open_source

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "BundleError",
    "Description",
    "EngineError",
    "Frame",
    "FrameError",
    "OptionError",
    "OutputError",
    "PatchcutError",
    "Result",
    "Segmenter",
    "SourceError",
    "__version__",
    "load",
    "open_bundle",
    "open_source",
]

_HOME = {
    "Bundle": "bundle",
    "open_bundle": "bundle",
    "BundleError": "errors",
    "EngineError": "errors",
    "FrameError": "errors",
    "OptionError": "errors",
    "OutputError": "errors",
    "PatchcutError": "errors",
    "SourceError": "errors",
    "Frame": "frames",
    "Result": "result",
    "Description": "segmenter",
    "Segmenter": "segmenter",
    "load": "segmenter",
    "open_source": "sources",
}


def __getattr__(name: str) -> Any:
    """A public name, imported on first use so that `import patchcut` stays light."""
    if name not in _HOME:
        raise AttributeError(f"module 'patchcut' has no attribute {name!r}")
    value = getattr(import_module(f"patchcut.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
