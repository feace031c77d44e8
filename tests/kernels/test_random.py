"""random.h is no op: a program prints its numbers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from patchcut_kernels import reference

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    path = tmp_path_factory.mktemp("random") / "random_numbers"
    source = ROOT / "tests/kernels/random_numbers.cpp"
    options = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'kernels/src'}"]
    subprocess.run([compiler, *options, str(source), "-o", str(path)], check=True)
    return path


@pytest.mark.parametrize(("seed", "stream"), [(0, 0), (0, 1), (1, 0), (2**64 - 1, 2**63), (2**32, 2**40)])
def test_native_numbers_are_those_of_the_reference(program: Path, seed: int, stream: int):
    indices = [0, 1, 2, 1000, 2**32, 2**64 - 1]
    printed = subprocess.run(
        [program, *map(str, [seed, stream, *indices])], capture_output=True, text=True, check=True
    ).stdout
    bits, uniform = zip(*(line.split() for line in printed.splitlines()), strict=True)
    assert [int(word) for word in bits] == reference.random_bits(seed, stream, indices).tolist()
    assert [float(word) for word in uniform] == reference.uniform(seed, stream, indices).tolist()


def test_first_numbers_are_those_of_splitmix64():
    """State 0 is where the published generator with seed 0 starts."""
    step = np.uint64(0x9E3779B97F4A7C15)
    first = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    with np.errstate(over="ignore"):
        states = (np.arange(3, dtype=np.uint64) + np.uint64(1)) * step
    assert reference.mix_bits(states).tolist() == first


def test_numbers_are_uniform_and_streams_are_apart():
    streams = np.stack(
        [reference.uniform(seed, stream, np.arange(4096)) for seed in (0, 1) for stream in (0, 1)]
    )
    assert streams.min() >= 0
    assert streams.max() < 1
    for numbers in streams:
        counts = np.histogram(numbers, 16, (0, 1))[0]
        assert ((counts - 256) ** 2 / 256).sum() < 45  # chi-square of 15 degrees of freedom: 1 in 10,000
    correlations = np.corrcoef(np.vstack([streams, streams[:, ::-1]]))
    assert np.abs(correlations[np.triu_indices(8, 1)]).max() < 0.08
