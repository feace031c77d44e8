"""The examples in docstrings run, and every public function and method has one."""

from __future__ import annotations

import doctest
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import patchcut
import patchcut_kernels as kernels
import pytest
import typer
from patchcut import (
    batch,
    benchmark,
    bundle,
    checks,
    concepts,
    doctor,
    engines,
    features,
    frames,
    heads,
    settings,
    sources,
    stages,
)
from patchcut.cli import options
from patchcut.cli.demo import SAMPLES
from patchcut.output import cutouts, folder, label_maps, overlay
from patchcut.sources import photos

from tests.doctests import find_examples, full_name, run_example

EXAMPLES = find_examples("patchcut")


def public_in(module: ModuleType) -> Iterator[Any]:
    """Its public functions, and the public methods that its public classes are the first to have."""
    here = {name for name, it in vars(module).items() if getattr(it, "__module__", None) == module.__name__}
    for name in getattr(module, "__all__", [name for name in sorted(here) if not name.startswith("_")]):
        found = getattr(module, name)
        if inspect.isfunction(found):
            yield found
        elif inspect.isclass(found) and not getattr(found, "_is_protocol", False):
            yield from methods_of(found)


def methods_of(class_: type) -> Iterator[Any]:
    inherited = {name for base in class_.__mro__[1:] for name in vars(base)}
    for name, method in vars(class_).items():
        if (name == "__call__" or not name.startswith("_")) and name not in inherited:
            function = getattr(method, "__func__", method)  # of a class method
            if inspect.isfunction(function):
                yield function


PUBLIC = {
    full_name(function)
    for module in (
        patchcut,
        batch,
        benchmark,
        bundle,
        checks,
        concepts,
        doctor,
        engines,
        features,
        frames,
        heads,
        settings,
        sources,
        stages,
    )
    for function in public_in(module)
} | {
    full_name(function)
    for module in (options, cutouts, folder, label_maps, overlay, photos)
    for function in public_in(module)
}


@cache
def made_names() -> dict[str, object]:
    """What the examples speak of: a photo, the embedded bundle, and what comes of the one by the other."""
    frame = photos.read_photo(SAMPLES / "astronaut.jpg")
    opened = patchcut.open_bundle()
    seg = patchcut.load(device="cpu")
    extractor = seg.extractor
    made = extractor([patchcut.Frame(frame)])
    canvas = stages.Canvas.of((512, 512), extractor.backbone, extractor.graph)
    assignment = seg.head(made)[0]
    return {
        "bundle": opened,
        "seg": seg,
        "frame": frame,
        "result": seg(frame),
        "extractor": extractor,
        "features": made,
        "canvas": canvas,
        "patches": stages.Parts(heads.KMeansHead(k=3), None)(made, assignment),
        "regions": seg.masks(patchcut.Frame(frame), assignment, canvas),
        "report": benchmark.benchmark(seg, [frame], benchmark.Plan(duration_s=0.1, warmup_s=0)),
    }


@pytest.fixture(autouse=True)
def threads_are_restored() -> Iterator[None]:
    threads = kernels.get_threads()
    yield
    kernels.set_threads(threads)


@pytest.fixture(autouse=True)
def supervision_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("supervision") is None:
        monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=SimpleNamespace))


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name)
def test_example(test: doctest.DocTest, tmp_path: Path) -> None:
    modules = {"np": np, "patchcut": patchcut, "inspect": inspect, "options": options, "typer": typer}
    run_example(test, {**modules, **made_names(), "OutputFolder": folder.OutputFolder, "folder": tmp_path})


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_function_has_an_example(name: str) -> None:
    assert name in {test.name for test in EXAMPLES}
