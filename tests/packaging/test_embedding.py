"""What programs in C and C++ get out of the wheel: libpatchcut, its header, its CMake package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from .conftest import ROOT, run

pytestmark = pytest.mark.packaging

EMBEDDING = ROOT / "tests/embedding"


@pytest.fixture(scope="module")
def cmake(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The machine's CMake, or one from the package index."""
    if found := shutil.which("cmake"):
        return found
    folder = tmp_path_factory.mktemp("cmake")
    run(sys.executable, "-m", "venv", str(folder))
    run(str(folder / "bin/python"), "-m", "pip", "install", "-q", "cmake>=3.22,<5")
    return str(folder / "bin/cmake")


@pytest.fixture(scope="module")
def package(clean_python: Path) -> dict[str, Path]:
    """The folders that the installed package names."""
    told = {
        option: run(str(clean_python), "-m", "patchcut_kernels", f"--{option}")
        for option in ("cmakedir", "includedir", "libdir")
    }
    return {option: Path(folder.removesuffix("\n")) for option, folder in told.items()}


def build(cmake: str, source: Path, folder: Path, **definitions: object) -> Path:
    options = [f"-D{name}={value}" for name, value in definitions.items()]
    run(cmake, "-S", str(source), "-B", str(folder), *options)
    run(cmake, "--build", str(folder))
    return folder


@pytest.fixture(scope="module")
def programs(cmake: str, package: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of tests/embedding, built against the wheel."""
    folder = tmp_path_factory.mktemp("build")
    return build(cmake, EMBEDDING, folder, patchcut_DIR=package["cmakedir"])


def test_the_folders_hold_what_they_say(package: dict[str, Path]) -> None:
    assert (package["cmakedir"] / "patchcutConfig.cmake").is_file()
    assert (package["libdir"] / "libpatchcut.so").is_file()
    headers = {path.name: path for path in package["includedir"].rglob("*") if path.is_file()}
    assert headers.keys() == {"patchcut.h", "cuda.h"}
    for name, path in headers.items():
        assert path.parent == package["includedir"] / "patchcut"
        assert path.read_text() == (ROOT / "kernels/include/patchcut" / name).read_text()


@pytest.mark.parametrize("options", [(), ("--lib",), ("--cmakedir", "--libdir"), ("--cmakedir", "x")])
def test_wrong_options_are_an_error(clean_python: Path, options: tuple[str, ...]) -> None:
    command = [str(clean_python), "-m", "patchcut_kernels", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "usage: python -m patchcut_kernels" in done.stderr
    assert "--cmakedir" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_c_program(programs: Path, wheel: Path) -> None:
    affinity, error, devices, version = run(str(programs / "plain_c")).splitlines()
    assert affinity == "1 0 0 1"
    assert error == "1 [affinity] sizes must be at least 0, got -2"
    assert re.fullmatch(r"0 devices: \[cuda\] .+|[1-9]\d* devices: ", devices)
    assert wheel.name.startswith(f"patchcut-{version}-")


@pytest.fixture(scope="module")
def picture(clean_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the features of a packaged picture, and with what Python makes of them."""
    folder = tmp_path_factory.mktemp("picture")
    run(str(clean_python), str(EMBEDDING / "by_python.py"), str(folder), cwd=folder)
    return folder


def test_a_program_gets_what_python_gets(programs: Path, picture: Path) -> None:
    settings = [str(number) for number in json.loads((picture / "settings.json").read_text())]
    said = run(str(programs / "segment"), str(picture), *settings).splitlines()
    wanted = {path.stem: np.load(path) for path in (picture / "wanted").glob("*.npy")}
    for name in ("clusters", "centroids", "assignment", "labels", "confidence", "ids", "mean_confidence"):
        assert np.unique(wanted[name]).size > 1
        assert (picture / f"{name}.bin").read_bytes() == wanted[name].tobytes(), name
    regions = [
        f"region {i + 1}: label {label}, {area} pixels, {' '.join(f'{value:g}' for value in box)}"
        for i, (label, area, box) in enumerate(
            zip(wanted["label"], wanted["area"], wanted["boxes_xyxy"], strict=True)
        )
    ]
    assert len(regions) > 1
    assert [line for line in said if line.startswith("region ")] == regions


def test_a_program_is_told_what_is_wrong(programs: Path, picture: Path) -> None:
    settings = [str(number) for number in json.loads((picture / "settings.json").read_text())]
    said = run(str(programs / "segment"), str(picture), *settings).splitlines()
    errors = [line for line in said if line.startswith("status ")]
    assert errors[0] == "status 1: [gcn_forward] sizes must be at least 0, got -4"
    assert errors[1].startswith("status 1: [upsample_argmax] ")
    # Without CUDA the build says how to get it; with CUDA there is no device of this number.
    assert errors[2].startswith(("status 3: [upsample_argmax] ", "status 4: [upsample_argmax] "))


def test_the_example_of_the_docs(
    cmake: str,
    package: dict[str, Path],
    picture: Path,
    tmp_path: Path,
    docs_block: Callable[[str, str], str],
) -> None:
    (tmp_path / "cut.cpp").write_text(docs_block("embedding.md", "cpp"))
    head = "cmake_minimum_required(VERSION 3.22)\nproject(docs LANGUAGES CXX)\n"
    (tmp_path / "CMakeLists.txt").write_text(head + docs_block("embedding.md", "cmake"))
    folder = build(cmake, tmp_path, tmp_path / "build", patchcut_DIR=package["cmakedir"])
    features = np.load(picture / "features.npy").tobytes()
    mask = subprocess.run([folder / "cut"], input=features, capture_output=True, check=True).stdout
    want = np.load(picture / "wanted/cut.npy")
    assert 0 < want.mean() < 1
    assert mask == want.tobytes()


def test_threads_and_forks_of_a_program(programs: Path) -> None:
    assert run(str(programs / "callers")) == "0 wrong\n"


def test_a_moved_package_is_found_where_it_is(cmake: str, package: dict[str, Path], tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere/patchcut_kernels"
    shutil.copytree(package["libdir"], moved)
    folder = build(cmake, EMBEDDING, tmp_path / "build", CMAKE_PREFIX_PATH=moved / "cmake")
    assert f"patchcut_DIR:PATH={moved / 'cmake'}" in (folder / "CMakeCache.txt").read_text()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LD_")}
    environment["LD_DEBUG"] = "libs"
    ran = subprocess.run([folder / "plain_c"], env=environment, capture_output=True, text=True, check=True)
    assert str(moved / "libpatchcut.so") in ran.stderr
    assert str(package["libdir"]) not in ran.stderr


@pytest.mark.parametrize(
    ("version", "found"), [("0.1", True), ("0.1.0", True), ("0.2", False), ("1.0", False)]
)
def test_the_version_is_checked(
    cmake: str, package: dict[str, Path], tmp_path: Path, version: str, found: bool
) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(user LANGUAGES C)\n"
        f"find_package(patchcut {version} CONFIG REQUIRED)\n"
    )
    command = [cmake, "-S", str(tmp_path), "-B", str(tmp_path / "b"), f"-Dpatchcut_DIR={package['cmakedir']}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == found, done.stderr
    assert found or "compatible with requested version" in " ".join(done.stderr.split())
