"""What pyproject.toml promises, without building anything."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT

ENGINES = {"openvino", "tensorrt", "tensorrt-rtx", "pycuda"}
EXTRAS = {
    "cpu",
    "gpu",
    "video",
    "heic",
    "rerun",
    "export",
    "parquet",
    "scale",
    "server",
    "concepts",
    "test",
    "docs",
    "dev",
} | ENGINES
# Which bring a whole runtime; docs runs nothing of patchcut, and the others add to one that is there.
WHOLE = {"cpu", "gpu", "export", "concepts", "test", "dev"}
OFFLINE = {"torch", "timm", "onnx", "onnxscript", "onnxslim"}


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    if sys.version_info < (3, 11):
        pytest.skip("tomllib came with Python 3.11")
    import tomllib

    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def expand(pyproject: dict[str, Any], extra: str | None) -> set[str]:
    """Names of the packages that an extra brings, those of the extras it names included."""
    project = pyproject["project"]
    wanted = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    names: set[str] = set()
    for requirement in wanted:
        name, _, inner = re.match(r"([\w.-]+)(\[([\w,-]+)\])?", requirement).groups()  # type: ignore[union-attr]
        if name == "patchcut":
            names |= set().union(*(expand(pyproject, each) for each in inner.split(",")))
        else:
            names.add(name.lower())
    return names


def test_extras(pyproject: dict[str, Any]) -> None:
    assert set(pyproject["project"]["optional-dependencies"]) == EXTRAS


@pytest.mark.parametrize("extra", sorted(WHOLE))
def test_no_extra_brings_two_opencvs_or_two_runtimes(pyproject: dict[str, Any], extra: str) -> None:
    names = expand(pyproject, extra)
    assert len([name for name in names if name.startswith("opencv")]) == 1
    assert len([name for name in names if name.startswith("onnxruntime")]) == 1


@pytest.mark.parametrize("extra", [None, "cpu", "gpu", *sorted(ENGINES)])
def test_the_device_needs_nothing_of_the_export(pyproject: dict[str, Any], extra: str | None) -> None:
    assert not expand(pyproject, extra) & OFFLINE


def test_the_tests_need_no_torch(pyproject: dict[str, Any]) -> None:
    assert "torch" not in expand(pyproject, "test")


def test_every_requirement_has_both_bounds(pyproject: dict[str, Any]) -> None:
    project = pyproject["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    loose = [r for group in groups for r in group if "patchcut[" not in r and not re.search(r">=.+,<", r)]
    assert loose == []


def floors(pyproject: dict[str, Any], extra: str | None) -> dict[str, str]:
    """The lowest version of each package that an extra brings, those of the extras it names included."""
    project = pyproject["project"]
    wanted = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    found: dict[str, str] = {}
    for requirement in wanted:
        name, _, inner, version = re.match(r"([\w.-]+)(\[([\w,-]+)\])?(?:>=([\d.]+))?", requirement).groups()  # type: ignore[union-attr]
        if name == "patchcut":
            for each in inner.split(","):
                found |= floors(pyproject, each)
        else:
            found[name.lower()] = version
    return found


def padded(version: str) -> list[int]:
    return [int(number) for number in [*version.split("."), "0", "0"][:3]]


def test_the_lowest_versions_are_those_that_are_promised(pyproject: dict[str, Any]) -> None:
    promised = floors(pyproject, None) | floors(pyproject, "test")
    lines = (ROOT / "tests/packaging/lowest.txt").read_text("utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert tested.keys() == promised.keys()
    for name, version in promised.items():
        assert padded(tested[name]) == padded(version), name


@pytest.mark.parametrize("extra", ["gpu", "export", "dev"])
def test_a_package_has_one_floor(pyproject: dict[str, Any], extra: str) -> None:
    promised = floors(pyproject, None) | floors(pyproject, "test")
    other = floors(pyproject, extra)
    other["onnxruntime"] = other.pop("onnxruntime-gpu", other.get("onnxruntime", ""))
    for name in other.keys() & promised.keys():
        assert other[name] == promised[name], name


def test_one_version_everywhere(pyproject: dict[str, Any]) -> None:
    version = pyproject["project"]["version"]
    assert f'__version__ = "{version}"' in (ROOT / "runtime/patchcut/__init__.py").read_text()
    assert f"VERSION {version} " in (ROOT / "CMakeLists.txt").read_text()
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_licence_files_are_there(pyproject: dict[str, Any]) -> None:
    for name in pyproject["project"]["license-files"]:
        assert (ROOT / Path(name)).stat().st_size > 0
