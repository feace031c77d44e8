"""Where the backbone looks at photos, by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from patchcut.checks import check_choice

from patchcut_export.training.extraction import Extraction, LocalExtraction
from patchcut_export.training.ray_extraction import RayExtraction


@contextmanager
def open_extraction(engine: str, dtype: str = "float16") -> Iterator[Extraction]:
    """Where the backbone looks at photos, by name, until the context is left.

    Args:
        engine: "local" for this machine, or "ray" for a Ray cluster: RAY_ADDRESS's, or one that runs here.
        dtype: of the features that other machines give, "float16" or "float32".
    Raises:
        OptionError: there is no such engine.
        EngineError: Ray is not installed, or there is no cluster.
    Examples:
        >>> with open_extraction("local") as extraction:
        ...     type(extraction).__name__
        'LocalExtraction'
    """
    check_choice("engine", engine, ("local", "ray"))
    if engine == "local":
        yield LocalExtraction()
        return
    with RayExtraction(dtype=dtype) as extraction:
        yield extraction
