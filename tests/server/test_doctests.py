"""The examples in the server's docstrings run."""

from __future__ import annotations

import doctest
import zlib

import patchcut
import pytest

pytest.importorskip("fastapi", reason="needs patchcut[server]")

from patchcut_server import ServeOptions
from tests.doctests import find_examples, module_of, run_example

EXAMPLES = find_examples("patchcut_server")


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name)
def test_example(test: doctest.DocTest) -> None:
    names = {"patchcut": patchcut, "zlib": zlib, "Settings": patchcut.Settings, "ServeOptions": ServeOptions}
    if "seg" in test.docstring:
        names["seg"] = patchcut.load(device="cpu")
    run_example(test, {**vars(module_of(test.name)), **names})
