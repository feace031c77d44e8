"""What others build and test from: the source archive."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from .conftest import ROOT, run

pytestmark = pytest.mark.packaging

MAX_RESULTS_BYTES = 300_000


@pytest.fixture(scope="module")
def members(sdist: Path) -> dict[str, int]:
    """Sizes of the files in it, by path in the checkout."""
    with tarfile.open(sdist) as archive:
        return {entry.name.partition("/")[2]: entry.size for entry in archive if entry.isfile()}


def test_all_that_builds_and_tests_is_in_it(members: dict[str, int], tracked: list[Path]) -> None:
    tops = ("runtime", "export", "kernels", "cmake", "tests", "bench", "docs")
    pages = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "NOTICE")
    files = ("pyproject.toml", "CMakeLists.txt", "mkdocs.yml", *pages)
    names = {path.relative_to(ROOT).as_posix() for path in tracked}
    wanted = {name for name in names if name.partition("/")[0] in tops or name in files}
    assert len(wanted) > 100
    assert wanted <= members.keys()


def test_nothing_else_is_in_it(members: dict[str, int], tracked: list[Path]) -> None:
    names = {path.relative_to(ROOT).as_posix() for path in tracked}
    assert members.keys() - names == {"PKG-INFO"}


def test_recorded_rows_are_small(members: dict[str, int]) -> None:
    rows = {name: size for name, size in members.items() if name.startswith("bench/results/")}
    assert rows
    assert sum(rows.values()) <= MAX_RESULTS_BYTES


def test_a_wheel_is_built_of_it_alone(sdist: Path, tmp_path: Path) -> None:
    """Without an index, and of nothing outside the archive: pip unpacks and builds it elsewhere."""
    tools = tmp_path / "tools"
    run(sys.executable, "-m", "venv", str(tools))
    python = str(tools / "bin/python")
    run(python, "-m", "pip", "install", "-q", *build_requires(), "cmake>=3.22", "ninja")
    environment = {
        "PATH": f"{tools / 'bin'}:{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }
    environment |= {name: text for name, text in os.environ.items() if name.startswith(("CCACHE", "CMAKE"))}
    built = tmp_path / "built"
    words = [
        "wheel",
        "--no-build-isolation",
        "--no-deps",
        "-C",
        "cmake.define.PATCHCUT_CUDA=OFF",
        "-w",
        built,
    ]
    done = subprocess.run(
        [python, "-m", "pip", *words, sdist],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = built.glob("patchcut-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "patchcut/bundle/embedded/default.patchcut" in names
    assert any(name.startswith("patchcut_kernels/_C.") for name in names)


def build_requires() -> list[str]:
    """What pyproject.toml says that a build takes."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    (listed,) = re.findall(r"^requires = \[(.+)\]$", text, re.M)
    return re.findall(r'"([^"]+)"', listed)
