"""An allocation that fails is an error of the call, at whatever step: nothing ends the process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import patchcut_kernels as pk
import pytest

from tests.kernels.c_calls import CALLS

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="a sanitizer has its own allocator")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the allocator is replaced as in glibc")
def test_every_allocation_may_fail(tmp_path: Path) -> None:
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("there is no C compiler")
    allocator = tmp_path / "failing_malloc.so"
    source = Path(__file__).with_name("failing_malloc.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", str(source), "-o", str(allocator)], check=True)
    ran = subprocess.run(
        [sys.executable, "-m", "tests.kernels.allocations"],
        cwd=ROOT,
        env={**os.environ, "LD_PRELOAD": str(allocator)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    failures = dict(line.split() for line in ran.stdout.splitlines())
    assert failures.keys() == CALLS.keys()
    assert sum(map(int, failures.values())) > 100


LIMITED = """
import resource, sys
import numpy as np
import patchcut_kernels as pk
features = np.zeros((3000, 64), np.float32)
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + int(sys.argv[1]),) * 2)
try:
    pk.ncut(features, 2)
except MemoryError:
    print("MemoryError")
"""


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="a sanitizer reserves terabytes")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system has no /proc")
@pytest.mark.parametrize("room", [0, 1 << 16, 1 << 18, 1 << 20, 1 << 23])
def test_a_limit_of_memory_is_a_memory_error(room: int) -> None:
    """Threads do not start then, and have no room for what they keep."""
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, str(room)],
        env={**os.environ, "PATCHCUT_THREADS": "4"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, ran.stdout) == (0, "MemoryError\n"), ran.stderr


IDS = np.int32([[0, 1], [2, 2]])


@pytest.mark.parametrize("count", [65537, 2**31 - 1, 2**62])
def test_counts_that_no_map_can_hold_are_refused(count: int) -> None:
    for call in (lambda: pk.rle_encode(IDS, count), lambda: pk.region_stats(IDS, count)):
        with pytest.raises(
            ValueError, match=r"^\[\w+\] count must be at most the 4 pixels of a map, or 65536"
        ):
            call()


def test_large_masks_of_few_runs_are_refused_before_there_is_memory_for_them() -> None:
    rle = {"size": [2**15, 2**16 - 4], "counts": [5]}
    with pytest.raises(ValueError, match=r"^\[rle_decode\] counts must sum to 2147352576 pixels, got 5"):
        pk.rle_decode(rle)
    lengths = pk.RunLengths((2**15, 2**15), np.uint32([7, 9]), np.int64([0] + [2] * 5000))
    with pytest.raises(ValueError, match=r"^\[rle_decode\] counts must sum to 5368709120000 pixels, got 16"):
        pk.rle_decode(lengths)
    for counts in ([2**31], [2**32 - 1, 2**32 - 1], b"0" * 5):
        with pytest.raises(ValueError, match=r"^\[rle_decode\] counts of item 0 must sum to 4 pixels"):
            pk.rle_decode({"size": [2, 2], "counts": counts})


def test_images_of_more_pixels_than_an_index_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^\[upsample_argmax\] size_hw must be below 2\^31 - 1 pixels"):
        pk.upsample_argmax(np.ones((1, 1), np.float32), (1, 1), (2**16, 2**15))
    with pytest.raises(ValueError, match=r"^\[preprocess\] size must be below 2\^31 - 1 pixels"):
        pk.preprocess(np.zeros((2, 2, 3), np.uint8), 2**31 - 1, (0, 0, 0), (1, 1, 1))
