"""What others build and test from: the source archive."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from .conftest import ROOT

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
