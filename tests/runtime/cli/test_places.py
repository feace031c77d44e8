"""Whole runs in odd places: names that are no text, folders inside their source, runs that were killed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from patchcut.output.manifest import recorded_files

from tests.runtime.sources.files import encoded, picture, write_video

Patchcut = Callable[..., int]
MAIN = [sys.executable, "-c", "import patchcut.cli.app as cli; cli.main()", "run"]
LOCALES = [
    {"LC_ALL": "C"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "C.UTF-8"},
]


def results(out: bytes | Path) -> list[bytes]:
    """Files below a folder but for its record, as bytes."""
    found = []
    for folder, _, names in os.walk(os.fsencode(out)):
        found += [os.path.relpath(os.path.join(folder, name), os.fsencode(out)) for name in names]  # noqa: PTH118
    return sorted(name for name in found if not name.startswith(b".patchcut"))


@pytest.mark.parametrize("locale", LOCALES)
def test_a_bundle_in_any_place(toy_bundle: Path, tmp_path: Path, locale: dict[str, str]) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xe9\x1b[2J.patchcut"))
    path.write_bytes(toy_bundle.read_bytes())
    main = ["-c", "import patchcut.cli.app as cli; cli.main()", "info", "--json", path]
    environment = {**os.environ, **locale}
    done = subprocess.run(
        [sys.executable, *main], env=environment, capture_output=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    told = json.loads(done.stdout)
    assert told["path"].endswith("/b%E9\x1b[2J.patchcut") and told["machine"]["engine"] == "onnxruntime"


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("name", [b"v\xe9", "vü".encode(), b"v\n\x1b[31m"])
def test_names_in_any_locale(toy_bundle: Path, tmp_path: Path, locale: dict[str, str], name: bytes) -> None:
    """The current folder, the source, what is in it and the output folder have that name."""
    here = os.fsencode(tmp_path) + b"/" + name
    os.makedirs(here + b"/" + name)  # noqa: PTH103 - pathlib takes no bytes
    video = write_video(tmp_path / "x.avi", frames=3).read_bytes()
    for suffix, data in ((b".avi", video), (b".jpg", encoded(".jpg"))):
        Path(os.fsdecode(here + b"/" + name + b"/" + name + suffix)).write_bytes(data)
    args = [*map(os.fsencode, MAIN), name, b"--bundle", os.fsencode(toy_bundle), b"--out", b"out" + name]
    args += [b"--save", b"overlay,json", b"--json"]
    done = subprocess.run(
        args, cwd=here, env={**os.environ, **locale}, capture_output=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["event"] for line in lines].count("frame") == 4
    assert len(results(here + b"/out" + name)) == 2 + 1 + 3
    for line in lines:
        json.dumps(line, ensure_ascii=False).encode()


def test_one_photo_ends_no_batch(
    run_cli: Patchcut, toy_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    names = ["a.jpg", "x" * 251 + ".jpg", "z.jpg", os.fsdecode(b"caf\xe9.jpg"), "ü" * 125 + ".jpg"]
    for name in names:
        (photos / name).write_bytes(encoded(".jpg"))
    (photos / "wide.png").write_bytes(encoded(".png", np.zeros((2, 66_000, 3), np.uint8)))
    save = "overlay,masks,labels,json"
    assert run_cli("run", photos, "--bundle", toy_bundle, "--out", out, "--save", save) == 1
    said = capfd.readouterr().out
    assert "6 frames" in said and "1 problem" in said
    assert "[wide.png] is not saved as overlay: cannot encode 66000x2 pixels" in said
    words = [name.partition(b"/")[0] for name in results(out)]
    assert [words.count(word) for word in (b"overlay", b"labels", b"json")] == [5, 6, 6]


@pytest.mark.parametrize("out", [".", "out", "deep/er/out"])
def test_results_inside_the_source(
    run_cli: Patchcut, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.png"):
        Path(name).write_bytes(encoded(".jpg"))
    args = ["--bundle", toy_bundle, "--out", out, "--save", "overlay,labels"]
    assert run_cli("run", ".", *args) == 0
    first = results(Path(out))
    for option in ("--overwrite", "--resume", "--overwrite"):
        assert run_cli("run", tmp_path, *args, option) == 0
        assert results(Path(out)) == first
    assert (
        run_cli(
            "run", *sorted(path.name for path in Path().iterdir() if path.name[0] != "."), *args, "--resume"
        )
        == 0
    )
    assert results(Path(out)) == first
    assert run_cli("run", "**/*.jpg", *args, "--overwrite") == 0
    assert [name for name in results(Path(out)) if name.startswith(b"overlay")] == [b"overlay/a.jpg"]


def test_a_run_that_was_killed_is_resumed(toy_bundle: Path, tmp_path: Path, run_cli: Patchcut) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for index in range(400):
        (photos / f"{index}.jpg").write_bytes(encoded(".jpg", picture(seed=index)))
    args = [photos, "--bundle", toy_bundle, "--out", out, "--save", "overlay,masks,json"]
    process = subprocess.Popen([*MAIN, *map(str, args)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (out / "json" / "20.json").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait(timeout=60)
    done = len(list((out / "json").iterdir()))
    assert 20 < done < 400
    before = {path: path.stat().st_mtime_ns for path in (out / "json").iterdir()}
    assert run_cli("run", *args) == 1  # there are results already
    assert run_cli("run", *args, "--resume", "--head", "cc") == 1  # not of these settings
    assert run_cli("run", *args, "--resume") == 0
    kept = sum(path.stat().st_mtime_ns == time_ns for path, time_ns in before.items())
    assert done - 1 <= kept <= done
    assert len(list((out / "json").iterdir())) == 400
    assert set(results(out)) == set(map(os.fsencode, recorded_files(out)))
    assert not [path for path in (out / ".patchcut").iterdir() if "partial" in path.name]


def test_two_runs_into_one_folder(toy_bundle: Path, tmp_path: Path) -> None:
    video, out = write_video(tmp_path / "x.avi", frames=20), tmp_path / "out"
    args = [*MAIN, str(video), "--bundle", str(toy_bundle), "--out", str(out), "--overwrite"]
    runs = [subprocess.Popen(args, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    capture = cv2.VideoCapture(str(out / "overlay/x.mp4"))
    count = 0
    while capture.read()[0]:
        count += 1
    assert count == 20
    for index in range(20):
        assert json.loads((out / f"json/x/{index:06d}.json").read_text())["index"] == index
    assert set(results(out)) == set(map(os.fsencode, recorded_files(out)))


@pytest.mark.parametrize(("suffix", "frames"), [(".jpg", 1), (".png", 1), (".avi", 3), (".gif", 2)])
def test_what_is_piped_in(
    run_cli: Patchcut,
    toy_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    suffix: str,
    frames: int,
) -> None:
    from PIL import Image

    path = tmp_path / f"x{suffix}"
    if suffix == ".avi":
        write_video(path, frames=frames)
    elif suffix == ".gif":
        still = [Image.fromarray(picture(seed=seed)) for seed in range(frames)]
        still[0].save(path, save_all=True, append_images=still[1:])
    else:
        path.write_bytes(encoded(suffix))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert run_cli("run", "-", "--bundle", toy_bundle, "--out", tmp_path / "out", "--save", "json") == 0
    capfd.readouterr()
    where = tmp_path / "out/json" / ("stdin" if frames > 1 else "")
    assert len(list(where.iterdir())) == frames
    assert all(b"stdin" in name for name in results(tmp_path / "out"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "[stdin] is empty (0 bytes)"),
        (b"hello", "[stdin] cannot be opened as a video"),
        (bytes(100_000), "[stdin] cannot be opened as a video"),
        (b"\xff\xd8\xff" + bytes(1000), "[stdin] is "),
        (None, "[stdin] is closed; pipe a photo or video in: patchcut run - < FILE"),
    ],
)
def test_what_cannot_be_piped_in(
    run_cli: Patchcut,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    data: bytes | None,
    said: str,
) -> None:
    stdin: Any = None if data is None else io.TextIOWrapper(io.BytesIO(data))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert run_cli("run", "-") == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert said in line
