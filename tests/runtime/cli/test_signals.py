"""Ctrl-C, SIGTERM and SIGHUP at any moment of a run: quiet, a known status, and whole files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from patchcut.cli import signals

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FRAMES = 600


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video that takes seconds to segment."""
    path = tmp_path_factory.mktemp("video") / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25.0, (320, 240))
    rows, columns = np.mgrid[:240, :320]
    for frame in range(FRAMES):
        inside = (rows - 120) ** 2 + (columns - 40 - frame % 200) ** 2 < 50**2
        writer.write(np.where(inside[..., None], (40, 200, 240), (90, 60, 30)).astype(np.uint8))
    writer.release()
    return path


@pytest.fixture
def start(toy_bundle: Path, video: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a run of the video to `tmp_path`/out; signals reach it as they would from a terminal."""
    running: list[subprocess.Popen[str]] = []

    def start(*words: object, ignored: tuple[signal.Signals, ...] = ()) -> subprocess.Popen[str]:
        def prepare() -> None:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

        command = [sys.executable, "-m", "patchcut", "run", video, "--bundle", toy_bundle, *words]
        command += ["--out", tmp_path / "out", "--save", "overlay,json"]
        running.append(
            subprocess.Popen(
                list(map(str, command)),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONFAULTHANDLER": "1"},
                preexec_fn=prepare,  # noqa: PLW1509
            )
        )
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def wait_until(true: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 60) -> None:
    """Waits; when the process ends or hangs before, the test fails with what it said and where it stood."""
    deadline = time.monotonic() + seconds
    while not (happened := true()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    if not happened:
        process.send_signal(signal.SIGABRT)
        said, errors = process.communicate(timeout=60)
        pytest.fail(f"status {process.returncode}\n{said}\n{errors}")


def hears(process: subprocess.Popen[str]) -> bool:
    """Whether Python has come to our first lines, which hear SIGTERM."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    (caught,) = [int(line.split()[1], 16) for line in lines if line.startswith("SigCgt")]
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def frames_of_whole_files(out: Path) -> int:
    """How many frames the overlay video has; every file in the folder is whole."""
    for path in out.rglob("*.json"):
        assert json.loads(path.read_text())
    videos = list((out / "overlay").glob("[!.]*")) if (out / "overlay").is_dir() else []
    frames = 0
    for path in videos:
        capture = cv2.VideoCapture(str(path))
        while capture.read()[0]:
            frames += 1
        assert frames
    return frames


@pytest.mark.parametrize("number", SIGNALS)
def test_in_the_middle_what_is_written_is_finished(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path, number: signal.Signals
) -> None:
    process = start()
    wait_until(lambda: len(list((tmp_path / "out").rglob("*.json"))) >= 5, process)
    process.send_signal(number)
    said, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    assert "stopped after " in said
    frames = len(list((tmp_path / "out/json").rglob("*.json")))
    assert 5 <= frames_of_whole_files(tmp_path / "out") <= frames < FRAMES
    assert not list((tmp_path / "out").rglob(".partial*"))


def test_at_any_moment_it_ends_quietly(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """From our first line, through imports and the work, to the interpreter's last."""
    statuses = []
    for turn, delay_s in enumerate((0, 0.01, 0.03, 0.06, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 1.6)):
        process = start("--limit", 20, "--overwrite")
        wait_until(lambda process=process: hears(process), process)  # type: ignore[misc]
        time.sleep(delay_s)
        process.send_signal(SIGNALS[turn % 3])
        said, errors = process.communicate(timeout=60)
        assert errors == "", f"after {delay_s} s: {errors}"
        assert process.returncode in (0, 130) and "Traceback" not in said
        statuses.append(process.returncode)
        frames_of_whole_files(tmp_path / "out")
    assert statuses[0] == 130


def test_signals_while_it_finishes_leave_it_the_time(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start()
    wait_until(lambda: len(list((tmp_path / "out").rglob("*.json"))) >= 5, process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert (process.communicate(timeout=60)[1], process.returncode) == ("", 130)
    assert frames_of_whole_files(tmp_path / "out") >= 5


def test_what_nohup_ignores_stays_ignored(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("--limit", 10, ignored=(signal.SIGHUP, signal.SIGINT))
    wait_until(lambda: hears(process), process)
    for _ in range(20):
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)


@pytest.fixture
def handlers() -> Iterator[None]:
    """Those of a process that ignores none of these signals, as one in the background of a script does."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_a_stop_waits_for_what_must_not_be_torn() -> None:
    done = []
    with signals.stoppable():
        with pytest.raises(KeyboardInterrupt), signals.unbroken():
            signal.raise_signal(signal.SIGTERM)
            with signals.unbroken():
                done.append("inner")
            done.append("outer")
        signal.raise_signal(signal.SIGINT)  # the second one, while it finishes
    assert done == ["inner", "outer"]
    with signals.stoppable(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGHUP)


@pytest.mark.usefixtures("handlers")
def test_a_stop_that_was_lost_in_a_destructor_comes_again(capfd: pytest.CaptureFixture[str]) -> None:
    class Owner:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    with signals.stoppable():
        owner: Owner | None = Owner()
        assert owner is not None
        owner = None
        with pytest.raises(KeyboardInterrupt), signals.unbroken():
            pass
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("handlers")
def test_too_late_is_too_late() -> None:
    signals.leave_at_once()
    assert {signal.getsignal(number) for number in SIGNALS} == {signals._leave}
    signals.ignore()
    for number in SIGNALS:
        signal.raise_signal(number)


def test_a_command_called_from_python_leaves_the_handlers_as_they_are(run_cli: Callable[..., int]) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    assert run_cli("--version") == 0
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("words", [[], ["--live"]])
def test_ctrl_c_while_a_pipe_is_silent(toy_bundle: Path, video: Path, words: list[str]) -> None:
    command = [sys.executable, "-m", "patchcut", "run", "-", "--json", "--bundle", str(toy_bundle), *words]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write(video.read_bytes()[:400_000])
        process.stdin.flush()
        events = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert [event["event"] for event in events] == ["start", "frame", "frame"]
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        end = json.loads(process.stdout.read().splitlines()[-1])
        assert (end["event"], end["interrupted"]) == ("end", True)
        assert process.stderr.read() == b""
