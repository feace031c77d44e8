"""The examples in the server's docstrings run."""

from __future__ import annotations

import doctest
import importlib
import zlib

import patchcut
import pytest

pytest.importorskip("fastapi", reason="needs patchcut[server]")

from patchcut_server import ServeOptions
from tests.doctests import find_examples, run_example

EXAMPLES = find_examples("patchcut_server")


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name)
def test_example(test: doctest.DocTest) -> None:
    names = {"patchcut": patchcut, "zlib": zlib, "Settings": patchcut.Settings, "ServeOptions": ServeOptions}
    if "seg" in test.docstring:
        names["seg"] = patchcut.load(device="cpu")
    run_example(test, {**vars(importlib.import_module(_module_of(test.name))), **names})


def _module_of(name: str) -> str:
    """The module whose function or class has an example."""
    while True:
        try:
            importlib.import_module(name)
        except ImportError:
            name = name.rpartition(".")[0]
        else:
            return name
