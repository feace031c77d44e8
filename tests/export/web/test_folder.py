"""The folder of `patchcut export web`: what is in it, and what is refused."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="needs patchcut[export]")
pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

from patchcut_export.errors import ExportError
from patchcut_export.web import runtime_files
from patchcut_export.web.runtime_files import FILES, VERSION, check_integrity, copy_runtime
from tests.runtime import toy_bundle as toy

Patchcut = Callable[..., int]


def pretended(folder: Path, *, name: str = "onnxruntime-web", lacking: str = "") -> Path:
    """An npm package with the right names and nothing in them."""
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": name, "version": "9.9.9"}))
    for file in FILES:
        if file != lacking:
            (folder / "dist" / file).write_text(file)
    return folder


def packed(folder: Path, to: Path) -> Path:
    with tarfile.open(to, "w:gz") as archive:
        archive.add(folder, "package")
    return to


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return toy.write(tmp_path / "toy.patchcut")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return pretended(tmp_path / "package")


def test_what_is_in_the_folder(tmp_path: Path, bundle: Path, package: Path, run_cli: Patchcut) -> None:
    out = tmp_path / "out"
    for archive in (package, packed(package, tmp_path / "x.tgz")):
        words = ("export", "web", "--bundle", bundle, "--out", out, "--onnxruntime", archive)
        assert run_cli(*map(str, words)) == 0
        names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
        assert {f"page/onnxruntime/{name}" for name in FILES} < names
        assert {"index.html", "isolate.js", "page/app.js", "page/worker.js", "page/model/model.onnx"} < names
        assert "page/samples/coffee.jpg" in names and "page/index.html" not in names
    index = (out / "index.html").read_text()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', index)
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy and "http" not in policy
    assert "onnxruntime" not in (out / "page/engine.js").read_text().replace("onnxruntime-web", "")
    about = json.loads((out / "page/model/about.json").read_text())
    assert about["onnxruntime_web"] == "9.9.9" and about["labels"] == list(toy.LABELS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "package", "toy.patchcut", "x.tgz"]


def test_the_page_is_the_servers_but_for_its_engine(tmp_path: Path) -> None:
    from importlib import resources

    shared = {one.name for one in (resources.files("patchcut_server") / "page").iterdir()}
    own = {one.name for one in (resources.files("patchcut_export.web") / "page").iterdir()}
    assert own & shared == {"engine.js"}
    texts = [
        (resources.files(package) / "page/engine.js").read_text("utf-8")
        for package in ("patchcut_server", "patchcut_export.web")
    ]
    exports = [set(re.findall(r"^export (?:async function|const) (\w+)", text, re.M)) for text in texts]
    assert exports[0] == exports[1] == {"open", "segment", "stream", "teach", "forget"}


def test_a_folder_of_something_else_is_left_alone(
    tmp_path: Path, bundle: Path, package: Path, run_cli: Patchcut, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "letter.txt").write_text("dear")
    words = ("export", "web", "--bundle", str(bundle), "--onnxruntime", str(package), "--out")
    assert run_cli(*words, str(out)) == 1
    assert "holds files of something else; name another folder" in " ".join(capfd.readouterr().err.split())
    assert (out / "letter.txt").read_text() == "dear"
    assert run_cli(*words, str(tmp_path / "none/out")) == 1


def test_what_fails_leaves_nothing(
    tmp_path: Path, bundle: Path, run_cli: Patchcut, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = pretended(tmp_path / "wrong", name="left-pad")
    out = tmp_path / "out"
    words = ("export", "web", "--bundle", bundle, "--out", out, "--onnxruntime", wrong)
    assert run_cli(*map(str, words)) != 0
    assert "'left-pad'; name onnxruntime-web" in " ".join(capfd.readouterr().err.split())
    assert not out.exists() and not list(tmp_path.glob(".partial-*"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "none", "does not exist"),
        (lambda folder: pretended(folder / "x", lacking=FILES[2]), f"9.9.9 has no dist/{FILES[2]}"),
        (lambda folder: folder, "has no package.json that can be read"),
    ],
)
def test_packages_that_are_none(tmp_path: Path, make: Callable[[Path], Path], words: str) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ExportError, match=re.escape(words)):
        copy_runtime(make(tmp_path / "in"), tmp_path / "to", print)


def test_archives_that_are_none(tmp_path: Path, package: Path) -> None:
    good = packed(package, tmp_path / "good.tgz").read_bytes()
    for data in (b"", b"no archive", good[: len(good) // 2], gzip.compress(b"x" * 2000)):
        (tmp_path / "bad.tgz").write_bytes(data)
        shutil.rmtree(tmp_path / "to", ignore_errors=True)
        with pytest.raises(ExportError):
            copy_runtime(tmp_path / "bad.tgz", tmp_path / "to", print)


def test_an_archive_writes_nothing_outside(tmp_path: Path, package: Path) -> None:
    archive = tmp_path / "bad.tgz"
    with tarfile.open(archive, "w:gz") as out:
        for name in ("../../escaped", "package/dist/../../../escaped", "package/dist/other.js"):
            out.addfile(tarfile.TarInfo(name), io.BytesIO())
        out.add(package, "package")
    copy_runtime(archive, tmp_path / "to", print)
    assert not list(tmp_path.rglob("escaped")) and not list((tmp_path / "to").rglob("other.js"))


def test_what_npm_fetches_must_be_what_was_published(
    tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program in npm's place packs something else: it is not taken, and was announced."""
    archive = packed(package, tmp_path / "x.tgz")
    with pytest.raises(ExportError, match="is not onnxruntime-web"):
        check_integrity(archive)
    commands = tmp_path / "bin"
    commands.mkdir()
    npm = commands / "npm"
    npm.write_text(f'#!/bin/sh\n/bin/cp {archive} "$5/onnxruntime-web-{VERSION}.tgz"\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(commands))
    said: list[str] = []
    with pytest.raises(ExportError, match="is not onnxruntime-web"):
        copy_runtime(None, tmp_path / "to", said.append)
    assert said == [
        f"fetching onnxruntime-web {VERSION} with npm pack, 33 MB; --onnxruntime names one that is there"
    ]
    npm.write_text("#!/bin/sh\necho 'npm error 404' >&2\nexit 1\n")
    with pytest.raises(ExportError, match="npm pack failed: npm error 404; npm pack onnxruntime-web"):
        copy_runtime(None, tmp_path / "to2", said.append)
    npm.unlink()
    with pytest.raises(ExportError, match="there is no npm to fetch it; install npm"):
        copy_runtime(None, tmp_path / "to3", said.append)
    assert len(said) == 2, "what is not fetched is not announced"


def test_the_real_package_has_the_known_checksum() -> None:
    assert re.fullmatch(r"sha512-[\w+/]{86}==", runtime_files.INTEGRITY)
