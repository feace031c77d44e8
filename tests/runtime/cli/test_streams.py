"""stdout and stderr that are closed, full, or read by nobody."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cv2 import imwrite

FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
NO_STDOUT = "patchcut: [stdout] cannot be written: {}; look at where stdout leads, or write files with --out"


@pytest.fixture
def photos(tmp_path: Path, photo: np.ndarray) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        assert imwrite(str(folder / name), photo)
    return folder


def shell(tmp_path: Path, words: list[object], redirections: str) -> subprocess.CompletedProcess[str]:
    """`python -m patchcut WORDS... REDIRECTIONS`, as a shell does it; `out` and `err` lie in `tmp_path`."""
    line = shlex.join([sys.executable, "-m", "patchcut", *map(str, words)])
    return subprocess.run(
        ["sh", "-c", f"{line} {redirections}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )


def written(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("words", [["run", "PHOTOS"], ["run", "PHOTOS", "--json"], ["--help"]])
@pytest.mark.parametrize(
    ("stdout", "why"),
    [(">&-", "Bad file descriptor"), pytest.param(">/dev/full", "No space left on device", marks=FULL)],
)
def test_stdout_that_cannot_be_written_is_said_in_one_line(
    tmp_path: Path, photos: Path, toy_bundle: Path, words: list[str], stdout: str, why: str
) -> None:
    bundle = {"run": ["--bundle", toy_bundle], "info": [toy_bundle]}.get(words[0], [])
    given = [photos if word == "PHOTOS" else word for word in words]
    done = shell(tmp_path, [*given, *bundle], f"2>err {stdout}")
    said = written(tmp_path / "err")
    assert done.returncode == 1, said
    assert said.startswith(NO_STDOUT.format(why)) and len(said.splitlines()) == 1


@pytest.mark.parametrize("stdout", [">&-", pytest.param(">/dev/full", marks=FULL)])
def test_quiet_runs_need_no_stdout(tmp_path: Path, photos: Path, toy_bundle: Path, stdout: str) -> None:
    words = ["run", photos, "--bundle", toy_bundle, "-q", "-o", tmp_path / "o", "--save", "labels"]
    done = shell(tmp_path, words, f"2>err {stdout}")
    assert (done.returncode, written(tmp_path / "err")) == (0, "")
    assert (tmp_path / "o/labels/b.png").is_file()


@pytest.mark.parametrize("stderr", ["2>&-", pytest.param("2>/dev/full", marks=FULL)])
def test_what_stderr_cannot_take_is_lost_and_lands_nowhere_else(
    tmp_path: Path, photos: Path, toy_bundle: Path, stderr: str
) -> None:
    (photos / "c.jpg").write_bytes((photos / "a.jpg").read_bytes()[:-40])  # libjpeg writes of it to stderr
    done = shell(tmp_path, ["run", photos, "--bundle", toy_bundle, "--json"], f">out {stderr}")
    assert done.returncode == 1
    events = [json.loads(line)["event"] for line in written(tmp_path / "out").splitlines()]
    assert events == ["start", "frame", "frame", "end"]
    for words, status in ((["run", "missing.jpg"], 1), (["run"], 2)):
        assert shell(tmp_path, [*words], f">out {stderr}").returncode == status
        assert written(tmp_path / "out") == ""


def test_with_all_three_closed_files_are_whole(tmp_path: Path, photos: Path, toy_bundle: Path) -> None:
    words = ["run", photos, "--bundle", toy_bundle, "-q", "-o", tmp_path / "o", "--save", "json,labels"]
    assert shell(tmp_path, words, "<&- >&- 2>&-").returncode == 0
    for name in ("a", "b"):
        assert json.loads((tmp_path / f"o/json/{name}.json").read_text())
    assert shell(tmp_path, ["info"], "<&- >&- 2>&-").returncode == 1


def test_a_reader_who_leaves_is_told_nothing(tmp_path: Path, photos: Path, toy_bundle: Path) -> None:
    for words in (["run", photos, "--bundle", toy_bundle, "--json"], ["info", toy_bundle], ["--help"]):
        read_end, write_end = os.pipe()
        os.close(read_end)
        process = subprocess.Popen(
            [sys.executable, "-m", "patchcut", *map(str, words)],
            stdout=write_end,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(write_end)
        assert process.communicate(timeout=60)[1] == ""
        assert process.returncode == 1
