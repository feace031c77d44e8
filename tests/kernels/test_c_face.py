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

from .c_header import Function, open_library, parse_header

ROOT = Path(__file__).parents[2]
LIBRARY = Path(_C.__file__).with_name("libpatchcut.so")
HEADER = parse_header(ROOT / "kernels/include/patchcut/patchcut.h")
OK, INVALID_ARGUMENT = 0, 1
SETTINGS = {"get_threads", "set_threads", "default_threads", "get_isa", "set_isa"}
OPS = {
    name.removeprefix("patchcut_"): function
    for name, function in HEADER.functions.items()
    if function.returns == "patchcut_status" and name.removeprefix("patchcut_") not in SETTINGS
}
# Second functions of an op: their errors are the op's.
TAGS = {"rle_encode_ids": "rle_encode", "rle_read_text": "rle_decode", "rle_write_text": "rle_encode"}
# They work on the host whatever the device, and take no context.
HOST_ONLY = {"rle_read_text", "rle_write_text"}

# Pointers that may be null.
OPTIONAL = {
    ("affinity", "degrees"),
    ("gnn_fit", "weights"),
    ("gcn_forward", "degrees"),
    ("upsample_argmax", "confidence"),
    ("connected_components", "kept_labels"),
    ("region_stats", "mean_confidence"),
    ("region_stats", "label"),
}
# Numbers that are no size of an array: they may be large.
COUNTS = {("connected_components", "min_area")}

# Values of fields of an op's params struct, or of parameters, that it refuses.
NAN = float("nan")
BAD_VALUES = {
    "affinity": {"kind": [-1, 2], "mode": [-1, 2], "threshold": [-0.1, NAN], "alpha": [0, NAN, 1e-45]},
    "connected_components": {"connectivity": [0, 6, -8], "min_area": [0]},
    "gcn_create": {"d": [0, 4], "temperature": [0, NAN], "mlp_count": [0], "layer_count": [-1]},
    "gcn_forward": {},
    "gnn_fit": {
        "loss": [-1, 2],
        "steps": [0, -1, 2**62],
        "lr": [0, -1, NAN],
        "dropout": [-0.1, 1, NAN],
        "graph_width": [0, -1, 2**62],
        "hidden_width": [0, -1, 2**62],
        "n": [0],
        "d": [0],
        "k": [0],
        "theta": [None],
        "theta_bias": [None],
        "hidden": [None],
        "hidden_bias": [None],
        "logits": [None],
        "logits_bias": [None],
    },
    "preprocess": {
        "height": [0, -1, 2**62],
        "width": [0, -1, 2**62],
        "top": [-1, 3, 2**62],
        "left": [-1, 3, 2**62],
        "content_height": [0, -1, 2**62],
        "content_width": [0, -1, 2**62],
    },
    "region_stats": {},
    "relabel": {"count": [0]},
    "rle_decode": {"height": [5], "width": [4]},
    "rle_encode": {},
    "rle_encode_ids": {"count": [1]},
    "rle_read_text": {"text": [b"~~~", b"PPP", b"   "]},
    "rle_write_text": {},
    "upsample_argmax": {"grid_height": [0], "grid_width": [0], "k": [0]},
}


def struct(name: str, **values: Any) -> ctypes.Structure:
    """patchcut_<name> with the header's defaults, where it has them, and `values`."""
    defaults = HEADER.defaults.get(f"PATCHCUT_{name.removesuffix('_params').upper()}_DEFAULTS", ())
    kind = HEADER.structs[f"patchcut_{name}"]
    made = kind()
    for (field, ctype), value in zip(kind._fields_, defaults, strict=False):
        setattr(made, field, ctype(value).value if ctype is ctypes.c_float else int(value))
    for field, value in values.items():
        setattr(made, field, value)
    return made


class Gcn:
    """The weights of one graph layer and one linear layer, and what gcn_create made of them."""

    def __init__(self, d: int, k: int) -> None:
        self.arrays = [np.ones(size, np.float32) for size in (d * d, d, d * k, k, d, d)]
        theta, bias, weight, last, shift, scale = (array.ctypes.data for array in self.arrays)
        self.layer = struct("gcn_layer", theta=theta, bias=bias, inputs=d, outputs=d)
        self.linear = struct("linear_layer", weight=weight, bias=last, inputs=d, outputs=k)
        self.weights = struct(
            "gcn_weights",
            d=d,
            shift=shift,
            scale=scale,
            layers=ctypes.addressof(self.layer),
            layer_count=1,
            mlp=ctypes.addressof(self.linear),
            mlp_count=1,
            temperature=1,
        )


FIT_WEIGHTS = np.full(64 * 64, 0.1, np.float32)  # as large as the largest


def fit_weights() -> ctypes.Structure:
    fields = ("theta", "theta_bias", "hidden", "hidden_bias", "logits", "logits_bias")
    return struct("gnn_fit_weights", **dict.fromkeys(fields, FIT_WEIGHTS.ctypes.data))


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    return open_library(LIBRARY, HEADER)


@pytest.fixture
def good_calls(library: ctypes.CDLL, request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """Arguments by name that each op takes: arrays, structs, numbers; context is left out."""
    rng = np.random.default_rng(5)
    features = rng.standard_normal((2, 6, 3)).astype(np.float32)
    labels = rng.integers(0, 3, (2, 4, 5)).astype(np.int32)
    floats, ints = lambda *shape: np.empty(shape, np.float32), lambda *shape: np.empty(shape, np.int32)
    gcn, handle = Gcn(3, 2), ctypes.c_void_p()
    assert library.patchcut_gcn_create(ctypes.byref(gcn.weights), ctypes.byref(handle), None) == OK
    request.addfinalizer(lambda: library.patchcut_gcn_destroy(handle))
    frames = rng.integers(0, 256, (2, 4, 5, 3)).astype(np.uint8)
    content = {"height": 3, "width": 3, "content_height": 3, "content_width": 3}
    return {
        "affinity": {
            "features": features, "dtype": 0, "batch": 2, "n": 6, "d": 3, "params": struct("affinity_params"),
            "affinity": floats(2, 6, 6), "affinity_dtype": 0, "degrees": floats(2, 6),
        },
        "connected_components": {
            "label_map": labels, "batch": 2, "height": 4, "width": 5, "connectivity": 8, "min_area": 1,
            "ids": ints(2, 4, 5), "kept_labels": ints(2, 4, 5), "counts": ints(2),
        },
        "gcn_create": {"weights": gcn.weights, "gcn": np.zeros(1, np.uintp), "kept": gcn},
        "gcn_forward": {
            "features": features, "dtype": 0, "affinity": np.ones((2, 6, 6), np.float32), "affinity_dtype": 0,
            "degrees": np.full((2, 6), 6, np.float32), "batch": 2, "n": 6, "gcn": handle,
            "assignment": floats(2, 6, 2),
        },
        "gnn_fit": {
            "features": features, "dtype": 0, "affinity": np.ones((2, 6, 6), np.float32), "affinity_dtype": 0,
            "batch": 2, "n": 6, "d": 3, "k": 2, "weights": fit_weights(),
            "params": struct("gnn_fit_params", steps=3), "assignment": floats(2, 6, 2),
            "losses": floats(2, 3),
        },
        "preprocess": {
            "frames": frames, "batch": 2, "height": 4, "width": 5, "strides": np.array(frames.strides),
            "params": struct("preprocess_params", **content), "images": floats(2, 3, 3, 3), "dtype": 0,
        },
        "region_stats": {
            "ids": labels, "label_map": labels, "confidence": np.ones((2, 4, 5), np.float32), "batch": 2,
            "height": 4, "width": 5, "count": 2, "area": np.empty((2, 2), np.int64),
            "boxes_xyxy": floats(2, 2, 4), "mean_confidence": floats(2, 2), "label": ints(2, 2),
        },
        "relabel": {
            "labels": labels, "batch": 2, "height": 4, "width": 5, "table": np.arange(3, dtype=np.int32),
            "count": 3, "out": ints(2, 4, 5),
        },
        "rle_decode": {
            "runs": np.array([20, 3, 17], np.uint32), "offsets": np.array([0, 1, 3]), "batch": 2, "height": 4,
            "width": 5, "masks": np.empty((2, 4, 5), np.uint8),
        },
        "rle_encode": {
            "masks": (labels == 1).astype(np.uint8), "batch": 2, "height": 4, "width": 5, "capacity": 42,
            "runs": np.empty(42, np.uint32), "offsets": np.empty(3, np.int64),
        },
        "rle_encode_ids": {
            "ids": labels, "batch": 2, "height": 4, "width": 5, "count": 2, "capacity": 84,
            "runs": np.empty(84, np.uint32), "offsets": np.empty(5, np.int64),
        },
        "rle_read_text": {
            "text": b"345", "length": 3, "runs": np.empty(3, np.uint32), "count": np.empty(1, np.int64),
        },
        "rle_write_text": {
            "runs": np.array([3, 4, 5], np.uint32), "count": 3, "text": np.empty(21, np.uint8),
            "length": np.empty(1, np.int64),
        },
        "upsample_argmax": {
            "assignment": features, "batch": 2, "grid_height": 2, "grid_width": 3, "k": 3, "height": 4,
            "width": 5, "labels": ints(2, 4, 5), "confidence": floats(2, 4, 5),
        },
    }  # fmt: skip


class Caller:
    """Calls the ops with the good arguments but for some."""

    def __init__(self, library: ctypes.CDLL, good_calls: dict[str, dict[str, Any]]) -> None:
        self._library = library
        self._good_calls = good_calls

    def __call__(self, op: str, context: object = None, /, **changed: Any) -> tuple[int, str]:
        """Status and text."""
        arguments = {"context": context, **self._good_calls[op], **changed}
        native = getattr(self._library, f"patchcut_{op}")
        status = native(*(self._native(arguments[parameter.name]) for parameter in OPS[op].parameters))
        if op == "gcn_create" and status == OK:
            self._library.patchcut_gcn_destroy(int(arguments["gcn"][0]))
        return status, self._library.patchcut_last_error().decode()

    def change(self, op: str, name: str, value: Any) -> tuple[int, str]:
        """The call with one argument changed, or one field of a struct that it takes."""
        for key, good in self._good_calls[op].items():
            if isinstance(good, ctypes.Structure) and name in dict(good._fields_):
                changed = type(good).from_buffer_copy(good)
                setattr(changed, name, value)
                return self(op, **{key: changed})
        return self(op, **{name: value})

    @staticmethod
    def _native(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.ctypes.data
        return ctypes.byref(value) if isinstance(value, ctypes.Structure) else value


@pytest.fixture
def call(library: ctypes.CDLL, good_calls: dict[str, dict[str, Any]]) -> Caller:
    return Caller(library, good_calls)


def parameters(wanted: Any) -> list[tuple[str, str]]:
    """(op, parameter) for each parameter that `wanted` is true of."""
    return [(op, each.name) for op, function in OPS.items() for each in function.parameters if wanted(each)]


def test_the_library_exports_what_the_header_declares_and_nothing_else():
    if (program := shutil.which("nm")) is None:
        pytest.skip("nm is not installed: it comes with binutils")
    told = subprocess.run(
        [program, "-D", "--defined-only", LIBRARY], capture_output=True, text=True, check=True
    )
    exported = {line.split()[-1].partition("@")[0] for line in told.stdout.splitlines()}
    assert exported == HEADER.functions.keys()


def test_version(library):
    assert library.patchcut_version().decode() == version("patchcut")


def test_every_public_op_is_there(good_calls):
    ops = {name for name in pk.__all__ if name in pk.reference.__all__}
    assert ops - OPS.keys() == {"letterbox_xyxy"} & ops
    assert good_calls.keys() == OPS.keys() == BAD_VALUES.keys()


def order(function: Function) -> list[str]:
    """What kind each parameter is: "input", "number", "params", "output" or "context"."""
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
    """Inputs and sizes, then params, then outputs, each with its dtype behind it, then the context."""
    kinds = order(OPS[op])
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
    assert call(op)[0] == OK
    assert call(op, struct("context"))[0] == OK


def assert_refused(op: str, answer: tuple[int, str]) -> None:
    """By the op itself, as the text says."""
    status, text = answer
    assert status == INVALID_ARGUMENT, text
    assert re.match(rf"\[{TAGS.get(op, op)}\] .", text), text


@pytest.mark.parametrize(("op", "name"), parameters(lambda each: each.is_pointer and each.name != "context"))
def test_null_pointers(call, op, name):
    answer = call(op, **{name: None})
    if (op, name) in OPTIONAL:
        assert answer[0] == OK, answer[1]
    else:
        assert_refused(op, answer)
        assert answer[1].endswith(f"] {name} must not be null")


@pytest.mark.parametrize("value", [-1, -(2**63), 2**62, 2**63 - 1])
@pytest.mark.parametrize(("op", "name"), parameters(lambda each: each.type == "int64_t"))
def test_sizes_that_are_negative_or_overflow(call, op, name, value):
    answer = call(op, **{name: value})
    if (op, name) in COUNTS and value == 2**62:
        assert answer[0] == OK, answer[1]
    elif (op, name) not in COUNTS or value < 0:
        assert_refused(op, answer)


@pytest.mark.parametrize("value", [-1, 2, 2**31 - 1])
@pytest.mark.parametrize(("op", "name"), parameters(lambda each: each.name.endswith("dtype")))
def test_unknown_dtypes(call, op, name, value):
    answer = call(op, **{name: value})
    assert_refused(op, answer)
    assert answer[1].endswith(f"] {name} must be PATCHCUT_FLOAT32 or PATCHCUT_FLOAT16, got {value}")


BAD_CASES = [
    (op, name, value)
    for op, fields in BAD_VALUES.items()
    for name, values in fields.items()
    for value in values
]


@pytest.mark.parametrize(("op", "name", "value"), BAD_CASES)
def test_bad_values(call, op, name, value):
    assert_refused(op, call.change(op, name, value))


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
    # Runs have a size of their own, and offsets one more than there are items.
    nothing = dict.fromkeys(pointers - {"params", "gcn", "context", "runs", "offsets"})
    status, text = call(op, batch=0, **nothing)
    assert status == OK, text


def test_offsets_of_runs_that_fall(call):
    for offsets in ([0, 3, 1], [-1, 1, 3], [0, -1, 3]):
        assert_refused("rle_decode", call("rle_decode", offsets=np.array(offsets)))


def test_gcn_create_reads_only_layers_that_chain(call, good_calls):
    gcn = good_calls["gcn_create"]["kept"]
    for layer, fields in ((gcn.layer, ("theta", "bias")), (gcn.linear, ("weight", "bias"))):
        for name in fields:
            before = getattr(layer, name)
            setattr(layer, name, None)
            assert call("gcn_create") == (INVALID_ARGUMENT, f"[gcn_create] {name} must not be null")
            setattr(layer, name, before)
        for name in ("inputs", "outputs"):
            before = getattr(layer, name)
            for bad in (0, -1, 2, 2**62):
                setattr(layer, name, bad)
                if (layer, name, bad) == (gcn.linear, "outputs", 2):
                    continue
                status, text = call("gcn_create")
                assert (status, text[:13]) == (INVALID_ARGUMENT, "[gcn_create] ")
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
