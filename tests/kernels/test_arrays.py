"""Arrays of other libraries go in and out of every op without a copy."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import patchcut_kernels as pk
import pytest
from patchcut_kernels import _C, _arrays


class OverDlpack:
    """An array that only DLPack can read."""

    def __init__(self, array: np.ndarray | pk.cuda.DeviceArray) -> None:
        self.array: Any = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


class OverDlpackAsBefore(OverDlpack):
    """The same of a library that does not know DLPack 1.0."""

    def __dlpack__(self, stream: int | None = None) -> Any:
        return self.array.__dlpack__(stream=stream)


class OnVulkan(OverDlpack):
    def __dlpack_device__(self) -> tuple[int, int]:
        return 7, 0


class OnCuda(OverDlpack):
    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0


class OverInterface:
    """An array on CUDA that has no more than __cuda_array_interface__, as those of numba and pycuda."""

    def __init__(self, array: pk.cuda.DeviceArray) -> None:
        self.array = array

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.array.__cuda_array_interface__


@dataclass
class Lent:
    """An array as a library has it, the address of its memory, and its content."""

    array: Any
    pointer: int
    read: Callable[[], np.ndarray]


def lend(library: str, values: np.ndarray) -> Lent:
    """A copy of `values` in an array of `library`."""
    if library in HOST_LIBRARIES:
        memory = values.copy()
        return Lent(HOST_LIBRARIES[library](memory), memory.ctypes.data, lambda: memory)
    if not pk.cuda.is_available():
        pytest.skip(pk.cuda.why_unavailable())
    if library in OUR_CUDA_LIBRARIES:
        device = pk.cuda.to_device(values)
        return Lent(OUR_CUDA_LIBRARIES[library](device), device.pointer, device.numpy)
    return OTHER_CUDA_LIBRARIES[library](values)


def to_torch(array: np.ndarray) -> Any:
    return pytest.importorskip("torch").from_numpy(array)


def to_torch_cuda(values: np.ndarray) -> Lent:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    array = torch.from_numpy(values).cuda()
    return Lent(array, array.data_ptr(), lambda: array.cpu().numpy())


def to_cupy(values: np.ndarray) -> Lent:
    array = pytest.importorskip("cupy").asarray(values)
    return Lent(array, array.data.ptr, array.get)


def to_pycuda(values: np.ndarray) -> Lent:
    pytest.importorskip("pycuda.autoprimaryctx")
    array = pytest.importorskip("pycuda.gpuarray").to_gpu(values)
    return Lent(array, int(array.gpudata), array.get)


HOST_LIBRARIES: dict[str, Callable[[np.ndarray], Any]] = {
    "numpy": np.asarray,
    "dlpack": OverDlpack,
    "dlpack before 1.0": OverDlpackAsBefore,
    "torch": to_torch,
}
OUR_CUDA_LIBRARIES: dict[str, Callable[[pk.cuda.DeviceArray], Any]] = {
    "patchcut cuda": lambda array: array,
    "interface cuda": OverInterface,
    "dlpack cuda": OverDlpack,
}
OTHER_CUDA_LIBRARIES = {"torch cuda": to_torch_cuda, "cupy": to_cupy, "pycuda": to_pycuda}
LIBRARIES = [*HOST_LIBRARIES, *OUR_CUDA_LIBRARIES, *OTHER_CUDA_LIBRARIES]


@dataclass
class Case:
    """One call: the arrays that go in, the arrays that it writes, and the rest.

    Args:
        record: the class whose fields are the outputs, given as `out`; None where each is its own argument.
        gather: the op's arguments of the inputs, where those are not arguments themselves.
    """

    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    settings: dict[str, Any] = field(default_factory=dict)
    record: Callable[..., Any] | None = None
    gather: Callable[..., dict[str, Any]] = dict

    def call(self, op: Callable[..., Any], inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
        given = outputs if self.record is None else {"out": self.record(**outputs)}
        result = op(**self.gather(**inputs), **given, **self.settings)
        if "out" in given:
            parts = result if isinstance(result, tuple) else []
            assert any(part is given["out"] for part in (result, *parts))
        return result


def random_weights(rng: np.random.Generator, d: int) -> pk.GcnWeights:
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    layer = pk.GcnLayer(normal(d, 6), normal(d, 6), normal(6))
    return pk.GcnWeights(True, normal(d), normal(d), (layer,), (pk.LinearLayer(normal(6, 3), normal(3)),))


def make_cases() -> dict[str, Case]:
    rng = np.random.default_rng(3)
    features = rng.standard_normal((12, 5)).astype(np.float32)
    edges = rng.random((12, 12), np.float32)
    assignment = rng.random((12, 3), np.float32)
    labels = rng.integers(0, 3, (9, 11)).astype(np.int32)
    frame = rng.integers(0, 256, (13, 17, 3)).astype(np.uint8)
    return {
        "affinity": Case({"features": features}, {"out": np.empty((12, 12), np.float32)}),
        "assign": Case(
            {"features": features, "prototypes": features[:3].copy()},
            {
                "labels": np.empty(12, np.int32),
                "similarity": np.empty(12, np.float32),
                "assignment": np.empty((12, 3), np.float32),
            },
            {"temperature": 0.1},
            pk.PrototypeAssignment,
        ),
        "bipartition": Case(
            {"features": features, "start": features[:, 0].copy()},
            {
                "mask": np.empty((3, 4), np.bool_),
                "seed": np.empty((), np.int32),
                "vector": np.empty(12, np.float32),
            },
            {"grid_hw": (3, 4)},
            pk.Bipartition,
        ),
        "bilateral_solver": Case(
            {
                "frame": frame,
                "soft_map": rng.random((13, 17), np.float32),
                "confidence": rng.random((13, 17), np.float32),
            },
            {"out": np.empty((13, 17), np.float32)},
        ),
        "connected_components": Case(
            {"label_map": labels}, {"out": np.empty_like(labels), "labels_out": np.empty_like(labels)}
        ),
        "correlation_cluster": Case(
            {"affinity": edges - 0.5},
            {
                "labels": np.empty(12, np.int32),
                "k": np.empty((), np.int32),
                "objective": np.empty((), np.float32),
            },
            {},
            pk.CorrelationClustering,
        ),
        "cosegment": Case(
            {
                "features": features,
                "offsets": np.int64([0, 5, 12]),
                "weights": rng.random(12, np.float32),
            },
            {
                "scores": np.empty(12, np.float32),
                "seeds": np.empty(2, np.int32),
                "embedding": np.empty(5, np.float32),
            },
            {},
            pk.Cosegmentation,
        ),
        "gcn_forward": Case(
            {"features": features, "affinity": edges, "degrees": edges.sum(1)},
            {"out": np.empty((12, 3), np.float32)},
            {"weights": random_weights(rng, 5)},
        ),
        "gnn_fit": Case(
            {"features": features, "affinity": edges},
            {
                "assignment": np.empty((12, 3), np.float32),
                "losses": np.empty(10, np.float32),
                "weights": np.empty(6 * 64 + 65 * 32 + 33 * 3, np.float32),
            },
            {"k": 3, "weights": True},
            pk.GnnFit,
        ),
        "kmeans": Case(
            {"points": features, "init": features[:3].copy()},
            {
                "labels": np.empty(12, np.int32),
                "centroids": np.empty((3, 5), np.float32),
                "inertia": np.empty((), np.float32),
            },
            {"k": 3},
            pk.KMeansClustering,
        ),
        "kmeans_sums": Case(
            {"points": features, "centroids": features[:3].copy()},
            {
                "labels": np.empty(12, np.int32),
                "distances": np.empty(12, np.float32),
                "sums": np.empty((3, 5)),
                "counts": np.empty(3, np.int64),
                "inertia": np.empty(()),
            },
            {},
            pk.KMeansSums,
        ),
        "guided_refine": Case(
            {"frame": frame, "maps": rng.random((13, 17), np.float32)},
            {"out": np.empty((13, 17), np.float32)},
            {"radius": 2, "eps": 1e-3},
        ),
        "ncut": Case(
            {"features": features, "start": features[:, :2].copy()},
            {
                "eigenvalues": np.empty(2, np.float32),
                "vectors": np.empty((12, 2), np.float32),
                "residuals": np.empty(2, np.float32),
                "products": np.empty((), np.int32),
            },
            {"k": 2},
            pk.NCut,
        ),
        "preprocess": Case(
            {"frames": frame},
            {"out": np.empty((3, 8, 8), np.float32)},
            {"size": 8, "mean": (0.5,) * 3, "std": (0.2,) * 3},
        ),
        "propagate": Case(
            {
                "features": features,
                "memory": rng.standard_normal((2, 12, 5)).astype(np.float32),
                "values": rng.random((2, 12, 3), np.float32),
            },
            {"out": np.empty((12, 3), np.float32)},
            {"grid_hw": (3, 4)},
        ),
        "region_stats": Case(
            {"ids": labels, "label_map": labels, "confidence": rng.random((9, 11), np.float32)},
            {
                "area": np.empty(2, np.int64),
                "boxes_xyxy": np.empty((2, 4), np.float32),
                "mean_confidence": np.empty(2, np.float32),
                "label": np.empty(2, np.int32),
            },
            {"count": 2},
            pk.RegionStats,
        ),
        "relabel": Case(
            {"labels": labels, "table": np.array([4, 0, 9], np.int32)}, {"out": np.empty_like(labels)}
        ),
        "rle_decode": Case(
            {"runs": np.array([5, 4, 81, 9], np.uint32), "offsets": np.array([0, 4])},
            {"out": np.empty((1, 9, 11), np.bool_)},
            gather=lambda runs, offsets: {"rles": pk.RunLengths((9, 11), runs, offsets)},
        ),
        "rle_encode": Case(
            {"masks": labels == 1},
            {"runs": np.empty(100, np.uint32), "offsets": np.empty(2, np.int64)},
            {},
            partial(pk.RunLengths, (9, 11)),
        ),
        "upsample_argmax": Case(
            {"assignment": assignment},
            {"out": np.empty((9, 11), np.int32), "confidence": np.empty((9, 11), np.float32)},
            {"grid_hw": (3, 4), "size_hw": (9, 11)},
        ),
    }


OPS = tuple(make_cases())


def test_every_op_has_a_case():
    ops = {name for name in pk.__all__ if inspect.isfunction(getattr(pk.reference, name, None))}
    assert ops == set(OPS)


@pytest.fixture
def pointers(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Addresses of the arrays that the native ops were called with."""
    seen: set[int] = set()

    def spy(native: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            for value in arguments:
                if isinstance(value, np.ndarray):
                    assert value.flags.c_contiguous
                    seen.add(value.ctypes.data)
            return native(*arguments)

        return call

    def spy_lend(pointer: int, *arguments: Any) -> Any:
        seen.add(pointer)
        return lend_native(pointer, *arguments)

    for name in OPS:
        monkeypatch.setattr(_C, name, spy(getattr(_C, name)))
    if pk.cuda.is_available():
        lend_native = _C.cuda.lend
        monkeypatch.setattr(_C.cuda, "lend", spy_lend)
    return seen


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", OPS)
def test_the_memory_used_is_the_callers(name, library, pointers):
    case, op = make_cases()[name], getattr(pk, name)
    want = {key: np.zeros_like(value) for key, value in case.outputs.items()}
    case.call(op, case.inputs, want)
    pointers.clear()

    inputs = {key: lend(library, value) for key, value in case.inputs.items()}
    outputs = {key: lend(library, np.zeros_like(value)) for key, value in case.outputs.items()}
    case.call(op, arrays(inputs), arrays(outputs))
    assert pointers >= {value.pointer for value in (*inputs.values(), *outputs.values())}
    for key, value in want.items():
        assert value.ndim == 0 or value.min() < value.max()
        if library in HOST_LIBRARIES:
            np.testing.assert_array_equal(outputs[key].read(), value)
        else:
            np.testing.assert_allclose(outputs[key].read(), value, rtol=0, atol=1e-4)


def arrays(lent: dict[str, Lent]) -> dict[str, Any]:
    return {key: value.array for key, value in lent.items()}


def test_each_output_is_the_object_that_was_given():
    labels, confidence = to_torch(np.empty((6, 8), np.int32)), to_torch(np.empty((6, 8), np.float32))
    assignment = np.random.default_rng(0).random((12, 2), np.float32)
    got = pk.upsample_argmax(assignment, (3, 4), (6, 8), out=labels, confidence=confidence)
    assert got[0] is labels
    assert got[1] is confidence


def test_torch_strides_and_batches():
    torch = pytest.importorskip("torch")
    batch = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 9, 7, 5)).astype(np.float32))
    strided = batch.permute(0, 3, 2, 1)[:, 1]
    np.testing.assert_array_equal(pk.affinity(strided), pk.affinity(strided.numpy().copy()))
    out = torch.empty(2, 7, 14)[:, :, ::2]
    with pytest.raises(ValueError, match=r"^\[affinity\] out must be C-contiguous"):
        pk.affinity(strided, out=out)
    square = torch.ones(5, 5)
    with pytest.raises(ValueError, match=r"^\[affinity\] out must not overlap an input"):
        pk.affinity(square, out=square)


def test_the_example_of_the_docs(docs_block):
    pytest.importorskip("torch")
    names: dict[str, Any] = {}
    exec(docs_block("embedding.md", "python"), names)
    np.testing.assert_array_equal(names["affinity"], pk.affinity(names["features"].numpy()))
    assert sorted(np.unique(names["labels"])) == list(range(8))


NO_COPY = """
import resource, sys
import numpy as np
import patchcut_kernels as pk

labels, out = np.ones((4096, 4096), np.int32), np.ones((4096, 4096), np.int32)
if sys.argv[1] == "torch":
    import torch
    labels, out = torch.from_numpy(labels), torch.from_numpy(out)
pk.relabel(labels[:8], np.array([0, 5], np.int32), out=out[:8])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert pk.relabel(labels, np.array([0, 5], np.int32), out=out) is out
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, int(out.min()))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux")
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_large_array_takes_no_further_memory(library):
    pytest.importorskip(library)
    ran = subprocess.run(
        [sys.executable, "-c", NO_COPY, library], capture_output=True, text=True, check=True, timeout=120
    )
    grown_kib, least = map(int, ran.stdout.split())
    assert least == 5
    assert grown_kib < 16 * 1024, "64 MiB are one copy"


GOOD = np.ones((4, 3), np.float32)


def test_what_is_no_array_is_an_error():
    for value in ([[1.0]], None, 3, "x", np.float32(1), memoryview(GOOD), OverDlpack):
        with pytest.raises(TypeError, match=r"^\[affinity\] features must be an array, got "):
            pk.affinity(value)


def test_another_device_is_an_error():
    with pytest.raises(
        ValueError, match=r"^\[affinity\] features must lie in host memory or on CUDA, got device \(7, 0\)"
    ):
        pk.affinity(OnVulkan(GOOD))
    with pytest.raises(ValueError, match=r"^\[affinity\] out must lie in host memory or on CUDA"):
        pk.affinity(GOOD, out=OnVulkan(np.empty((4, 4), np.float32)))


@pytest.mark.skipif(pk.cuda.is_available(), reason="CUDA is available")
def test_cuda_that_is_missing_is_an_error_that_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"^\[affinity\] .*(PATCHCUT_CUDA=ON|driver)"):
        pk.affinity(OnCuda(GOOD))
    with pytest.raises(RuntimeError, match=r"^\[cuda\] .*(PATCHCUT_CUDA=ON|driver)"):
        pk.cuda.to_device(GOOD)


def test_a_tensor_that_cannot_be_lent_is_an_error():
    torch = pytest.importorskip("torch")
    message = r"^\[affinity\] features must be an array that can be lent, got Tensor: .*gradient"
    with pytest.raises(TypeError, match=message):
        pk.affinity(torch.ones(4, 3, requires_grad=True))
    with pytest.raises(TypeError, match=r"^\[affinity\] features must be an array that can be lent"):
        pk.affinity(torch.ones(4, 3, device="meta"))
    with pytest.raises(TypeError, match=r"^\[affinity\] features must be"):
        pk.affinity(torch.ones(4, 3, dtype=torch.bfloat16))


def test_checks_see_through_the_lender():
    with pytest.raises(TypeError, match=r"^\[affinity\] features must be float32 or float16, got float64"):
        pk.affinity(OverDlpack(np.ones((4, 3))))
    with pytest.raises(ValueError, match=r"^\[affinity\] out must have shape \(4, 4\), got \(4, 3\)"):
        pk.affinity(GOOD, out=OverDlpackAsBefore(np.empty((4, 3), np.float32)))


@pytest.mark.skipif(not _arrays._NUMPY_READS_FLAGS, reason="this numpy lends nothing that is read-only")
def test_a_read_only_lender():
    features = GOOD.copy()
    features.flags.writeable = False
    np.testing.assert_array_equal(pk.affinity(OverDlpack(features)), pk.affinity(GOOD))
    square = np.empty((4, 4), np.float32)
    square.flags.writeable = False
    with pytest.raises(ValueError, match=r"^\[affinity\] out must be writable, got a read-only array"):
        pk.affinity(GOOD, out=OverDlpack(square))
    with pytest.raises(TypeError, match=r"^\[affinity\] out must be an array that can be lent"):
        pk.affinity(GOOD, out=OverDlpackAsBefore(square))
