"""The examples in docstrings run, and every public function has one."""

from __future__ import annotations

import doctest
import inspect
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import patchcut_kernels as pk
import pytest

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
EXAMPLES = [
    test
    for name, module in sorted(sys.modules.items())  # importing the package has imported all of its modules
    if name.split(".")[0] == "patchcut_kernels"
    for test in doctest.DocTestFinder().find(module)
    if test.examples
]
PUBLIC = [
    getattr(module, name)
    for module in (pk, pk.cuda)
    for name in module.__all__
    if inspect.isroutine(getattr(module, name))
]
REFERENCE_OPS = [op for op in PUBLIC if op.__name__ in pk.reference.__all__]


@pytest.fixture(autouse=True)
def settings_are_restored() -> Iterator[None]:
    threads, isa = pk.get_threads(), pk.get_isa()
    yield
    pk.set_threads(threads)
    pk.set_isa(isa)


def examples_of(op: Any) -> list[doctest.DocTest]:
    return [test for test in EXAMPLES if test.name == f"{op.__module__}.{op.__name__}"]


def run(test: doctest.DocTest, package: object = pk) -> None:
    test.globs = {"np": np, "pk": package}
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append)
    assert result.attempted
    assert not result.failed, "".join(report)


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name)
def test_example(test):
    if "pk.cuda" in (test.docstring or "") and not pk.cuda.is_available():
        pytest.skip(pk.cuda.why_unavailable())
    run(test)


@pytest.mark.parametrize("op", REFERENCE_OPS, ids=lambda op: op.__name__)
def test_reference_has_the_example_of_its_op(op):
    """Its own where its arguments or results differ."""
    reference = getattr(pk.reference, op.__name__)
    if examples_of(reference):
        return
    (test,) = examples_of(op)
    run(test, SimpleNamespace(**{**vars(pk), op.__name__: reference}))


@pytest.mark.parametrize("op", PUBLIC, ids=lambda op: f"{op.__module__}.{op.__name__}")
def test_public_function_has_an_example(op):
    assert examples_of(op)
