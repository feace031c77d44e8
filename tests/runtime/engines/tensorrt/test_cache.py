"""The cache of TensorRT's engines: what is found, what is built again, and whose turn it is."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from patchcut.engines.tensorrt import engine_cache, memory
from patchcut_kernels import cuda

from tests.runtime import toy_bundle as toy
from tests.runtime.engines.tensorrt.fakes import DRIVER, FakeTensorRt, opened


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_engine_is_built_once(
    trt: FakeTensorRt, toy_bundle: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(toy_bundle)
    assert len(trt.configs) == 1 and len(list(cache.glob("*.engine"))) == 1
    said = warnings_of(caplog)
    assert said[0].startswith("[engine] builds an engine now, once, for minutes; `patchcut export engine`")
    made = "[engine] builds backbone-112-fp32.onnx with tensorrt 10.3.0 for host (compute capability "
    assert said[1].startswith(made) and len(said) == 2
    caplog.clear()
    opened(toy_bundle)
    assert len(trt.configs) == 1 and not warnings_of(caplog)


def change_driver(trt: FakeTensorRt, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(memory, "driver_version", lambda: "580.1, CUDA 13.0")


def change_gpu(trt: FakeTensorRt, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cuda, "device_name", lambda device=0: "Thor")


def change_capability(trt: FakeTensorRt, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cuda, "compute_capability", lambda device=0: (11, 0))


def change_version(trt: FakeTensorRt, patch: pytest.MonkeyPatch) -> None:
    trt.__version__ = "10.16.1"


def change_option(trt: FakeTensorRt, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("PATCHCUT_TENSORRT", "max_batch=4")


CHANGES = [
    (change_driver, "is of another driver: 540.4.0, CUDA 12.6, here 580.1, CUDA 13.0"),
    (change_gpu, "is of another GPU: host, here Thor"),
    (change_capability, "is of another compute capability"),
    (change_version, "is of another TensorRT's version: 10.3.0, here 10.16.1"),
    (change_option, "is of another max_batch: 8, here 4"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES, ids=[one.__name__ for one, _ in CHANGES])
def test_an_engine_of_another_machine_is_not_loaded(
    trt: FakeTensorRt,
    toy_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    change: Callable[..., None],
    said: str,
) -> None:
    opened(toy_bundle)
    caplog.clear()
    change(trt, monkeypatch)
    opened(toy_bundle)
    assert len(trt.configs) == 2
    assert any(said in line for line in warnings_of(caplog)), warnings_of(caplog)


def test_other_feature_sets_and_other_weights_are_other_engines(
    trt: FakeTensorRt, rich_bundle: Path, toy_bundle: Path, cache: Path
) -> None:
    for sets in (("key",), ("key", "token"), ("key",)):
        opened(rich_bundle, sets)
    opened(toy_bundle)
    assert len(trt.configs) == 3 and len(list(cache.glob("*.engine"))) == 3


def test_a_renamed_engine_of_another_gpu_is_seen(
    trt: FakeTensorRt, toy_bundle: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(toy_bundle)
    (path,) = cache.glob("*.engine")
    path.write_bytes(path.read_bytes().replace(b'"gpu": "host"', b'"gpu": "Orin"'))
    caplog.clear()
    opened(toy_bundle)
    assert len(trt.configs) == 2
    line = warnings_of(caplog)[0]
    assert line == f"[engine] {path} is of another GPU: Orin, here host; it is built again"


@pytest.mark.parametrize("harm", ["cut", "flipped", "foreign", "empty", "unreadable header"])
def test_a_damaged_engine_is_built_again(
    trt: FakeTensorRt, toy_bundle: Path, cache: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    opened(toy_bundle)
    (path,) = cache.glob("*.engine")
    data = path.read_bytes()
    harmed = {
        "cut": data[:-9],
        "flipped": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        "foreign": b"ftrt" + bytes(100),
        "empty": b"",
        "unreadable header": data.replace(b'{"key"', b'{"kex"'),
    }
    path.write_bytes(harmed[harm])
    caplog.clear()
    opened(toy_bundle)
    assert len(trt.configs) == 2 and path.read_bytes() == data
    assert warnings_of(caplog)[0].startswith(f"[engine] {path} is ")


def test_a_timing_cache_is_kept_and_a_damaged_one_is_begun_anew(
    trt: FakeTensorRt, toy_bundle: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trt.timings = [b"x"]
    for size in toy.SIZES:
        opened(toy_bundle, size=size)
    assert trt.timing_caches == [b"", b"x"]
    (path,) = cache.glob("*.cache")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    caplog.clear()
    opened(toy_bundle, precision="int8")  # its weights are 8-bit, and dequantized
    assert f"[engine] the timing cache {path} is damaged; begins a new one" in warnings_of(caplog)
    assert trt.timing_caches[2:] == [b""]
    trt.timings = []  # TensorRT itself does not take it
    trt.__version__ = "10.3.1"
    key = SimpleNamespace(flavour="tensorrt", version="10.3.1", gpu="host", capability="8.7", driver=DRIVER)
    engine_cache.EngineCache(cache).write_timings(key, b"of another")  # type: ignore[arg-type]
    opened(toy_bundle)
    assert trt.timing_caches[3:] == [b""]


def test_nothing_is_kept_where_the_cache_is_off(
    trt: FakeTensorRt, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setenv("PATCHCUT_CACHE", "off")
    for _ in range(2):
        opened(toy_bundle)
    assert len(trt.configs) == 2 and not cache.exists()


HOLD = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from patchcut.engines.tensorrt.engine_cache import EngineCache
with EngineCache(Path(sys.argv[1])).alone(SimpleNamespace(file=sys.argv[2]), print):
    print("holds", flush=True)
    time.sleep(60)
"""


def test_a_process_that_is_killed_leaves_the_turn_to_others(tmp_path: Path) -> None:
    key: Any = SimpleNamespace(file="x.engine")
    held = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), key.file], stdout=subprocess.PIPE, text=True
    )
    assert held.stdout is not None and held.stdout.readline() == "holds\n"
    said: list[str] = []

    def kill(line: str) -> None:
        said.append(line)
        held.send_signal(signal.SIGKILL)

    begun = time.monotonic()
    with engine_cache.EngineCache(tmp_path).alone(key, kill):
        assert time.monotonic() - begun < 30
    held.wait()
    held.stdout.close()
    assert said == ["waits for another process that builds x.engine"]
