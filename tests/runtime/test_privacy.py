"""Nothing that patchcut runs opens a socket, or writes a file that was not asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from patchcut.telemetry import kept_out

from tests.import_graph import PACKAGES, imports_of

SOURCE = Path(__file__).with_name("file_and_socket_log.cpp")
RUN = "import sys; from patchcut.cli.app import main; main()"


@pytest.fixture(scope="module")
def log_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that logs what a program writes, the sockets it opens and the hosts it looks up."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    library = tmp_path_factory.mktemp("log") / "log.so"
    built = subprocess.run(
        [compiler, "-std=c++17", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode != 0:
        pytest.skip(f"the log does not compile here: {built.stderr.splitlines()[:1]}")
    return library


class Watched:
    """Runs Python in a home of its own and keeps what it did."""

    def __init__(self, library: Path, folder: Path) -> None:
        self.home, self.work = folder / "home", folder / "work"
        self.work.mkdir()
        self._log = folder / "calls"
        # torch, once imported by another test, leaves the folder of its compiler's cache in the environment
        chosen = ("ORT_", "XDG_", "TORCHINDUCTOR_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(chosen)}
        quiet = {"PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(self.work)}
        preload = {"LD_PRELOAD": str(library), "CALL_LOG": str(self._log), "HOME": str(self.home)}
        self._environment = {**kept, **quiet, **preload}

    def __call__(self, code: str, *words: object, **environment: str) -> list[str]:
        """The calls, such as "socket network" or "write /path", but those below `work` and to /dev/null."""
        self._log.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.work,
            env={**self._environment, **environment},
        )
        assert done.returncode == 0, done.stderr
        lines = self._log.read_text("utf-8").splitlines() if self._log.is_file() else []
        expected = (f"write {self.work}", "write /dev/null", "write /proc/self/")
        return [line for line in lines if not line.startswith(expected)]


@pytest.fixture
def watched(log_library: Path, tmp_path: Path) -> Watched:
    return Watched(log_library, tmp_path)


def test_the_log_sees_what_is_looked_for(watched: Watched) -> None:
    code = """
import os, pathlib, socket
home = pathlib.Path.home()
home.mkdir()
(home / "id").write_text("me")
os.close(os.open(home / "low", os.O_CREAT | os.O_WRONLY))
socket.socket().close()
socket.getaddrinfo("localhost", None)
"""
    home = watched.home
    seen = watched(code)
    for call in (
        f"write {home}",
        f"write {home}/id",
        f"write {home}/low",
        "socket network",
        "lookup localhost",
    ):
        assert call in seen


def test_a_run_of_the_embedded_bundle_keeps_to_itself(
    watched: Watched, photo: np.ndarray, embedded_bundle: Path
) -> None:
    picture = watched.work / "photo.png"
    cv2.imwrite(str(picture), photo)
    saved = ("--save", "overlay,masks,labels,json")
    assert watched(RUN, "run", picture, "--out", watched.work / "out", *saved) == []
    assert (watched.work / "out/json/photo.json").is_file()
    assert not watched.home.exists()


def test_the_doctor_opens_nothing_and_writes_nothing(watched: Watched) -> None:
    pytest.importorskip("openvino", reason="needs patchcut[openvino]")
    look = "from patchcut.doctor import examine; assert examine(patience_s=600).can_run"
    assert watched(look, PATCHCUT_CACHE="") == []
    assert not watched.home.exists()


@pytest.mark.parametrize("head", ["cc", "kmeans"])
def test_no_head_and_no_refiner_opens_anything(
    watched: Watched, photo: np.ndarray, toy_bundle: Path, head: str
) -> None:
    picture = watched.work / "photo.jpg"
    cv2.imwrite(str(picture), photo)
    words = ("--bundle", toy_bundle, "--head", head, "--mode", "scene", "--refine", "guided", "--json")
    assert watched(RUN, "run", picture, *words) == []
    assert not watched.home.exists()


def test_openvino_tells_nobody_and_writes_its_cache_alone(
    watched: Watched, photo: np.ndarray, toy_bundle: Path
) -> None:
    pytest.importorskip("openvino", reason="needs patchcut[openvino]")
    picture = watched.work / "photo.png"
    cv2.imwrite(str(picture), photo)
    words = ("--bundle", toy_bundle, "--engine", "openvino", "--precision", "fp32", "--json")
    assert watched(RUN, "run", picture, *words, PATCHCUT_CACHE="off") == []
    assert watched(RUN, "run", picture, *words, PATCHCUT_CACHE="") == []
    assert not watched.home.exists()
    watched.home.mkdir()
    seen = watched(RUN, "run", picture, *words, PATCHCUT_CACHE="")
    cache = f"write {watched.home}/.cache"
    assert seen and {line.split()[0] for line in seen} == {"write"}
    assert all(line.startswith(f"{cache}/patchcut") for line in seen if line != cache)


@pytest.mark.parametrize("package", ["av", "PIL.Image", "pillow_heif"])
def test_no_optional_package_opens_anything(watched: Watched, package: str) -> None:
    pytest.importorskip(package)
    assert watched(f"import {package}") == []


EXPORT = """
import sys
from pathlib import Path
from patchcut_export.backbones.timm_models import import_timm
from patchcut_export.backbones.spec import ViTSpec
from patchcut_export.backbones.weights import Provenance
from patchcut_export.bundles.builder import BackbonePlan, build_bundle
vit = import_timm().create_model("test_vit", pretrained=False, num_classes=0, img_size=96)
plan, origin = BackbonePlan(ViTSpec("test_vit"), sizes=(96,)), Provenance("", "", "", "")
build_bundle(Path(sys.argv[1]), plan, vit.state_dict(), origin, name="tiny", say=print)
"""


def test_making_a_bundle_keeps_to_itself(watched: Watched) -> None:
    for package in ("torch", "onnxscript", "onnxslim"):
        pytest.importorskip(package, reason="needs patchcut[export]")
    seen = watched(EXPORT, watched.work / "tiny.patchcut")
    assert (watched.work / "tiny.patchcut").is_file()
    assert not watched.home.exists()
    # onnx names a file by uuid1, for which libuuid asks the system for the card's address: nothing is sent
    by_uuid = {"socket local", "socket network", "connect local", "write /var/lib/libuuid/clock.txt"}
    assert set(seen) <= by_uuid


@pytest.mark.parametrize("chosen", ["0", "1", ""])
def test_who_chose_the_telemetry_of_onnxruntime_keeps_the_choice(
    monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    from patchcut.engines.onnxruntime import import_onnxruntime

    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", chosen)
    import_onnxruntime()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == chosen
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    import_onnxruntime()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_openvino_is_imported_in_one_place() -> None:
    importers = {
        module
        for package in PACKAGES
        for module, names in imports_of(package).items()
        for name in names
        if name.split(".")[0] in ("openvino", "openvino_telemetry")
    }
    assert not importers  # `import_openvino` imports it by name


def test_a_package_that_is_here_already_stays() -> None:
    with kept_out("json"):
        import json
    with kept_out("patchcut_none"), pytest.raises(ImportError):
        __import__("patchcut_none")
    assert json is sys.modules["json"] and "patchcut_none" not in sys.modules


def test_onnxruntime_is_imported_in_one_place() -> None:
    importers = {
        module
        for package in PACKAGES
        for module, names in imports_of(package).items()
        for name in names
        if name.split(".")[0] == "onnxruntime"
    }
    # which import its quantizer and its converter, after the one place has imported it
    assert importers <= {"patchcut_export.precision.int8", "patchcut_export.precision.fp16"}
