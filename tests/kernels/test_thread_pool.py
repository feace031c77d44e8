"""The thread pool under ThreadSanitizer, apart from Python, which is not built with it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [
    "tests/kernels/thread_pool_stress.cpp",
    "kernels/src/cpu/thread_pool.cpp",
    "kernels/src/cpu/default_threads.cpp",
]
SECONDS = 3


def run_command(*command: str) -> subprocess.CompletedProcess[str]:
    # A sanitizer that is preloaded for Python cannot share a process with this one.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    environment["TSAN_OPTIONS"] = "halt_on_error=1"
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def compiler(tmp_path: Path) -> str:
    name = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if name is None:
        pytest.skip("there is no C++ compiler")
    empty = tmp_path / "empty.cpp"
    empty.write_text("int main() {}\n")
    built = run_command(name, "-fsanitize=thread", str(empty), "-o", str(tmp_path / "empty"))
    if built.returncode != 0:
        pytest.skip("this compiler has no ThreadSanitizer")
    if "unexpected memory mapping" in run_command(str(tmp_path / "empty")).stderr:
        pytest.skip("ThreadSanitizer does not run on this kernel (vm.mmap_rnd_bits)")
    return name


def test_callers_exceptions_and_thread_counts_at_once(compiler: str, tmp_path: Path):
    program = str(tmp_path / "thread_pool_stress")
    options = [
        "-std=c++17",
        "-O1",
        "-g",
        "-fsanitize=thread",
        "-pthread",
        "-Ikernels/include",
        "-Ikernels/src",
    ]
    built = run_command(compiler, *options, *SOURCES, "-o", program)
    assert built.returncode == 0, built.stderr
    ran = run_command(program, str(SECONDS))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("rounds\n")
