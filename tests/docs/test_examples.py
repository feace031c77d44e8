"""Each of docs/examples runs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import patchcut
import pytest
from patchcut import Result, Segmenter

from tests.runtime import toy_bundle as toy
from tests.runtime.concepts import semantic_toy
from tests.runtime.results import boxes_result
from tests.runtime.sources.recordings import record

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
SAMPLE = Path(patchcut.__file__).parent / "samples/coffee.jpg"


BY_PYTHON = """
import sys, numpy, patchcut
frame = numpy.frombuffer(sys.stdin.buffer.read(), numpy.uint8).reshape(240, 320, 3)
result = patchcut.load()(frame)
for score, box, area in zip(result.scores, result.boxes, result.areas):
    print(score, *box, area)
"""


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy.write(tmp_path_factory.mktemp("bundle") / "toy.patchcut"))


def test_every_example_is_tested_and_named_in_the_docs() -> None:
    names = sorted(path.name for path in EXAMPLES.iterdir() if path.is_file())
    assert names == [
        "batch_videos.py",
        "draw_box.py",
        "embed.cpp",
        "robot_loop.py",
        "show_thing.py",
        "triton_client.py",
    ]
    page = (EXAMPLES.parent / "examples.md").read_text("utf-8")
    assert [name for name in names if f"docs/examples/{name}" not in page] == []


def test_the_robots_loop_never_acts_on_an_old_mask(bundle: str) -> None:
    """A camera that pauses for longer than the deadline, and then goes on."""
    robot = load("robot_loop")
    image = cv2.imread(str(SAMPLE))
    came_s: dict[int, float] = {}

    def camera() -> Iterator[np.ndarray]:
        for index in range(40):
            time.sleep(1.0 if index == 20 else 0.03)
            came_s[index] = time.monotonic()
            yield np.roll(image, 5 * index, axis=1)

    acted: list[tuple[float, Result | None]] = []
    robot.run(camera(), lambda result: acted.append((time.monotonic(), result)), bundle=bundle)
    given = [(now_s, result) for now_s, result in acted if result is not None]
    assert given, "it sees"
    # a frame waits a little for the segmenter, which its age does not count
    assert all(now_s - came_s[result.index] < robot.DEADLINE_S + 0.5 for now_s, result in given)
    indexes = [result.index for _, result in given]
    assert indexes == sorted(indexes) and indexes[-1] > 20, "it goes on after the pause"
    blind = [now_s for now_s, result in acted if result is None and now_s > given[0][0]]
    assert len(blind) >= 3, "and stops while it is blind"
    apart_s = np.diff([now_s for now_s, _ in acted])
    assert np.median(apart_s) == pytest.approx(robot.PERIOD_S, abs=0.02)


def test_the_robot_steers(capsys: pytest.CaptureFixture[str]) -> None:
    robot = load("robot_loop")
    for result in (None, boxes_result([]), boxes_result([(100, 20, 180, 100)])):
        robot.steer(result)
    assert capsys.readouterr().out.splitlines() == ["stop", "stop", "turn +0.40, 16% of the view is object"]


def test_a_batch_of_videos_goes_on_where_it_was_stopped(
    tmp_path: Path, bundle: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = load("batch_videos")
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        record(videos / name, tuple(index / 25 for index in range(5)))
    write, written = batch.OutputFolder.write, []

    def stopped_in_b(self: object, result: Result) -> None:
        written.append((result.name, result.index))
        if written[-1] == ("b.mp4", 2):
            raise KeyboardInterrupt
        write(self, result)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(batch.OutputFolder, "write", stopped_in_b)
        batch.run(str(videos), str(out), bundle=bundle)
    assert capsys.readouterr().out == "a.mp4: 5 frames\n"
    assert batch.run(str(videos), str(out), bundle=bundle) == 0
    assert capsys.readouterr().out == "a.mp4: done already\nb.mp4: 5 frames\nc.mp4: 5 frames\n"
    for name in "abc":
        assert len((out / f"jsonl/{name}.jsonl").read_text().splitlines()) == 5
        with patchcut.open_source(out / f"overlay/{name}.mp4") as video:
            assert len(list(video)) == 5
    (videos / "b.mp4").write_bytes(b"")
    assert batch.run(str(videos), str(out), bundle=bundle) == 1
    assert "[b.mp4] is empty" in capsys.readouterr().err


def test_a_thing_is_shown_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    showing = load("show_thing")
    bundle, saved = semantic_toy.bundle(tmp_path / "toy.patchcut"), tmp_path / "mine.patchcut"
    frames, seen = [semantic_toy.scene("mug", seed=i) for i in range(12)], []
    monkeypatch.setattr(cv2, "selectROI", lambda *args, **how: (28, 28, 56, 56))
    monkeypatch.setattr(cv2, "imshow", lambda window, picture: seen.append(picture.copy()))
    monkeypatch.setattr(cv2, "waitKey", lambda ms: ord("s") if len(seen) == 3 else -1)
    showing.run(frames, bundle=str(bundle), saved=str(saved))
    assert len(seen) == 12 and "mine.patchcut has thing 1" in capsys.readouterr().out
    result = patchcut.load(saved, head="concepts")(frames[0])
    assert result.labels[result.label_map[56, 56]] == "thing 1"
    assert len((EXAMPLES / "show_thing.py").read_text().splitlines()) <= 50


@pytest.mark.skipif(not hasattr(Segmenter, "track"), reason="needs Segmenter.track")
def test_a_box_is_drawn_and_the_object_followed(
    tmp_path: Path, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing = load("draw_box")
    video = record(tmp_path / "x.mp4", tuple(index / 25 for index in range(6)), size_wh=(96, 64))
    shown: list[np.ndarray] = []
    monkeypatch.setattr(cv2, "selectROI", lambda *args, **how: (20, 10, 40, 30))
    monkeypatch.setattr(cv2, "imshow", lambda window, picture: shown.append(picture.copy()))
    monkeypatch.setattr(cv2, "waitKey", lambda ms: ord("q") if len(shown) == 4 else -1)
    drawing.run(str(video), bundle=bundle)
    assert [picture.shape for picture in shown] == [(64, 96, 3)] * 4
    monkeypatch.setattr(cv2, "selectROI", lambda *args, **how: (0, 0, 0, 0))
    drawing.run(str(video), bundle=bundle)
    assert len(shown) == 4, "nothing was drawn"
    assert len((EXAMPLES / "draw_box.py").read_text().splitlines()) <= 44


def test_a_cpp_program_shares_its_frame_with_python(tmp_path: Path) -> None:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    paths = sysconfig.get_paths()
    if compiler is None or not Path(paths["include"], "Python.h").is_file():
        pytest.skip("needs a C++ compiler and Python's headers")
    folder, version = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDVERSION")
    if not list(Path(folder).glob(f"libpython{version}.*")):
        pytest.skip(f"this Python has no libpython{version} to link with")
    program = tmp_path / "embed"
    command = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", str(EXAMPLES / "embed.cpp")]
    command += [f"-I{paths['include']}", f"-L{folder}", f"-lpython{version}", f"-Wl,-rpath,{folder}"]
    subprocess.run([*command, "-ldl", "-lm", "-o", str(program)], check=True)

    frame = cv2.resize(cv2.imread(str(SAMPLE)), (320, 240)).tobytes()
    told, wanted = (
        subprocess.run(words, input=frame, capture_output=True, check=True).stdout.decode().splitlines()
        for words in ([program, sys.executable, "320", "240"], [sys.executable, "-c", BY_PYTHON])
    )
    assert told[0] == "frame shared"
    numbers, by_python = (np.array([line.split() for line in lines], float) for lines in (told[1:], wanted))
    assert len(by_python) > 0
    np.testing.assert_allclose(numbers, by_python, atol=1e-4)

    for words, said in (([sys.executable, "320", "240"], "less than a frame"), ([], "usage")):
        short = subprocess.run([program, *words], input=b"x", capture_output=True, check=False)
        assert short.returncode == 2 and said in short.stderr.decode()
