"""Real-time segmentation without labels: a frame goes in, masks and boxes come out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patchcut import bundle, engines, heads, output, sources, stages
    from patchcut.bundle import Bundle, open_bundle
    from patchcut.description import Description
    from patchcut.errors import (
        BundleError,
        EngineError,
        FrameError,
        OptionError,
        OutputError,
        PatchcutError,
        SourceError,
    )
    from patchcut.features import Features
    from patchcut.frames import Frame
    from patchcut.result import Result
    from patchcut.segmenter import Segmenter, load
    from patchcut.settings import Settings
    from patchcut.sources import open_source
    from patchcut.video import StreamOptions
    from patchcut.video.multi_stream import MultiStream

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "BundleError",
    "Description",
    "EngineError",
    "Features",
    "Frame",
    "FrameError",
    "MultiStream",
    "OptionError",
    "OutputError",
    "PatchcutError",
    "Result",
    "Segmenter",
    "Settings",
    "SourceError",
    "StreamOptions",
    "__version__",
    "bundle",
    "engines",
    "heads",
    "load",
    "open_bundle",
    "open_source",
    "output",
    "sources",
    "stages",
]

_HOME = {
    "bundle": ("Bundle", "open_bundle"),
    "errors": (
        "BundleError",
        "EngineError",
        "FrameError",
        "OptionError",
        "OutputError",
        "PatchcutError",
        "SourceError",
    ),
    "features": ("Features",),
    "frames": ("Frame",),
    "result": ("Result",),
    "description": ("Description",),
    "segmenter": ("Segmenter", "load"),
    "settings": ("Settings",),
    "sources": ("open_source",),
    "video": ("StreamOptions",),
    "video.multi_stream": ("MultiStream",),
}
_MODULES = (
    *_HOME,
    "ahead",
    "batch",
    "benchmark",
    "cache_folder",
    "checks",
    "concepts",
    "doctor",
    "endings",
    "engines",
    "finishing",
    "heads",
    "installed",
    "machine",
    "opening",
    "output",
    "pixel_rule",
    "pixels",
    "pyav",
    "recipe",
    "stages",
    "telemetry",
    "texts",
)


def __getattr__(name: str) -> Any:
    """A public name, module or package, imported on first use so that `import patchcut` stays light."""
    if name in _MODULES:
        return import_module(f"patchcut.{name}")
    home = next((module for module, names in _HOME.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'patchcut' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"patchcut.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
