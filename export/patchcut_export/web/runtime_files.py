"""onnxruntime-web's files: of an npm package that is there, or fetched by npm and held to its checksum."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from patchcut_export.errors import ExportError

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
# As npm publishes it; what it fetches is not taken unless it has this.
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# WebAssembly, and WebGPU with it; each is a module, what that loads, and the code.
FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
# The package says "MIT" and has no text of it.
_LICENCE = "onnxruntime-web-licence.txt"
_FETCH_S = 600
_MOST_BYTES = 1 << 27  # of a file
_REMEDY = f"npm pack {PACKAGE}@{VERSION} elsewhere, and name the .tgz by --onnxruntime"


def copy_runtime(source: Path | None, to: Path, say: Callable[[str], None]) -> str:
    """Copies the files that a browser loads into a folder, and returns their version.

    Args:
        source: an unpacked npm package onnxruntime-web, or its .tgz; None has npm fetch the version that is
            known here.
        to: a folder; it is made.
        say: called with lines of progress, before anything is fetched.
    Raises:
        ExportError: the source is no such package, or npm cannot fetch it, or fetches another file.
    """
    to.mkdir(parents=True)
    with _fetched(say) if source is None else _given(source) as package:
        version = _version_of(package)
        for name in FILES:
            file = package / "dist" / name
            if not file.is_file():
                what = f"{PACKAGE} {version} has no dist/{name}"
                raise ExportError("onnxruntime", what, f"take version {VERSION}")
            shutil.copyfile(file, to / name)
    (to / "LICENSE.txt").write_text((resources.files(__package__) / _LICENCE).read_text("utf-8"), "utf-8")
    return version


@contextmanager
def _given(source: Path) -> Iterator[Path]:
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise ExportError("onnxruntime", f"{source} does not exist", "name the package's folder, or its .tgz")
    with tempfile.TemporaryDirectory() as folder:
        yield _unpacked(source, Path(folder))


@contextmanager
def _fetched(say: Callable[[str], None]) -> Iterator[Path]:
    npm = shutil.which("npm")
    if npm is None:
        what = f"needs {PACKAGE} {VERSION}, and there is no npm to fetch it"
        raise ExportError("onnxruntime", what, "install npm, or name an unpacked package by --onnxruntime")
    say(f"fetching {PACKAGE} {VERSION} with npm pack, 33 MB; --onnxruntime names one that is there")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--pack-destination", name]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=_FETCH_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ExportError("onnxruntime", f"npm pack failed: {error}", _REMEDY) from error
        archives = list(folder.glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            lines = done.stderr.strip().splitlines() or ["it says nothing"]
            raise ExportError("onnxruntime", f"npm pack failed: {lines[-1][:200]}", _REMEDY)
        check_integrity(archives[0])
        yield _unpacked(archives[0], folder / "unpacked")


def check_integrity(archive: Path) -> None:
    """Checks that a file is the one that was published as this version.

    Raises:
        ExportError: it is another.
    """
    digest = hashlib.sha512(archive.read_bytes()).digest()
    if not hmac.compare_digest("sha512-" + base64.b64encode(digest).decode(), INTEGRITY):
        what = f"what npm fetched is not {PACKAGE} {VERSION} as it was published"
        raise ExportError("onnxruntime", what, "look at npm's settings, and try again")


def _unpacked(archive: Path, folder: Path) -> Path:
    """The package in a .tgz, of which only what is wanted is unpacked, by its own names and nothing else."""
    wanted = {f"package/dist/{name}": f"dist/{name}" for name in FILES} | {
        "package/package.json": "package.json"
    }
    (folder / "dist").mkdir(parents=True)
    try:
        with tarfile.open(archive, "r:gz") as packed:
            for member in packed:
                if member.isfile() and member.name in wanted and member.size <= _MOST_BYTES:
                    file = packed.extractfile(member)
                    assert file is not None
                    with file, (folder / wanted[member.name]).open("wb") as out:
                        shutil.copyfileobj(file, out)
    except (tarfile.TarError, EOFError, OSError) as error:
        what = f"{archive} is no npm package: {error}"
        raise ExportError("onnxruntime", what, f"npm pack {PACKAGE}@{VERSION} makes one") from error
    return folder


def _version_of(package: Path) -> str:
    try:
        said = json.loads((package / "package.json").read_text("utf-8"))
        name, version = said["name"], said["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{package} has no package.json that can be read"
        raise ExportError("onnxruntime", what, f"name the npm package {PACKAGE}") from error
    if name != PACKAGE:
        raise ExportError("onnxruntime", f"{package} is the npm package {name!r}", f"name {PACKAGE}")
    return str(version)
