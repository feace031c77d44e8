from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from patchcut.engines import choice

from tests.host_layer import HostCuda

# Tests that import onnxruntime themselves are to be as quiet as patchcut.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# What engines compile is kept in no home; tests of that name a folder of their own.
os.environ["PATCHCUT_CACHE"] = "off"


# What "auto" goes by: times of this kind of CPU.
_GOES_BY = {name: getattr(choice, name) for name in ("_usable", "cpu_kind")}


@pytest.fixture(scope="session", autouse=True)
def same_everywhere() -> Iterator[None]:
    """In this process "auto" is ONNX Runtime in int8 whatever the CPU, and times in a bundle do not count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "_usable", lambda *_: [])
        patch.setattr(choice, "cpu_kind", lambda: "x86-avx512-vnni")
        yield


@pytest.fixture
def as_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """ "auto" is what it is for users: the fastest by a bundle's times of this CPU."""
    for name, function in _GOES_BY.items():
        monkeypatch.setattr(choice, name, function)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of data sets and videos: $PATCHCUT_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get("PATCHCUT_DATA", Path(__file__).parents[1].parent / "shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no data in {folder}; name its folder in PATCHCUT_DATA")
    return folder


@pytest.fixture(scope="session")
def docs_block() -> Callable[[str, str], str]:
    """docs_block(page, language): the only code in that language on a page of the docs."""

    def read(page: str, language: str) -> str:
        text = (Path(__file__).parents[1] / "docs" / page).read_text("utf-8")
        (block,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)
        return str(block)

    return read


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs `patchcut ARGS...` in this process and returns its exit status."""
    from patchcut.cli import app as cli

    def run(*args: object) -> int:
        monkeypatch.setattr(sys, "argv", ["patchcut", *map(str, args)])
        with pytest.raises(SystemExit) as exited:
            cli.main()
        return int(exited.value.code or 0)

    return run


@pytest.fixture
def host_cuda() -> HostCuda:
    """The host layer that runs the CUDA kernels without a GPU."""
    from patchcut_kernels import cuda

    if not cuda.is_available() or cuda.device_name() != "host":
        pytest.skip("needs kernels that were built with PATCHCUT_CUDA=HOST")
    return HostCuda()


@pytest.fixture
def transfers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """("up", "down" or "device", bytes) of each copy with CUDA that Python makes from here on."""
    from patchcut_kernels import _C, cuda

    if not cuda.is_available():
        pytest.skip(cuda.why_unavailable())
    copies: list[tuple[str, int]] = []
    copy, device_of = _C.cuda.copy, _C.cuda.device_of

    def counted(device: int, to: int, source: int, nbytes: int, stream: int) -> None:
        on_device = (device_of(source) >= 0, device_of(to) >= 0)
        copies.append(({(False, True): "up", (True, False): "down"}.get(on_device, "device"), nbytes))
        copy(device, to, source, nbytes, stream)

    monkeypatch.setattr(_C.cuda, "copy", counted)
    return copies
