"""The examples in docstrings: finding and running them."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def find_examples(package: str) -> list[doctest.DocTest]:
    """One test for each docstring of a package that has an example."""
    folders = map(Path, importlib.import_module(package).__path__)  # an editable install has two
    files = sorted({file.relative_to(one).with_suffix("") for one in folders for file in one.rglob("*.py")})
    names = [".".join((package, *file.parts)).removesuffix(".__init__") for file in files]
    modules = [importlib.import_module(name) for name in names if not name.endswith(".__main__")]
    found = [test for module in modules for test in doctest.DocTestFinder().find(module)]
    return [test for test in found if test.examples]


def run_example(test: doctest.DocTest, names: Mapping[str, object]) -> None:
    """Runs an example, in which `names` are known; those marked `+SKIP` need a GPU."""
    if all(doctest.SKIP in one.options for one in test.examples):
        pytest.skip("needs an engine on a GPU")
    test.globs = dict(names)
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=_FLAGS).run(test, out=report.append)
    assert result.attempted
    assert not result.failed, "".join(report)


def module_of(name: str) -> ModuleType:
    """The module whose function or class has the example of this name."""
    while True:
        try:
            return importlib.import_module(name)
        except ImportError:
            name = name.rpartition(".")[0]


def full_name(obj: Any) -> str:
    """The name that the test of an object's docstring has."""
    return f"{obj.__module__}.{obj.__qualname__}"
