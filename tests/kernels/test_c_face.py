"""The C ABI as C sees it: what patchcut.h declares is exported, and bad input is refused."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import patchcut_kernels as pk
import pytest
from patchcut_kernels import _C

from .c_calls import CALLS, CUDA_HEADER, HEADER, TOO_LARGE, struct
from .c_header import Function, open_library

LIBRARY = Path(_C.__file__).with_name("libpatchcut.so")
OK, INVALID_ARGUMENT = 0, 1

SETTINGS = {"get_threads", "set_threads", "default_threads", "get_isa", "set_isa"}
OPS = {
    name.removeprefix("patchcut_"): function
    for name, function in HEADER.functions.items()
    if function.returns == "patchcut_status" and name.removeprefix("patchcut_") not in SETTINGS
}
# They work on the host whatever the device, and take no context.
HOST_ONLY = {"rle_read_text", "rle_write_text"}


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    return open_library(LIBRARY, HEADER)


class Caller:
    """Calls a function with the arguments that it takes, some of them changed."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.calls = {op: make() for op, make in CALLS.items()}

    def __call__(self, op: str, context: object = None, /, **changed: Any) -> tuple[int, str]:
        """Status and text."""
        arguments = {"context": context, **self.calls[op].arguments, **changed}
        native = getattr(self._library, f"patchcut_{op}")
        status = native(*(_native(arguments[parameter.name]) for parameter in OPS[op].parameters))
        if op == "gcn_create" and status == OK:
            self._library.patchcut_gcn_destroy(int(arguments["gcn"][0]))
        return status, self._library.patchcut_last_error().decode()

    def change(self, op: str, name: str, value: Any) -> tuple[int, str]:
        """The call with one argument changed, or one field of a struct that it takes."""
        for key, good in self.calls[op].arguments.items():
            if isinstance(good, ctypes.Structure) and name in dict(good._fields_):
                changed = type(good).from_buffer_copy(good)
                setattr(changed, name, value)
                return self(op, **{key: changed})
        return self(op, **{name: value})


def _native(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.ctypes.data
    return ctypes.byref(value) if isinstance(value, ctypes.Structure) else value


@pytest.fixture
def call(library: ctypes.CDLL, request: pytest.FixtureRequest) -> Caller:
    caller, gcn = Caller(library), ctypes.c_void_p()
    weights = caller.calls["gcn_create"].arguments["weights"]
    assert library.patchcut_gcn_create(ctypes.byref(weights), ctypes.byref(gcn), None) == OK
    request.addfinalizer(lambda: library.patchcut_gcn_destroy(gcn))
    caller.calls["gcn_forward"].arguments["gcn"] = gcn
    return caller


def parameters(wanted: Any) -> list[tuple[str, str]]:
    """(op, parameter) for each parameter that `wanted` is true of."""
    return [(op, each.name) for op, function in OPS.items() for each in function.parameters if wanted(each)]


def assert_refused(op: str, answer: tuple[int, str]) -> None:
    """By the op itself, as the text says."""
    status, text = answer
    assert status == INVALID_ARGUMENT, text
    assert re.match(rf"\[{CALLS[op]().tag or op}\] .", text), text


def test_the_library_exports_what_the_headers_declare_and_nothing_else():
    if (program := shutil.which("nm")) is None:
        pytest.skip("nm is not installed: it comes with binutils")
    told = subprocess.run(
        [program, "-D", "--defined-only", LIBRARY], capture_output=True, text=True, check=True
    )
    exported = {line.split()[-1].partition("@")[0] for line in told.stdout.splitlines()}
    of_cuda = CUDA_HEADER.functions.keys() if hasattr(_C.cuda, "allocate") else {"patchcut_cuda_device_count"}
    of_tests = {"patchcut_host_cuda_call", "patchcut_host_cuda_copies"} if _runs_on_host() else set()
    assert exported == HEADER.functions.keys() | of_cuda | of_tests


def _runs_on_host() -> bool:
    """Whether this is a build with PATCHCUT_CUDA=HOST, whose host layer tells tests what it did."""
    return pk.cuda.is_available() and pk.cuda.device_name() == "host"


def test_version(library):
    assert library.patchcut_version().decode() == version("patchcut")


def test_every_op_has_a_c_face_and_a_call():
    ops = {name for name in pk.__all__ if callable(getattr(pk.reference, name, None))}
    assert ops <= OPS.keys()
    assert CALLS.keys() == OPS.keys()


def kinds_of(function: Function) -> list[str]:
    """What each parameter is: "input", "number", "params", "output" or "context"."""
    kinds = []
    for parameter in function.parameters:
        if parameter.type == "const patchcut_context*":
            kinds.append("context")
        elif parameter.type.endswith("_params*"):
            kinds.append("params")
        elif parameter.is_pointer:
            kinds.append("output" if parameter.is_output else "input")
        else:
            kinds.append("number")
    return kinds


@pytest.mark.parametrize("op", OPS)
def test_one_order_of_arguments(op):
    """Inputs and sizes, then params, then outputs, each with its dtype after it, then the context."""
    kinds = kinds_of(OPS[op])
    if op not in HOST_ONLY:
        assert kinds.pop() == "context"
    assert "context" not in kinds
    first_output = kinds.index("output")
    assert set(kinds[:first_output]) <= {"input", "number", "params"}
    later = list(zip(OPS[op].parameters, kinds, strict=False))[first_output:]
    assert all(kind == "output" or parameter.name.endswith("dtype") for parameter, kind in later), later
    if "params" in kinds:
        assert kinds.index("params") == first_output - 1


@pytest.mark.parametrize("op", OPS)
def test_good_calls_are_taken(call, op):
    for context in (None, struct("context")):
        status, text = call(op, context)
        assert status == OK, text


@pytest.mark.parametrize(("op", "name"), parameters(lambda each: each.is_pointer and each.name != "context"))
def test_null_pointers(call, op, name):
    answer = call(op, **{name: None})
    if name in call.calls[op].optional:
        assert answer[0] == OK, answer[1]
    else:
        assert_refused(op, answer)
        assert answer[1].endswith(f"] {name} must not be null")


def arrays_of(op: str) -> list[str]:
    """Names of the arrays that a function takes."""
    arguments = CALLS[op]().arguments
    return [each.name for each in OPS[op].parameters if isinstance(arguments.get(each.name), np.ndarray)]


ARRAYS = [(op, name) for op in CALLS for name in arrays_of(op)]
OUTPUTS = [(op, each.name) for op in CALLS for each in OPS[op].parameters if each.is_output]


@pytest.mark.parametrize(("op", "name"), ARRAYS)
def test_misaligned_arrays_are_refused(call, op, name):
    array = call.calls[op].arguments[name]
    if array.itemsize == 1:
        pytest.skip("bytes lie anywhere")
    shifted = np.empty(array.nbytes + 1, np.uint8)
    shifted[1:] = array.view(np.uint8).ravel()
    answer = call(op, **{name: shifted.ctypes.data + 1})
    assert_refused(op, answer)
    assert " must be aligned" in answer[1]


STRUCTS = [
    (op, name)
    for op in OPS
    for name, value in CALLS[op]().arguments.items()
    if isinstance(value, ctypes.Structure)
]


@pytest.mark.parametrize(("op", "name"), STRUCTS)
def test_misaligned_structs_are_refused(call, op, name):
    good = call.calls[op].arguments[name]
    shifted = np.empty(ctypes.sizeof(good) + 1, np.uint8)
    shifted[1:] = np.frombuffer(bytes(good), np.uint8)
    assert_refused(op, call(op, **{name: shifted.ctypes.data + 1}))


@pytest.mark.parametrize(("op", "name"), OUTPUTS)
def test_outputs_that_overlap_another_array_are_refused(call, op, name):
    arguments = call.calls[op].arguments
    for other in arrays_of(op):
        if name == other or name not in arrays_of(op):
            continue
        output, array = arguments[name], arguments[other]
        room = np.zeros(output.nbytes + array.nbytes + 64, np.uint8)
        begin = room.ctypes.data + -room.ctypes.data % 64
        room[-room.ctypes.data % 64 :][: array.nbytes] = array.view(np.uint8).ravel()
        last = (array.nbytes - 1) // output.itemsize * output.itemsize
        for offset in {0, last}:
            answer = call(op, **{other: begin, name: begin + offset})
            if (name, other) in call.calls[op].in_place and offset == 0:
                assert answer[0] == OK, answer[1]
                continue
            assert_refused(op, answer)
            assert " must not overlap " in answer[1]


def test_frames_may_lie_anywhere_but_where_images_are_written(call):
    arguments = call.calls["preprocess"].arguments
    frames, images = arguments["frames"], arguments["images"]
    strides = np.array([-value for value in frames.strides[:3]] + [1])
    last = frames.ctypes.data + frames.nbytes - 3
    assert call("preprocess", frames=last, strides=strides)[0] == OK
    assert_refused("preprocess", call("preprocess", frames=last, strides=strides, images=frames))
    assert_refused("preprocess", call("preprocess", frames=images.ctypes.data + images.nbytes - 1))
    far = np.array([2**61, 15, 3, 1])
    assert_refused("preprocess", call("preprocess", strides=far))


def test_an_op_is_ended_by_its_context(call):
    """The first answer ends it; the next call is a new one."""
    ask = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)
    asked: list[int | None] = []
    end = ask(lambda data: asked.append(data) or 1)
    context = struct("context", interrupted=ctypes.cast(end, ctypes.c_void_p), interrupt_data=7)
    points = np.random.default_rng(0).standard_normal((8000, 64)).astype(np.float32)
    long = {
        "points": points,
        "batch": 1,
        "n": 8000,
        "d": 64,
        "k": 1000,
        "init": None,
        "labels": np.empty(8000, np.int32),
        "centroids": np.empty((1000, 64), np.float32),
        "params": struct("kmeans_params", iterations=1000, restarts=1000),
    }
    before = pk.get_threads()
    for threads in (1, 2):
        pk.set_threads(threads)
        asked.clear()
        status, text = call("kmeans", context, **long)
        assert (status, text) == (HEADER.constants["PATCHCUT_INTERRUPTED"], "the op was interrupted")
        assert asked == [7]
        assert call("kmeans", context)[0] == OK  # a short one is not even asked for
        assert asked == [7]
    pk.set_threads(before)


@pytest.mark.parametrize("value", [-1, -(2**63), TOO_LARGE, 2**63 - 1])
@pytest.mark.parametrize(("op", "name"), parameters(lambda each: each.type == "int64_t"))
def test_sizes_that_are_negative_or_overflow(call, op, name, value):
    answer = call(op, **{name: value})
    if name in call.calls[op].counts and value > 0:
        assert answer[0] == OK, answer[1]
    else:
        assert_refused(op, answer)


@pytest.mark.parametrize("value", [-1, 2, 2**31 - 1])
@pytest.mark.parametrize(("op", "name"), parameters(lambda each: each.name.endswith("dtype")))
def test_unknown_dtypes(call, op, name, value):
    answer = call(op, **{name: value})
    assert_refused(op, answer)
    assert answer[1].endswith(f"] {name} must be PATCHCUT_FLOAT32 or PATCHCUT_FLOAT16, got {value}")


BAD_VALUES = [
    (op, name, i) for op, make in CALLS.items() for name, bad in make().bad.items() for i in range(len(bad))
]


@pytest.mark.parametrize(("op", "name", "i"), BAD_VALUES)
def test_bad_values(call, op, name, i):
    assert_refused(op, call.change(op, name, call.calls[op].bad[name][i]))


@pytest.mark.parametrize("op", sorted(OPS.keys() - HOST_ONLY))
def test_contexts_that_are_not_there(call, op):
    answer = call(op, struct("context", device_type=2))
    assert_refused(op, answer)
    assert answer[1].endswith("] context must name PATCHCUT_CPU or PATCHCUT_CUDA, got device type 2")
    # Without CUDA the build says how to get it; with CUDA there is no device of this number.
    status, text = call(op, struct("context", device_type=1, device_index=1000))
    assert status not in (OK, HEADER.constants["PATCHCUT_INTERNAL_ERROR"])
    assert re.match(r"\[\w+\] .", text)


@pytest.mark.parametrize("op", [op for op, name in parameters(lambda each: each.name == "batch")])
def test_nothing_is_to_be_done_without_items(call, op):
    pointers = {parameter.name for parameter in OPS[op].parameters if parameter.is_pointer}
    # What all items share is there even then, and offsets are one more than the items.
    nothing = dict.fromkeys(pointers - {"params", "gcn", "context", "prototypes", "runs", "offsets"})
    status, text = call(op, batch=0, **nothing)
    assert status == OK, text


def test_gcn_create_reads_only_layers_that_chain(call):
    gcn = call.calls["gcn_create"].kept
    for layer, arrays in ((gcn.layer, ("theta", "bias")), (gcn.linear, ("weight", "bias"))):
        cases = [(name, None) for name in arrays]
        cases += [(name, bad) for name in ("inputs", "outputs") for bad in (0, -1, 2, TOO_LARGE)]
        for name, value in cases:
            before = getattr(layer, name)
            setattr(layer, name, value)
            if (layer, name, value) != (gcn.linear, "outputs", 2):
                assert_refused("gcn_create", call("gcn_create"))
            setattr(layer, name, before)
    assert call("gcn_create")[0] == OK


def test_settings_refuse_what_is_wrong(library):
    text = lambda: library.patchcut_last_error().decode()  # noqa: E731
    assert library.patchcut_get_threads(None) == INVALID_ARGUMENT
    assert text() == "[get_threads] count must not be null"
    for count in (0, -1, 257):
        assert library.patchcut_set_threads(count) == INVALID_ARGUMENT
        assert text() == f"[set_threads] count must be 1 to 256, got {count}"
    count = ctypes.c_int32()
    assert library.patchcut_default_threads(None, ctypes.byref(count)) == INVALID_ARGUMENT
    assert text() == "[default_threads] root must not be null"
    assert library.patchcut_default_threads(b"", None) == INVALID_ARGUMENT
    assert text() == "[default_threads] count must not be null"
    assert library.patchcut_get_isa(None) == INVALID_ARGUMENT
    assert text() == "[get_isa] name must not be null"
    assert library.patchcut_set_isa(None) == INVALID_ARGUMENT
    assert text() == "[set_isa] name must not be null"
    assert library.patchcut_set_isa(b"sse9") == INVALID_ARGUMENT
    assert text().startswith("[isa] isa must be one of baseline")
    assert library.patchcut_available_isa(-1) is None
    assert library.patchcut_available_isa(2**31 - 1) is None
    assert library.patchcut_gcn_isa(None) is None
    library.patchcut_gcn_destroy(None)


def test_each_thread_has_its_own_last_error(library):
    assert library.patchcut_set_threads(0) == INVALID_ARGUMENT
    heard = []
    thread = threading.Thread(target=lambda: heard.append(library.patchcut_last_error()))
    thread.start()
    thread.join()
    assert heard == [b""]
    assert library.patchcut_last_error() == b"[set_threads] count must be 1 to 256, got 0"


CLOSE = """
import _ctypes, ctypes, os, struct, sys, threading

library = ctypes.CDLL(sys.argv[1])
n, params = 512, struct.pack("iiff", 0, 0, 0.0, 3.0)
features, affinity = (ctypes.c_float * (n * 64))(*[1.0] * (n * 64)), (ctypes.c_float * (n * n))()

def call():
    assert library.patchcut_set_threads(3) == 0
    sizes = [ctypes.c_int64(size) for size in (1, n, 64)]
    assert library.patchcut_affinity(features, 0, *sizes, params, affinity, 0, None, None) == 0

thread = threading.Thread(target=call)
thread.start()
thread.join()
_ctypes.dlclose(library._handle)
mapped = sys.argv[1] in open("/proc/self/maps").read()
print(len(os.listdir("/proc/self/task")), mapped)
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system has no /proc")
def test_closing_it_leaves_its_threads_their_code():
    shown = subprocess.run(
        [sys.executable, "-c", CLOSE, str(LIBRARY)], capture_output=True, text=True, check=False, timeout=60
    )
    threads, mapped = shown.stdout.split()
    assert int(threads) >= 3
    assert mapped == "True"


@pytest.mark.parametrize(
    ("option", "file"),
    [
        ("--cmakedir", "patchcutConfig.cmake"),
        ("--includedir", "patchcut/patchcut.h"),
        ("--libdir", "libpatchcut.so"),
    ],
)
def test_the_package_says_where_its_files_are(option, file):
    shown = subprocess.run(
        [sys.executable, "-m", "patchcut_kernels", option], capture_output=True, text=True, check=True
    )
    assert (Path(shown.stdout.removesuffix("\n")) / file).is_file()
