"""Settings of ops that are no numbers, or larger than the native ops take."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import patchcut_kernels as pk
import pytest

NODES = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
GRAPH = pk.affinity(NODES)
FRAME, MAP = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.float32)

FLOATS: dict[tuple[str, str], Callable[[Any], object]] = {
    ("affinity", "threshold"): lambda value: pk.affinity(NODES, threshold=value),
    ("affinity", "alpha"): lambda value: pk.affinity(NODES, mode="cc", alpha=value),
    ("ncut", "threshold"): lambda value: pk.ncut(NODES, 1, threshold=value),
    ("ncut", "floor"): lambda value: pk.ncut(NODES, 1, floor=value),
    ("ncut", "offset"): lambda value: pk.ncut(NODES, 1, threshold=None, offset=value),
    ("ncut", "tolerance"): lambda value: pk.ncut(NODES, 1, tolerance=value),
    ("gnn_fit", "tolerance"): lambda value: pk.gnn_fit(NODES, GRAPH, 2, tolerance=value),
    ("gnn_fit", "learning_rate"): lambda value: pk.gnn_fit(NODES, GRAPH, 2, learning_rate=value),
    ("gnn_fit", "dropout"): lambda value: pk.gnn_fit(NODES, GRAPH, 2, dropout=value),
    ("propagate", "temperature"): lambda value: pk.propagate(
        NODES, NODES[None], NODES[None], (2, 3), temperature=value
    ),
    ("assign", "temperature"): lambda value: pk.assign(NODES, NODES, temperature=value),
    ("guided_refine", "eps"): lambda value: pk.guided_refine(FRAME, MAP, 2, value),
    ("bilateral_solver", "sigma_luma"): lambda value: pk.bilateral_solver(FRAME, MAP, MAP, sigma_luma=value),
    ("bilateral_solver", "smoothness"): lambda value: pk.bilateral_solver(FRAME, MAP, MAP, smoothness=value),
    ("preprocess", "mean[1]"): lambda value: pk.preprocess(FRAME, 8, (0, value, 0), (1, 1, 1)),
    ("preprocess", "std[0]"): lambda value: pk.preprocess(FRAME, 8, (0, 0, 0), (value, 1, 1)),
}
INTEGERS: dict[tuple[str, str], Callable[[Any], object]] = {
    ("ncut", "iterations"): lambda value: pk.ncut(NODES, 1, iterations=value),
    ("gnn_fit", "steps"): lambda value: pk.gnn_fit(NODES, GRAPH, 2, steps=value),
    ("propagate", "topk"): lambda value: pk.propagate(NODES, NODES[None], NODES[None], (2, 3), topk=value),
    ("propagate", "radius"): lambda value: pk.propagate(
        NODES, NODES[None], NODES[None], (2, 3), radius=value
    ),
    ("kmeans", "iterations"): lambda value: pk.kmeans(NODES, 2, iterations=value),
    ("bilateral_solver", "iterations"): lambda value: pk.bilateral_solver(FRAME, MAP, MAP, iterations=value),
    ("rle_encode", "count"): lambda value: pk.rle_encode(MAP.astype(np.int32), value),
}


@pytest.mark.parametrize("setting", FLOATS, ids=".".join)
@pytest.mark.parametrize("value", ["0.5", True, [0.5], np.array([0.5, 0.5])], ids=repr)
def test_what_is_no_number_is_an_error(setting: tuple[str, str], value: object) -> None:
    with pytest.raises(TypeError) as raised:
        FLOATS[setting](value)
    op, name = setting
    assert str(raised.value) == f"[{op}] {name} must be a number, got {type(value).__name__}"


@pytest.mark.parametrize("setting", FLOATS, ids=".".join)
def test_a_number_of_any_kind_is_taken(setting: tuple[str, str]) -> None:
    call = FLOATS[setting]
    value = 1.0 if setting[0] == "bilateral_solver" else 0.5
    for same in (value, np.float32(value), np.float64(value)):
        call(same)


@pytest.mark.parametrize("setting", FLOATS, ids=".".join)
def test_a_number_that_no_float_holds_is_an_error(setting: tuple[str, str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in (float("nan"), -1e60, 10**400):
            with pytest.raises(ValueError, match=rf"^\[{setting[0]}\] "):
                FLOATS[setting](value)


@pytest.mark.parametrize("setting", INTEGERS, ids=".".join)
def test_an_integer_of_more_than_64_bits_is_an_error(setting: tuple[str, str]) -> None:
    op, name = setting
    with pytest.raises(ValueError, match=rf"^\[{op}\] {name} must be \d+ to \d+, got 1180591620717411303424"):
        INTEGERS[setting](2**70)
