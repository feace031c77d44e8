"""The C face under arguments wrong in all ways but one: sizes are those of the arrays, or smaller."""

from __future__ import annotations

import ctypes
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patchcut_kernels import _C

from tests.kernels.c_calls import CALLS, HEADER, Call, struct
from tests.kernels.c_header import Parameter, open_library

LIBRARY = Path(_C.__file__).with_name("libpatchcut.so")
OK, INVALID_ARGUMENT = 0, HEADER.constants["PATCHCUT_INVALID_ARGUMENT"]
# What a build without CUDA, and one that has no such device, say of a context.
UNAVAILABLE = HEADER.constants["PATCHCUT_UNAVAILABLE"]
CALLS_OF_EACH = 200
FENCE, FENCE_BYTE = 64, 0xA5
SPECIAL_FLOATS = [
    0.0,
    -0.0,
    1e-45,
    -1e-39,
    1e-30,
    1e-23,
    1.0,
    1e19,
    1e30,
    -1e38,
    3.4e38,
    np.nan,
    np.inf,
    -np.inf,
]
SPECIAL_INTEGERS = [-(2**31), -1, 0, 1, 2, 3, 5, 2**31 - 1]
NOT_SIZES = [-(2**63), -(2**31), -1, 2**62, 2**63 - 1]
# Settings of params that say nothing of sizes.
ROUNDS = {"iterations", "restarts", "bistochastic_iterations", "max_clusters", "radius", "subsample"}


class Fuzzer:
    """One call of an op, changed at random; its outputs lie between fences."""

    def __init__(self, op: str, call: Call, rng: random.Random) -> None:
        self.op, self.call, self.rng = op, call, rng
        self.parameters = HEADER.functions[f"patchcut_{op}"].parameters
        self.kept: list[Any] = []  # memory that addresses point to
        self.fences: list[np.ndarray] = []

    def arguments(self) -> list[Any]:
        wrong = {self.rng.randrange(len(self.parameters)) for _ in range(self.rng.randrange(4))}
        return [self.argument(each, i in wrong) for i, each in enumerate(self.parameters)]

    def argument(self, parameter: Parameter, wrong: bool) -> Any:
        value = self.call.arguments.get(parameter.name)
        if parameter.name == "context":
            return self.context(wrong)
        if isinstance(value, np.ndarray):
            return self.array(value, wrong)
        if isinstance(value, ctypes.Structure):
            return self.struct(value, wrong)
        if isinstance(value, int) and wrong:
            return self.number(parameter, value)
        if isinstance(value, float) and wrong:
            return self.rng.choice(SPECIAL_FLOATS)
        return value

    def context(self, wrong: bool) -> Any:
        if not wrong:
            return self.rng.choice([None, ctypes.byref(self.keep(struct("context")))])
        return ctypes.byref(self.keep(struct("context", device_type=self.rng.choice([-1, 2, 2**31 - 1]))))

    def number(self, parameter: Parameter, value: int) -> int:
        """One that is refused, or a size that is no larger than what is there."""
        if parameter.name.endswith("dtype"):
            return self.rng.choice([-1, 0, 0, 2, 7])
        if parameter.type == "int32_t":
            return self.rng.choice([-1, 0, 1, 4, 8, 2**31 - 1])
        return self.rng.choice([*NOT_SIZES, self.rng.randint(0, value), 0])

    def struct(self, value: ctypes.Structure, wrong: bool) -> Any:
        if wrong and self.rng.random() < 0.1:
            return None
        changed = self.keep(type(value).from_buffer_copy(value))
        if not wrong or type(value) is HEADER.structs["patchcut_gcn_weights"]:
            return ctypes.byref(changed)
        name, kind = self.rng.choice(changed._fields_)
        before = getattr(changed, name)
        if kind is ctypes.c_float:
            setattr(changed, name, self.rng.choice(SPECIAL_FLOATS))
        elif kind is ctypes.c_void_p:
            setattr(changed, name, self.rng.choice([None, before]))
        elif isinstance(before, int):
            small = self.rng.randint(0, 300 if name in ROUNDS else before)
            setattr(
                changed, name, self.rng.choice([-1, 0, small, 2**31 - 1 if kind is ctypes.c_int32 else 2**62])
            )
        else:
            setattr(
                changed, name, type(before)(*(self.rng.choice(SPECIAL_FLOATS) for _ in range(len(before))))
            )
        return ctypes.byref(changed)

    def array(self, value: np.ndarray, wrong: bool) -> Any:
        """The address of a copy, between fences; null, misaligned or of spoiled values where it is wrong."""
        memory = self.keep(np.full(value.nbytes + 2 * FENCE + 64, FENCE_BYTE, np.uint8))
        first = FENCE + -memory.ctypes.data % 64
        inside = memory[first : first + value.nbytes]
        inside[:] = value.view(np.uint8).ravel()
        self.fences += [memory[:first], memory[first + value.nbytes :]]
        kind = self.rng.randrange(5) if wrong else 0
        if kind in (1, 2):
            self.spoil(inside.view(value.dtype))
        if kind == 3:
            return None
        misaligned = kind == 4 and value.itemsize > 1
        return ctypes.c_void_p(memory.ctypes.data + first + (self.rng.choice([-1, 1]) if misaligned else 0))

    def spoil(self, values: np.ndarray) -> None:
        special: list[Any] = SPECIAL_INTEGERS
        if values.dtype.kind == "f":
            special = SPECIAL_FLOATS
        elif values.dtype.kind == "u":
            special = [0, 1, 2, 255]
        elif values.size == 4 and self.op == "preprocess":
            special = [0, 1, -(2**62)]  # strides within the frames, or beyond all memory
        for _ in range(self.rng.choice([1, 3, values.size])):
            values[self.rng.randrange(values.size)] = self.rng.choice(special)

    def keep(self, value: Any) -> Any:
        self.kept.append(value)
        return value


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    return open_library(LIBRARY, HEADER)


@pytest.mark.parametrize("op", CALLS)
def test_calls(library: ctypes.CDLL, op: str) -> None:
    rng = random.Random(f"C face of {op}")
    native = getattr(library, f"patchcut_{op}")
    gcn = ctypes.c_void_p()
    weights = CALLS["gcn_create"]()
    assert (
        library.patchcut_gcn_create(ctypes.byref(weights.arguments["weights"]), ctypes.byref(gcn), None) == OK
    )
    calls, taken, slowest = 0, 0, 0.0
    for _ in range(CALLS_OF_EACH):
        call = CALLS[op]()
        if op == "gcn_forward":
            call.arguments["gcn"] = gcn
        fuzzer = Fuzzer(op, call, rng)
        arguments = fuzzer.arguments()
        begin = time.monotonic()
        status = native(*arguments)
        slowest = max(slowest, time.monotonic() - begin)
        assert status in (OK, INVALID_ARGUMENT), library.patchcut_last_error()
        assert all((fence == FENCE_BYTE).all() for fence in fuzzer.fences)
        if status != OK:
            assert library.patchcut_last_error().startswith(b"[")
        if op == "gcn_create" and status == OK:
            destroy_made(library, arguments)
        calls, taken = calls + 1, taken + (status == OK)
    library.patchcut_gcn_destroy(gcn)
    assert calls == CALLS_OF_EACH
    assert calls / 10 < taken < calls  # neither is all of it refused nor all taken
    assert slowest < 5  # the longest takes a millisecond where nothing else runs


def destroy_made(library: ctypes.CDLL, arguments: list[Any]) -> None:
    library.patchcut_gcn_destroy(ctypes.c_void_p.from_address(arguments[1].value))


def test_there_are_enough_calls() -> None:
    assert len(CALLS) * CALLS_OF_EACH >= 4000
