"""Every op is tested by one body, on each instruction set and on CUDA, against the numpy reference."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import patchcut_kernels as pk
import pytest

from tests.kernels.backends import Ops, ops_on_cuda
from tests.kernels.tolerances import TOLERANCES

ISAS = ["neon"] if platform.machine() == "aarch64" else ["baseline", "avx2", "avx512"]


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


@pytest.fixture(params=[*ISAS, "cuda"])
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


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set, for what only the CPU has: threads, and checks of values."""
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
    return subjects.photo_features(224)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
