"""Every op is tested by one body, on each instruction set and on CUDA, against the numpy reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import patchcut_kernels as pk
import pytest

# Absolute tolerance of float32 results against the float64 reference, for values of order 1.
TOLERANCES = {
    "preprocess": 4e-6,
    "affinity": 2e-6,
    "degrees": 2e-4,
    "gcn_forward": 1e-5,
    "gnn_fit": 1e-4,
    "guided_refine": 2e-5,
    "bilateral_solver": 5e-5,
    "upsample_argmax": 1e-6,
    "region_stats": 1e-6,
    "kmeans": 1e-5,
    "assign": 2e-6,
    "ncut": 3e-6,
    "assign soft": 2e-5,
}


@pytest.fixture
def assert_close() -> Callable[..., None]:
    """assert_close(op, got, want): also fails where `want` could not have failed the test."""

    def check(op: str, got: np.ndarray, want: np.ndarray, *, scale: float = 1.0) -> None:
        assert got.dtype == np.float32
        assert got.shape == want.shape
        if want.size > 8:
            assert np.ptp(want) > 1e-3 * scale, "the reference is near-constant"
        np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCES[op] * scale)

    return check


class Ops:
    """`patchcut_kernels` in one place: numpy arrays go in and come out, wherever an op runs.

    Attributes:
        place: "cpu", the name of an instruction set of it, or "cuda".
        checks_values: whether ops refuse what is not finite or out of range; they do on the CPU.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self.checks_values = place != "cuda"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        op = getattr(pk, name)
        return op if self.place != "cuda" else _OnCuda(op)


class _OnCuda:
    """One op whose arrays travel to the device and back; an array that is given twice is one there too."""

    def __init__(self, op: Callable[..., Any]) -> None:
        self._op = op
        self._pairs: list[tuple[Any, Any]] = []  # (numpy, device)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        sent = [self._send(value) for value in arguments]
        result = self._op(*sent, **{name: self._send(value) for name, value in options.items()})
        outputs = [value for name, value in options.items() if name in OUTPUTS]
        for host, device in self._pairs:
            if any(host is value for output in outputs for value in _fields(output)):
                host[...] = device.numpy()
        return self._receive(result)

    def _send(self, value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, (type, pk.GcnWeights, pk.GnnFitWeights)):
            names = [field.name for field in dataclasses.fields(value)]
            self._pairs.append((value, type(value)(**{n: self._send(getattr(value, n)) for n in names})))
            return self._pairs[-1][1]
        if not isinstance(value, np.ndarray):
            return value
        for host, device in self._pairs:
            if host is value:
                return device
        self._pairs.append((value, pk.cuda.to_device(value)))
        return self._pairs[-1][1]

    def _receive(self, value: Any) -> Any:
        for host, device in self._pairs:
            if device is value:
                return host
        if isinstance(value, tuple):
            return tuple(self._receive(item) for item in value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            got = {
                field.name: self._receive(getattr(value, field.name)) for field in dataclasses.fields(value)
            }
            return type(value)(**got)
        if not isinstance(value, pk.cuda.DeviceArray):
            return value
        host = value.numpy()
        return host if host.ndim else host.item()


# Arguments that an op writes.
OUTPUTS = {"out", "labels_out", "counts_out", "confidence", "return_degrees"}


def _fields(value: Any) -> list[Any]:
    if dataclasses.is_dataclass(value):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return [value]


@pytest.fixture(params=["baseline", "avx2", "avx512", "cuda"])
def ops(request: pytest.FixtureRequest) -> Iterator[Ops]:
    """The ops on each instruction set and on CUDA, for a test's one body."""
    if request.param == "cuda":
        yield ops_on_cuda()
        return
    with using_isa(request.param):
        yield Ops(request.param)


@pytest.fixture(params=["cpu", "cuda"])
def device_ops(request: pytest.FixtureRequest) -> Ops:
    """The same of ops that are alike on every instruction set."""
    return ops_on_cuda() if request.param == "cuda" else Ops("cpu")


def ops_on_cuda() -> Ops:
    if not pk.cuda.is_available():
        pytest.skip(pk.cuda.why_unavailable())
    return Ops("cuda")


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set, for what is of the CPU alone: threads, and checks of values."""
    with using_isa(request.param):
        yield request.param


@contextmanager
def using_isa(name: str) -> Iterator[None]:
    if name not in pk.available_isas():
        pytest.skip(f"this machine or build has no {name}")
    before = pk.get_isa()
    pk.set_isa(name)
    yield
    pk.set_isa(before)


@pytest.fixture
def for_thread_counts() -> Iterator[Callable[[Callable[[], np.ndarray]], None]]:
    """Asserts that a result is the same, bit for bit, for 1, 2 and 3 threads."""
    before = pk.get_threads()

    def check(compute: Callable[[], np.ndarray]) -> None:
        results = []
        for threads in (1, 2, 3):
            pk.set_threads(threads)
            results.append(compute().tobytes())
        assert results[0] == results[1] == results[2]

    yield check
    pk.set_threads(before)


@pytest.fixture
def for_orders_on_cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], np.ndarray]], None]:
    """Asserts that a result on CUDA is the same, bit for bit, in whatever order its threads and blocks run.

    In a build with PATCHCUT_CUDA=HOST these are orders that differ; on a GPU they are as they come.
    """
    ops_on_cuda()

    def check(compute: Callable[[], np.ndarray]) -> None:
        results = []
        for seed in range(4):
            monkeypatch.setenv("PATCHCUT_HOST_CUDA_SEED", str(seed))
            results.append(compute().tobytes())
        assert len(set(results)) == 1

    return check


@pytest.fixture(scope="session")
def real_features() -> np.ndarray:
    """[256, 384] float32, the embedded backbone's features of the sample photo."""
    pytest.importorskip("onnxruntime")
    from patchcut.bundle import EMBEDDED

    from bench import subjects

    if not EMBEDDED.is_file():
        pytest.skip("there is no embedded bundle here")
    return subjects.features(EMBEDDED, 224, threads=1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
