"""A process that may have few threads or little memory is told so; it neither hangs nor blames the bundle."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SEGMENT = """
import sys
import numpy, patchcut, re, resource
import onnxruntime
import patchcut.engines.onnxruntime, patchcut.heads.gnn, patchcut.segmenter
more = int(sys.argv[2])
if more:
    used = int(re.search(r"VmSize:\\s*(\\d+)", open("/proc/self/status").read())[1]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (used + (more << 20),) * 2)
try:
    segmenter = patchcut.load(threads=int(sys.argv[1]))
    print("result", segmenter(numpy.zeros((64, 64, 3), numpy.uint8)).label_map.shape, end=" by ")
    print(segmenter.describe().threads)
except (patchcut.PatchcutError, MemoryError) as error:  # a kernel's MemoryError is Python's own
    print(type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def few_threads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that lets a program run as many threads as $THREAD_LIMIT says."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    library, source = tmp_path_factory.mktemp("limit") / "few.so", Path(__file__).with_name("few_threads.cpp")
    built = [compiler, "-std=c++17", "-shared", "-fPIC", "-o", library, source, "-ldl"]
    done = subprocess.run(built, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("the library does not compile here")
    return library


def said(threads: int, more_mb: int = 0, **environment: str) -> str:
    quiet = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SEGMENT, str(threads), str(more_mb)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **quiet, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 8])
def test_where_threads_are_few_one_works_alone_and_nobody_waits(few_threads: Path, limit: int) -> None:
    text = said(4, LD_PRELOAD=str(few_threads), THREAD_LIMIT=str(limit))
    assert text.startswith(f"result (64, 64) by {4 if limit == 8 else 1}")


def test_one_thread_needs_no_other(few_threads: Path) -> None:
    assert said(1, LD_PRELOAD=str(few_threads), THREAD_LIMIT="0").startswith("result")


@pytest.mark.parametrize("more_mb", [30, 50, 70, 90, 110, 400])
def test_little_memory_is_not_the_bundles_fault(more_mb: int) -> None:
    text = said(1, more_mb)
    assert "foreign" not in text and "damaged" not in text
    if more_mb == 400:
        assert text.startswith("result")
    if more_mb == 30:
        assert "needs more memory than this process may have; allow it more" in text
