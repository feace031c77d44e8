"""Every op with each of its allocations failing; failing_malloc.c is loaded before it, see test_memory.py.

    python -m tests.kernels.allocations

Prints a line for each op: its name and how many allocations were let fail.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from patchcut_kernels import _C

from tests.kernels.c_calls import CALLS, HEADER, Call
from tests.kernels.c_header import open_library

LIBRARY = Path(_C.__file__).with_name("libpatchcut.so")
OUT_OF_MEMORY = HEADER.constants["PATCHCUT_OUT_OF_MEMORY"]
MOST = 200  # allocations of one call


def main() -> None:
    library, allocator = open_library(LIBRARY, HEADER), ctypes.CDLL(None)
    gcn = ctypes.c_void_p()
    weights = CALLS["gcn_create"]()
    assert (
        library.patchcut_gcn_create(ctypes.byref(weights.arguments["weights"]), ctypes.byref(gcn), None) == 0
    )
    for op, make in CALLS.items():
        call = make()
        if op == "gcn_forward":
            call.arguments["gcn"] = gcn
        failures = 0
        for threads in (1, 2):
            for alone in (0, 1):
                failures += fail_each(library, allocator, op, call, threads, alone)
        print(op, failures, flush=True)


def fail_each(
    library: ctypes.CDLL, allocator: ctypes.CDLL, op: str, call: Call, threads: int, alone: int
) -> int:
    """Fails the first allocation of a call, the second and so on, until the call needs none that fails."""
    for before in range(MOST):
        status, failed = in_thread(attempt_call, library, allocator, op, call, threads, (before, alone))
        if status not in (0, OUT_OF_MEMORY):
            sys.exit(f"{op}: status {status} where allocation {before} failed")
        if failed == 0:
            assert status == 0, op
            return before
    sys.exit(f"{op}: more than {MOST} allocations")


def in_thread(call: Callable[..., tuple[int, int]], *arguments: object) -> tuple[int, int]:
    """What a call gives in a thread of its own, which has no memory of earlier calls.

    Who waits for it allocates nothing meanwhile, as a pool of threads does.
    """
    results: list[tuple[int, int]] = []
    thread = threading.Thread(target=lambda: results.append(call(*arguments)))
    thread.start()
    thread.join()
    return results[0]


def attempt_call(
    library: ctypes.CDLL,
    allocator: ctypes.CDLL,
    op: str,
    call: Call,
    threads: int,
    failure: tuple[int, int],
) -> tuple[int, int]:
    """Status of the call, and how many of its allocations failed."""
    native = getattr(library, f"patchcut_{op}")
    names = [each.name for each in HEADER.functions[f"patchcut_{op}"].parameters]
    arguments = {"context": None, **call.arguments}
    values = [native_value(arguments[name]) for name in names]
    library.patchcut_set_threads(1)
    library.patchcut_set_threads(threads)  # new workers, without memory either
    allocator.failing_malloc_arm(ctypes.c_long(failure[0]), failure[1])
    status = native(*values)
    failed = allocator.failing_malloc_disarm()
    if op == "gcn_create" and status == 0:
        library.patchcut_gcn_destroy(ctypes.c_void_p(int(call.arguments["gcn"][0])))
    return status, failed


def native_value(value: object) -> object:
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    return ctypes.byref(value) if isinstance(value, ctypes.Structure) else value


if __name__ == "__main__":
    main()
