"""Choice of instruction set and threads."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import patchcut_kernels as pk
import pytest


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_isa_is_chosen_by_the_environment():
    for name in pk.available_isas():
        shown = run_python("import patchcut_kernels as pk; print(pk.get_isa())", PATCHCUT_ISA=name)
        assert shown.stdout.strip() == name, shown.stderr


def test_fastest_isa_is_the_default():
    shown = run_python("import patchcut_kernels as pk; print(pk.get_isa())", PATCHCUT_ISA="")
    assert shown.stdout.strip() == pk.available_isas()[-1]


def test_unknown_isa_is_an_error():
    shown = run_python("import patchcut_kernels as pk; pk.get_isa()", PATCHCUT_ISA="sse9")
    assert "[isa] PATCHCUT_ISA must be one of baseline" in shown.stderr
    with pytest.raises(ValueError, match=r"\[isa\] isa must be one of baseline.*, got sse9"):
        pk.set_isa("sse9")


def test_threads_are_chosen_by_the_environment():
    code = "import patchcut_kernels as pk; print(pk.get_threads())"
    assert run_python(code, PATCHCUT_THREADS="3").stdout.strip() == "3"
    assert (
        "[threads] PATCHCUT_THREADS must be 1 to 256, got 0" in run_python(code, PATCHCUT_THREADS="0").stderr
    )
    with pytest.raises(ValueError, match=r"\[set_threads\] count must be 1 to 256, got 0"):
        pk.set_threads(0)


def test_import_loads_no_framework():
    code = "import sys, patchcut_kernels; print([m for m in ('torch', 'onnx', 'cv2') if m in sys.modules])"
    assert run_python(code).stdout.strip() == "[]"


def test_callers_in_parallel(rng):
    features = [rng.standard_normal((200, 64)).astype(np.float32) for _ in range(8)]
    want = [pk.affinity(f) for f in features]
    with ThreadPoolExecutor(4) as executor:
        for _ in range(10):
            for got, expected in zip(executor.map(pk.affinity, features), want, strict=True):
                np.testing.assert_array_equal(got, expected)


def _affinity_sum(features: np.ndarray) -> float:
    return float(pk.affinity(features).sum())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process")
def test_works_after_a_fork(rng):
    features = rng.standard_normal((300, 64)).astype(np.float32)
    want = _affinity_sum(features)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(_affinity_sum, (features,)).get(timeout=30) == want
