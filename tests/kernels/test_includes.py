"""Which file of the kernels may include which: arrows run downward, and never in a circle."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2] / "kernels"
SRC = ROOT / "src"
# From the top: a file includes its own folder and those after it. Above them all are the C faces of ops,
# <group>/<op>.cpp, which alone include c_api.
ORDER = ("c_api", "video", "refine", "clusters", "cuts", "fit", "nodes", "masks", "images", "cuda", "cpu")
MAX_FILES = 26
KINDS = {".h", ".cpp", ".cu", ".cuh"}

_INCLUDE = re.compile(r'^#include "([^"]+)"', re.M)


def included(path: Path) -> list[Path]:
    """The files of ours that it includes, by their path from src or include."""
    found = []
    for name in _INCLUDE.findall(path.read_text()):
        file = next((base / name for base in (SRC, ROOT / "include") if (base / name).is_file()), None)
        assert file is not None, f"{path.relative_to(ROOT)}: {name} must be written from src or include"
        found.append(file)
    return found


def height(path: Path) -> int:
    """Of the layer that it is in; the public headers are the lowest."""
    if SRC not in path.parents:
        return 0
    is_face = path.suffix == ".cpp" and path.with_name(f"{path.stem}_cpu.cpp").exists()
    return len(ORDER) + 1 if is_face else len(ORDER) - ORDER.index(path.parent.name)


SOURCES = {path: included(path) for path in sorted(SRC.rglob("*")) if path.suffix in KINDS}


def test_arrows_run_downward():
    assert len(SOURCES) > 100
    up = [
        f"{path.relative_to(SRC)} includes {other.relative_to(ROOT)}"
        for path, others in SOURCES.items()
        for other in others
        if path.parent != other.parent and height(path) <= height(other)
    ]
    assert up == []


def test_there_is_no_circle():
    state: dict[Path, bool] = {}

    def visit(path: Path) -> None:
        if path in state:
            assert state[path], f"{path.relative_to(ROOT)} includes itself by way of others"
            return
        state[path] = False
        for other in SOURCES.get(path, []):
            visit(other)
        state[path] = True

    for path in SOURCES:
        visit(path)


def test_bindings_know_the_public_headers_alone():
    names = {name for path in (ROOT / "bindings").iterdir() for name in _INCLUDE.findall(path.read_text())}
    assert names == {"bindings.h", "patchcut/cuda.h", "patchcut/patchcut.h"}
    assert {path.name for path in (ROOT / "include").rglob("*.h")} == {"cuda.h", "patchcut.h"}


def test_folders_are_small():
    assert {path.name for path in SRC.iterdir()} == set(ORDER)
    files = {name: len(list((SRC / name).iterdir())) for name in ORDER}
    assert max(files.values()) <= MAX_FILES, files
