from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import patchcut
import pytest
from patchcut.cli import app as cli
from patchcut.cli import run as run_module
from patchcut.errors import install_hint
from patchcut.output.folder import OutputFolder
from patchcut.sources.arrays import FrameSource
from patchcut.stages import Extractor

Patchcut = Callable[..., int]


@pytest.fixture
def photos(tmp_path: Path, photo: np.ndarray) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("one [a].jpg", "two.jpg", "three.png"):
        assert cv2.imwrite(str(folder / name), photo)
    return folder


@pytest.fixture
def video(tmp_path: Path, photo: np.ndarray) -> Path:
    path = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, photo.shape[1::-1])
    for shift in range(8):
        writer.write(np.roll(photo, 20 * shift, axis=1))
    writer.release()
    return path


def files(folder: Path) -> list[str]:
    """Every file below `folder`, also hidden ones, but for the record of runs that are over."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if not re.search(r"\.patchcut/run-\w+\.jsonl$", name))


def test_photos_to_a_folder(
    run_cli: Patchcut, toy_bundle: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run_cli("run", photos, "--bundle", toy_bundle, "--out", out, "--save", "overlay,labels,json") == 0
    names = ["one [a]", "three", "two"]
    patterns = ("json/{}.json", "labels/{}.png", "overlay/{}.jpg")
    assert files(out) == [pattern.format(name) for pattern in patterns for name in names]
    said, errors = capfd.readouterr()
    assert errors == ""
    for word in ("one [a].jpg", "backbone", "p95 ms", "3 frames", "written: overlay, labels, json", str(out)):
        assert word in said


def test_photos_from_a_lowest_score_on(
    run_cli: Patchcut, toy_bundle: Path, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for lowest, found in ((0, True), (0.99, False)):
        assert run_cli("run", photos, "--bundle", toy_bundle, "--min-score", lowest, "--json") == 0
        end = json.loads(capfd.readouterr().out.splitlines()[-1])
        assert bool(end["regions"]) is found


def test_several_photos_by_name(run_cli: Patchcut, toy_bundle: Path, photos: Path, tmp_path: Path) -> None:
    args = ["--bundle", toy_bundle, "--out", tmp_path / "out", "--save", "labels"]
    assert run_cli("run", photos / "two.jpg", photos / "three.png", *args) == 0
    assert files(tmp_path / "out") == ["labels/three.png", "labels/two.png"]


def test_nothing_is_written_unless_asked_for(
    run_cli: Patchcut, toy_bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    assert run_cli("run", photos, "--bundle", toy_bundle) == 0
    assert files(tmp_path / "cwd") == []
    assert run_cli("run", photos, "--bundle", toy_bundle, "--save", "labels", "--limit", 1) == 0
    assert files(tmp_path / "cwd") == ["patchcut-out/labels/one [a].png"]


def test_video_with_every_and_limit(run_cli: Patchcut, toy_bundle: Path, video: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = ["--bundle", toy_bundle, "--out", out, "--save", "overlay,labels", "--every", 3, "--limit", 2]
    assert run_cli("run", video, *args) == 0
    assert files(out) == ["labels/walk/000000.png", "labels/walk/000003.png", "overlay/walk.mp4"]
    capture = cv2.VideoCapture(str(out / "overlay/walk.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 2
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10 / 3, rel=0.01)


def test_json_is_all_that_stdout_gets(
    run_cli: Patchcut, toy_bundle: Path, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.jpg").write_bytes((photos / "two.jpg").read_bytes()[:-50])
    assert run_cli("run", photos, "--bundle", toy_bundle, "--json") == 1
    said, errors = capfd.readouterr()
    start, *frames, end = map(json.loads, said.splitlines())
    assert errors == ""
    assert start["event"] == "start"
    assert start["segmenter"]["engine"] == "onnxruntime"
    assert [(f["event"], f["name"]) for f in frames] == [
        ("frame", "one [a].jpg"),
        ("frame", "three.png"),
        ("frame", "two.jpg"),
    ]
    assert frames[0]["regions"]
    assert set(frames[0]["regions"][0]) == {"box_xyxy", "score", "label", "area"}
    assert (end["event"], end["frames"], end["interrupted"], end["error"]) == ("end", 3, False, None)
    assert end["regions"] == sum(len(frame["regions"]) for frame in frames)
    assert list(end["stages"]) == ["read", "preprocess", "backbone", "head", "masks", "save", "frame"]
    assert end["problems"] == ["[broken.jpg] is cut short: its end is missing; copy or download it again"]


def test_skipped_photos_are_told_and_fail_the_run(
    run_cli: Patchcut, toy_bundle: Path, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(7):
        (photos / f"bad{number}.jpg").write_bytes(b"")
    corrupt = bytearray((photos / "two.jpg").read_bytes())
    corrupt[len(corrupt) // 2 : len(corrupt) // 2 + 40] = b"\x33" * 40  # libjpeg writes of it to stderr
    (photos / "two.jpg").write_bytes(corrupt)
    assert run_cli("run", photos, "--bundle", toy_bundle) == 1
    said, errors = capfd.readouterr()
    assert errors == ""
    assert "3 frames" in said
    assert "7 problems:" in said
    assert "[bad0.jpg] is empty" in said
    assert "[bad6.jpg]" not in said
    assert "... and 2 more" in said


def test_nothing_processed_is_a_failure(run_cli: Patchcut, toy_bundle: Path, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    assert run_cli("run", tmp_path, "--bundle", toy_bundle) == 1


@pytest.mark.parametrize(
    ("args", "status", "line"),
    [
        (["missing.jpg"], 1, "patchcut: [missing.jpg] does not exist; check the name"),
        (["997"], 1, "patchcut: [camera 997] cannot be opened"),
        (["PHOTOS", "--out", "FILE"], 1, "FILE is a file; choose a folder"),
        (["PHOTOS", "--out", "FULL", "--save", "json"], 1, "holds results already; choose another folder"),
        (["PHOTOS", "--save", "mask"], 2, "patchcut: [save] must be among overlay, masks, labels, "),
        (["PHOTOS", "--size", "100"], 2, "patchcut: [size] must be one of the bundle's sizes"),
        (["PHOTOS", "--device", "tpu"], 2, "patchcut: [device] must be"),
        (["PHOTOS", "--bundle", "missing.patchcut"], 1, "patchcut: [bundle] cannot open missing.patchcut"),
        (["PHOTOS", "--bundle", "missing"], 1, 'patchcut: [bundle] no embedded bundle is called "missing"'),
    ],
)
def test_errors_are_one_line(
    run_cli: Patchcut,
    toy_bundle: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    args: list[str],
    status: int,
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("")
    Path("FULL/json").mkdir(parents=True)
    Path("FULL/json/x.json").write_text("{}")
    args = [str(photos) if arg == "PHOTOS" else arg for arg in args]
    bundle = [] if "--bundle" in args else ["--bundle", toy_bundle]
    assert run_cli("run", *args, *bundle) == status
    said, errors = capfd.readouterr()
    assert said == ""
    assert line in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("args", [["run"], ["run", "x", "--limit", "0"], ["run", "x", "--colour"], ["walk"]])
def test_wrong_usage(run_cli: Patchcut, args: list[str]) -> None:
    assert run_cli(*args) == 2


def test_output_is_tried_before_the_model_is_loaded(
    run_cli: Patchcut, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*args: object, **options: object) -> NoReturn:
        pytest.fail("the model was loaded")

    monkeypatch.setattr(patchcut, "load", load)
    (tmp_path / "file").write_text("")
    assert run_cli("run", photos, "--out", tmp_path / "file") == 1
    assert run_cli("run", photos, "--show") == 1


def test_window_needs_an_opencv_with_windows(
    run_cli: Patchcut, photos: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:                           NONE\n")
    assert run_cli("run", photos, "--show") == 1
    assert "[show] this OpenCV was built without windows; pip uninstall" in capfd.readouterr().err


def test_window_needs_a_screen(
    run_cli: Patchcut, photos: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:                           QT5\n")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert run_cli("run", photos, "--show") == 1
    assert "[show] there is no screen" in capfd.readouterr().err


class FakeScreen:
    """OpenCV's windows, with somebody who presses q at the third frame."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[Any] = []
        monkeypatch.setenv("DISPLAY", ":0")
        monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:                           QT5\n")
        monkeypatch.setattr(cv2, "namedWindow", lambda *args: None)
        monkeypatch.setattr(cv2, "imshow", lambda title, image: self.shown.append(image))
        monkeypatch.setattr(cv2, "waitKey", lambda ms: ord("q") if len(self.shown) == 3 else -1)
        monkeypatch.setattr(cv2, "getWindowProperty", lambda *args: 1.0)
        monkeypatch.setattr(cv2, "destroyWindow", lambda title: self.shown.append(None))


def test_window_shows_frames_until_q(
    run_cli: Patchcut, toy_bundle: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = FakeScreen(monkeypatch)
    assert run_cli("run", video, "--bundle", toy_bundle, "--show") == 0
    assert [image is None for image in screen.shown] == [False, False, False, True]


def test_window_and_folder_share_one_drawing(
    run_cli: Patchcut, toy_bundle: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeScreen(monkeypatch)
    drawn = []
    real_overlay = patchcut.Result.overlay

    def overlay(result: patchcut.Result, *args: Any, **options: Any) -> np.ndarray:
        drawn.append(result.index)
        return real_overlay(result, *args, **options)

    monkeypatch.setattr(patchcut.Result, "overlay", overlay)
    args = ["--bundle", toy_bundle, "--out", tmp_path / "out", "--save", "overlay"]
    assert run_cli("run", video, *args, "--show") == 0
    assert drawn == [0, 1, 2]


def test_dropped_frames_of_a_live_source_are_told(
    run_cli: Patchcut,
    toy_bundle: Path,
    photo: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Live(FrameSource):
        def __init__(self) -> None:
            super().__init__([photo] * 200, kind="camera")
            self.live = self.own_pace = True

    monkeypatch.setattr(run_module, "open_source", lambda *_, **__: Live())
    assert run_cli("run", "0", "--bundle", toy_bundle) == 0
    assert "frames dropped: the source is faster than this machine" in capfd.readouterr().out
    assert run_cli("run", "0", "--bundle", toy_bundle, "--json") == 0
    end = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert end["frames"] + end["dropped"] == 200 and end["frames"] < 200


def test_what_native_code_says_of_a_frame_is_muted(
    run_cli: Patchcut,
    toy_bundle: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    real_run = Extractor.run

    def run(extractor: Extractor, batch: int) -> patchcut.Features:
        os.write(2, b"Corrupt JPEG data\n")
        print("a word of Python", file=sys.stderr)
        return real_run(extractor, batch)

    monkeypatch.setattr(Extractor, "run", run)
    assert run_cli("run", photos, "--bundle", toy_bundle, "--limit", 1) == 0
    assert capfd.readouterr().err == "a word of Python\n"


def test_full_disk_in_the_middle(
    run_cli: Patchcut,
    toy_bundle: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    real_write = Path.write_bytes

    def write(path: Path, data: bytes) -> int:
        if len([name for name in files(tmp_path / "out") if not name.startswith(".patchcut")]) >= 2:
            raise OSError(28, "No space left on device")
        return real_write(path, data)

    monkeypatch.setattr(Path, "write_bytes", write)
    args = ["--bundle", toy_bundle, "--out", tmp_path / "out", "--save", "labels,json"]
    assert run_cli("run", photos, *args) == 1
    said, errors = capfd.readouterr()
    assert "1 frame, " in said
    assert errors.startswith("patchcut: [output] cannot write ")
    assert errors.endswith(": No space left on device; free some space, or choose another folder\n")
    assert files(tmp_path / "out") == ["json/one [a].json", "labels/one [a].png"]


def test_ctrl_c_in_the_middle(
    run_cli: Patchcut,
    toy_bundle: Path,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    real_write = OutputFolder.write

    def write(folder: OutputFolder, frame: patchcut.Frame, *args: Any) -> None:
        if frame.index == 3:
            raise KeyboardInterrupt
        real_write(folder, frame, *args)

    monkeypatch.setattr(OutputFolder, "write", write)
    args = ["--bundle", toy_bundle, "--out", tmp_path / "out", "--save", "overlay,json"]
    assert run_cli("run", video, *args) == 130
    said, errors = capfd.readouterr()
    assert errors == ""
    assert "3 frames" in said
    assert "stopped after " in said
    assert files(tmp_path / "out") == [*(f"json/walk/00000{i}.json" for i in range(3)), "overlay/walk.mp4"]
    assert cv2.VideoCapture(str(tmp_path / "out/overlay/walk.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_the_process(
    toy_bundle: Path, photo: np.ndarray, tmp_path: Path, number: signal.Signals
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    ok, data = cv2.imencode(".jpg", photo)
    assert ok
    for index in range(2000):
        (photos / f"{index}.jpg").write_bytes(data.tobytes())
    command = [sys.executable, "-c", "import patchcut.cli.app as cli; cli.main()", "run", str(photos)]
    command += ["--bundle", str(toy_bundle), "--out", str(out), "--save", "overlay,labels,json"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - a shell's & ignores it
    )
    deadline = time.monotonic() + 60
    while not (out / "json/5.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors == ""
    assert "stopped after " in said
    written = files(out)
    assert not [name for name in written if "partial" in name]
    assert 6 <= len([name for name in written if name.startswith("json/")]) < 2000
    for name in written:
        if name.endswith(".json"):
            assert json.loads((out / name).read_text())
        else:
            assert cv2.imread(str(out / name)) is not None


def test_reader_of_json_may_leave(toy_bundle: Path, photos: Path) -> None:
    command = [sys.executable, "-c", "import patchcut.cli.app as cli; cli.main()", "run", str(photos)]
    command += ["--bundle", str(toy_bundle), "--json"]
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = subprocess.Popen(command, stdout=write_end, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 1


def test_info(run_cli: Patchcut, toy_bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli("info", toy_bundle, "-v") == 0
    said, errors = capfd.readouterr()
    assert errors == ""
    for word in ("backbone", "licence", "trained on", "background, first, second", "onnxruntime", "# Toy"):
        assert word in said


def test_info_as_json(run_cli: Patchcut, toy_bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli("info", toy_bundle, "--json") == 0
    facts = json.loads(capfd.readouterr().out)
    with patchcut.open_bundle(toy_bundle) as bundle:
        assert facts["name"] == bundle.spec.name
        assert facts["backbones"]["toy"]["licence"] == bundle.spec.backbone.licence
        assert "initializers" not in facts["backbones"]["toy"]["graphs"][0]
    assert facts["machine"]["engine"] == "onnxruntime"
    assert {"precision", "weights", "threads", "kernel_threads"} <= set(facts["machine"])
    assert facts["card"] == "# Toy\n"


def test_info_as_json_says_how_to_repeat_each_accuracy(
    run_cli: Patchcut, embedded_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("info", embedded_bundle, "--json") == 0
    report = json.loads(capfd.readouterr().out)["heads"][0]["report"]
    assert report and all(row["command"] for row in report)


@pytest.mark.parametrize("as_json", [False, True])
def test_the_embedded_bundles_are_listed(
    run_cli: Patchcut, capfd: pytest.CaptureFixture[str], as_json: bool
) -> None:
    assert run_cli("info", "--list", *["--json"] * as_json) == 0
    said = capfd.readouterr().out
    for name, path in patchcut.bundle.embedded_bundles().items():
        assert name in said and ("bytes" in said if as_json else f"{path.stat().st_size / 1e6:.1f}" in said)
    assert "gnn (objects)" in said and "224x224 int8" in said
    if as_json:
        assert [entry["name"] for entry in json.loads(said)] == list(patchcut.bundle.embedded_bundles())


def test_info_takes_names(run_cli: Patchcut, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli("info", "default", "--json") == 0
    assert json.loads(capfd.readouterr().out)["path"].endswith("default.patchcut")
    assert run_cli("info", "defualt") == 1
    said = capfd.readouterr().err
    assert said.startswith('patchcut: [bundle] no embedded bundle is called "defualt"') and "default" in said
    assert run_cli("info", "default", "--list") == 2


def test_info_of_a_damaged_bundle(
    run_cli: Patchcut, toy_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.patchcut").write_bytes(toy_bundle.read_bytes()[:-100])
    assert run_cli("info", tmp_path / "cut.patchcut") == 1
    errors = capfd.readouterr().err
    assert len(errors.splitlines()) == 1
    assert "is damaged" in errors


def test_version(run_cli: Patchcut, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli("--version") == 0
    assert capfd.readouterr().out == f"patchcut {patchcut.__version__}\n"


def test_help_says_the_exit_status_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, patchcut.cli.app as cli\ntry: cli.main()\nexcept SystemExit: print(sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert "Exit status" in done.stdout
    said = " ".join(word for word in done.stdout.split() if word != "│")
    for text in ("without it and --save nothing is written", "to patchcut-out where --out is not given"):
        assert text in said
    loaded = done.stdout.splitlines()[-1]
    for module in ("numpy", "cv2", "onnxruntime", "safetensors", "torch", "patchcut_export"):
        assert f"'{module}'" not in loaded


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of other packages, of which one works; the others, and `export` here, lack what they need."""
    (tmp_path / "plugin_works.py").write_text(
        "import typer\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def one(name: str, loud: bool = False): print('hello', name, loud)\n"
        "@app.command()\n"
        "def two(): raise typer.Exit(7)\n"
        "@app.command()\n"
        "def three(): import a_package_that_is_not_there\n"
    )
    (tmp_path / "plugin_lacks.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [EntryPoint(n, f"plugin_{n}:app", "patchcut.commands") for n in ("works", "lacks")]
    points.append(EntryPoint("export", "plugin_lacks:app", "patchcut.commands"))
    monkeypatch.setattr(cli, "entry_points", lambda group: points)
    monkeypatch.setattr(cli.app, "registered_commands", list(cli.app.registered_commands))


@pytest.mark.usefixtures("plugins")
def test_commands_of_other_packages(run_cli: Patchcut, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli("works", "one", "--loud", "you") == 0
    assert capfd.readouterr().out == "hello you True\n"
    assert run_cli("works", "two") == 7
    assert run_cli("works", "four") == 2
    capfd.readouterr()
    assert run_cli("works", "one", "--help") == 0
    assert "patchcut works one" in capfd.readouterr().out


@pytest.mark.usefixtures("plugins")
def test_command_that_lacks_a_package(run_cli: Patchcut, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli("--help") == 0
    assert "plugin_lacks" not in sys.modules
    assert "lacks" in capfd.readouterr().out
    remedies = {"lacks": "install what plugin_lacks needs", "works": "install what plugin_works needs"}
    remedies["export"] = install_hint("export")
    for args in (["lacks", "--help"], ["works", "three"], ["export"]):
        assert run_cli(*args) == 1
        assert capfd.readouterr().err == (
            f"patchcut: [{args[0]}] lacks a package (No module named 'a_package_that_is_not_there'); "
            f"{remedies[args[0]]}\n"
        )
