"""An op's defaults and choices stand in patchcut.h; Python's and the reference's are held to them."""

from __future__ import annotations

import inspect

import patchcut_kernels as pk
import pytest
from patchcut_kernels import _C, reference

from .c_calls import HEADER

OPS = sorted(name.removeprefix("PATCHCUT_").removesuffix("_DEFAULTS").lower() for name in HEADER.defaults)
# Fields that Python has no keyword for: sizes of weights that it takes or draws.
WIDTHS = {"graph_width", "hidden_width"}
# Enums whose numbers Python does not pass on.
NOT_BOUND = {"patchcut_status", "patchcut_dtype"}


def defaults(function: object) -> dict[str, object]:
    """Of the arguments that have one."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def header_defaults(op: str) -> dict[str, float]:
    """By field; what is an enum there is its number."""
    params = "ncut" if op == "bipartition" else op
    fields = [name for name, _ in HEADER.structs[f"patchcut_{params}_params"]._fields_]
    return dict(zip(fields, HEADER.defaults[f"PATCHCUT_{op.upper()}_DEFAULTS"], strict=True))


@pytest.mark.parametrize("op", OPS)
def test_python_has_those_of_the_header(op):
    function = getattr(pk, op)
    ours = defaults(function)
    if "binary" in ours:
        ours["graph"] = "graph_binary" if ours["binary"] else "graph_thresholded"
    numbers = {n: HEADER.constants.get(f"PATCHCUT_{v}".upper(), v) for n, v in ours.items()}
    required = inspect.signature(function).parameters.keys() - ours.keys()
    expected = {n: v for n, v in header_defaults(op).items() if n not in required | WIDTHS}
    assert expected
    assert {name: numbers.get(name) for name in expected} == expected


@pytest.mark.parametrize("op", OPS)
def test_the_reference_has_those_of_python(op):
    ours, theirs = defaults(getattr(pk, op)), defaults(getattr(reference, op))
    assert theirs == {name: ours.get(name) for name in theirs}


def test_drawn_weights_have_the_widths_of_the_header():
    params = header_defaults("gnn_fit")
    hidden = reference.draw_fit_weights(5, 2, 0).hidden.weight
    assert hidden.shape == (params["graph_width"], params["hidden_width"])


@pytest.mark.parametrize("name", sorted(HEADER.enums.keys() - NOT_BOUND))
def test_python_has_every_choice_of_the_header(name):
    bound = getattr(_C, name.removeprefix("patchcut_").title().replace("_", ""))
    constants = {value: constant for constant, value in HEADER.enums[name].items()}
    assert sorted(member.value for member in bound) == sorted(constants)
    assert all(member.name.upper() in constants[member.value] for member in bound)
