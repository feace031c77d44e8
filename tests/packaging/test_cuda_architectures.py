"""Which GPUs the CUDA kernels are compiled for, with nvccs that know others, and GPUs that are not there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import ROOT, run

# What nvcc --list-gpu-arch tells, in its order.
JETPACK_6 = "50 52 53 60 61 62 70 72 75 80 86 87 89 90"
CUDA_13 = "75 80 86 87 88 89 90 100 110 103 120 121"
ALL_OF_13 = "75-real;80-real;86-real;87-real;89-real;90-real;100-real;103-real;110-real;120"
ALL_OF_6 = "75-real;80-real;86-real;87-real;89-real;90"

SCRIPT = """
cmake_minimum_required(VERSION 3.22)
include("{source}/cuda_architectures.cmake")
patchcut_ask_nvcc("{nvcc}" known)
patchcut_choose_architectures("{wanted}" "{native}" "${{known}}" chosen)
message(STATUS "${{chosen}}")
"""


@pytest.fixture
def choose(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """choose(known, wanted, native): what CMake says of an nvcc that lists `known`."""
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("there is no cmake on the PATH")

    def check(known: str, wanted: str, native: str = "") -> subprocess.CompletedProcess[str]:
        nvcc = tmp_path / "nvcc"
        lines = "".join(f"echo compute_{gpu}\n" for gpu in known.split())
        nvcc.write_text(f'#!/bin/sh\n[ "$1" = --list-gpu-arch ] || exit 1\n{lines}')
        nvcc.chmod(0o755)
        script = tmp_path / "script.cmake"
        script.write_text(SCRIPT.format(source=ROOT / "kernels", nvcc=nvcc, wanted=wanted, native=native))
        return subprocess.run([cmake, "-P", script], capture_output=True, text=True, check=False)

    return check


@pytest.mark.parametrize(
    ("known", "wanted", "native", "chosen"),
    [
        (CUDA_13, "all", "", ALL_OF_13),
        (CUDA_13, "", "", ALL_OF_13),
        (JETPACK_6, "all", "", ALL_OF_6),
        (JETPACK_6, "native", "87", "87"),
        (CUDA_13, "native", "120;90;120", "120;90"),
        (JETPACK_6, "native", "110", ALL_OF_6),  # the driver runs the newest PTX on it
        (JETPACK_6, "native", "61", ALL_OF_6),
        (CUDA_13, "native", "", ALL_OF_13),
        (JETPACK_6, "87-real;90", "", "87-real;90"),
        (JETPACK_6, "90a-real", "", "90a-real"),
        (JETPACK_6, "all-major", "", "all-major"),
        (JETPACK_6, "87-real;110-real;120", "", "87-real"),
    ],
)
def test_what_is_compiled_for(
    choose: Callable[..., subprocess.CompletedProcess[str]],
    known: str,
    wanted: str,
    native: str,
    chosen: str,
) -> None:
    done = choose(known, wanted, native)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"-- {chosen}\n"


def test_what_nvcc_does_not_know_is_left_out_and_told(
    choose: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    told = " ".join(choose(JETPACK_6, "87;110").stderr.split())
    assert "this nvcc does not know 110, left out" in told


def test_nothing_that_nvcc_knows_is_an_error(
    choose: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = choose(JETPACK_6, "110;120")
    assert done.returncode == 1
    told = " ".join(done.stderr.split())
    assert "PATCHCUT_CUDA_ARCHITECTURES=110;120: this nvcc knows 50;52;53;" in told


DRIVER = """
int cuInit(unsigned flags) {{ return {status}; }}
int cuDeviceGetCount(int* count) {{ *count = 2; return 0; }}
int cuDeviceGetAttribute(int* value, int attribute, int device) {{
  *value = attribute == 75 ? (device == 0 ? 8 : 12) : (device == 0 ? 7 : 0);
  return 0;
}}
"""


def test_the_driver_tells_the_gpus_of_this_machine(tmp_path: Path) -> None:
    compilers = shutil.which("g++"), shutil.which("gcc")
    if None in compilers:
        pytest.skip("needs g++ and gcc")
    program = str(tmp_path / "gpus_here")
    run("g++", "-std=c++17", "-Wall", "-Werror", str(ROOT / "kernels/gpus_here.cpp"), "-o", program, "-ldl")

    def ask(driver: str | None) -> subprocess.CompletedProcess[str]:
        (tmp_path / "driver.c").write_text(driver or "")
        run("gcc", "-shared", "-fPIC", str(tmp_path / "driver.c"), "-o", str(tmp_path / "libcuda.so.1"))
        environment = {"LD_LIBRARY_PATH": str(tmp_path)}
        return subprocess.run([program], env=environment, capture_output=True, text=True, check=False)

    two = ask(DRIVER.format(status=0))
    assert (two.returncode, two.stdout) == (0, "87;120")
    none = ask(DRIVER.format(status=100))  # CUDA_ERROR_NO_DEVICE
    assert (none.returncode, none.stdout) == (0, "")
    foreign = ask(None)
    assert (foreign.returncode, foreign.stdout) == (0, "")
