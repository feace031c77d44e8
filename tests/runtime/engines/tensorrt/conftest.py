"""TensorRT and a GPU, both of them stand-ins."""

from __future__ import annotations

from pathlib import Path

import pytest
from patchcut_kernels import cuda

from tests.host_layer import HostCuda
from tests.runtime import toy_bundle as toy
from tests.runtime.engines.tensorrt.fakes import FakeTensorRt, install


@pytest.fixture(scope="module")
def rich_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two sizes and three feature sets, one of them of the whole image."""
    files = toy.members(tokens=True)
    return toy.write(tmp_path_factory.mktemp("b") / "rich.patchcut", files, toy.manifest(files, tokens=True))


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of engines of this test."""
    monkeypatch.setenv("PATCHCUT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/tensorrt"


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch, cache: Path, request: pytest.FixtureRequest) -> FakeTensorRt:
    """TensorRT, computing with CUDA that the host runs, or else in the host's memory."""
    on_layer = cuda.is_available() and cuda.device_name() == "host"
    return install(monkeypatch, request.getfixturevalue("host_cuda") if on_layer else None)


@pytest.fixture
def trt_on_stream(host_cuda: HostCuda, trt: FakeTensorRt) -> FakeTensorRt:
    """The same with streams and graphs, which are those of the host layer."""
    return trt
