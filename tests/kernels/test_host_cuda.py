"""The layer that runs CUDA kernels on the host finds a kernel's mistakes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HOST_CUDA = Path(__file__).parents[1] / "host_cuda"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module", params=[(), ("-fsanitize=address,undefined",)], ids=["plain", "asan"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a kernel of check_layer.cpp by name."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    program = tmp_path_factory.mktemp("host_cuda") / "check_layer"
    sources = [str(HOST_CUDA / name) for name in ("block.cpp", "fiber.cpp", "runtime.cpp", "check_layer.cpp")]
    options = ["-std=c++17", "-O1", "-g", *request.param, f"-I{HOST_CUDA / 'include'}"]
    subprocess.run([compiler, *options, *sources, "-o", str(program)], check=True)
    # A sanitizer that is preloaded for Python cannot share a process with this one.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    environment["ASAN_OPTIONS"] = "detect_leaks=0"

    def run(name: str, seed: int = 0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(program), name],
            env={**environment, "PATCHCUT_HOST_CUDA_SEED": str(seed)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_functions_of_warps_and_blocks(run: Run, seed: int):
    status, values = run("correct", seed).stdout.splitlines()
    assert status == "success"
    assert [float(value) for value in values.split()[:6]] == [64 * 63 / 2, 1, 39, 8, 5, 1]
    assert values.split()[6:] in (["nan", "nan"], ["-nan", "-nan"]), "fresh memory is not NaN"


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("barrier_that_some_miss", "waits for ever in __syncthreads at .*check_layer.cpp"),
        ("barriers_in_two_places", "waits in __syncthreads at .*, others in __syncthreads"),
        (
            "shuffle_that_a_lane_misses",
            r"thread \((7|39), 0, 0\) of block .* ended, others wait for it|for ever",
        ),
        ("shuffle_with_two_masks", "or with another mask|waits for ever"),
        ("lane_outside_its_mask", "is not in its own mask"),
        ("warp_against_barrier", "waits for ever in"),
        ("too_much_shared_memory", "more than 48 KiB of shared memory"),
        ("partial_warp", "1 to 32 whole warps, got 40 threads"),
    ],
)
def test_what_cuda_leaves_undefined_is_an_error(run: Run, kernel: str, message: str, seed: int):
    status = run(kernel, seed).stdout.splitlines()[0]
    assert status != "success"
    assert re.search(message, status), status


def test_memory_that_nobody_wrote_is_nan(run: Run):
    status, values = run("shared_memory_that_nobody_wrote").stdout.splitlines()
    assert status == "success"
    assert values.split()[0].endswith("nan")


def test_a_missing_barrier_shows(run: Run):
    first = {run("missing_barrier", seed).stdout.split()[1] for seed in range(6)}
    assert any(value.endswith("nan") for value in first)


def test_the_sanitizer_sees_what_goes_past_an_array(run: Run, request: pytest.FixtureRequest):
    ran = run("past_the_end")
    if "asan" in request.node.name:
        assert ran.returncode != 0
        assert "heap-buffer-overflow" in ran.stderr
        assert "past_the_end" in ran.stderr
