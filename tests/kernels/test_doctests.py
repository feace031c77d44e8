"""The examples in docstrings run, and every public function has one."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import patchcut_kernels as pk
import pytest

from tests.doctests import find_examples, full_name, run_example

EXAMPLES = find_examples("patchcut_kernels")
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
    return [test for test in EXAMPLES if test.name == full_name(op)]


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name)
def test_example(test):
    if "pk.cuda" in (test.docstring or "") and not pk.cuda.is_available():
        pytest.skip(pk.cuda.why_unavailable())
    run_example(test, {"np": np, "pk": pk})


@pytest.mark.parametrize("op", REFERENCE_OPS, ids=lambda op: op.__name__)
def test_reference_has_the_example_of_its_op(op):
    """Its own where its arguments or results differ."""
    reference = getattr(pk.reference, op.__name__)
    if examples_of(reference):
        return
    (test,) = examples_of(op)
    package = SimpleNamespace(**{**vars(pk), op.__name__: reference})
    run_example(test, {"np": np, "pk": package})


@pytest.mark.parametrize("op", PUBLIC, ids=full_name)
def test_public_function_has_an_example(op):
    assert examples_of(op)
