"""Every op is tested by one body on every instruction set of this machine, against the numpy reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
    "upsample_argmax": 1e-6,
    "region_stats": 1e-6,
    "kmeans": 1e-5,
    "assign": 2e-6,
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


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param not in pk.available_isas():
        pytest.skip(f"this machine or build has no {request.param}")
    before = pk.get_isa()
    pk.set_isa(request.param)
    yield request.param
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
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
