"""Where the passes of k-means run, by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from patchcut.checks import check_choice

from patchcut_export.clustering.steps import LocalSteps, Steps

ENGINES = ("local", "ray")


@contextmanager
def open_steps(engine: str, device: str = "cpu") -> Iterator[Steps]:
    """The engine of a name, until the context is left.

    Args:
        engine: "local" for this machine, or "ray" for a Ray cluster: RAY_ADDRESS's, or one that runs here.
        device: "cpu" or "cuda"; "auto" is "cpu".
    Raises:
        OptionError: there is no such engine.
        EngineError: Ray is not installed, or there is no cluster.
    Examples:
        >>> with open_steps("local") as steps:
        ...     type(steps).__name__
        'LocalSteps'
    """
    check_choice("engine", engine, ENGINES)
    where = "cuda" if device == "cuda" else "cpu"
    if engine == "local":
        yield LocalSteps(where)
        return
    from patchcut_export.clustering.ray_steps import RaySteps

    with RaySteps(device=where) as steps:
        yield steps
