"""Several videos in one run, going on, less and more words, and names that steer terminals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from patchcut.cli import app as cli
from patchcut.output.sinks import SINKS

Patchcut = Callable[..., int]
STEER = "a\x1b[2Jb\nZZ"


@pytest.fixture
def folder(tmp_path: Path, photo: np.ndarray) -> Path:
    """Two photos and two videos, one of them in a folder of its own."""
    folder = tmp_path / "in"
    (folder / "more").mkdir(parents=True)
    for name in ("x.jpg", "y.png"):
        assert cv2.imwrite(str(folder / name), photo)
    for name, frames in (("walk.avi", 4), ("more/run.avi", 3)):
        writer = cv2.VideoWriter(
            str(folder / name), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, photo.shape[1::-1]
        )
        for shift in range(frames):
            writer.write(np.roll(photo, 20 * shift, axis=1))
        writer.release()
    return folder


def files(folder: Path) -> list[str]:
    """What a run has written, without its own record."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if ".patchcut" not in path.parts)


def test_photos_and_videos_of_a_folder_have_their_own_results(
    run_cli: Patchcut, toy_bundle: Path, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["--bundle", toy_bundle, "-o", out, "--save", "overlay,labels"]
    assert run_cli("run", folder, *words) == 0
    found = files(out)
    assert [name for name in found if name.startswith("labels")] == [
        *(f"labels/more/run/{i:06d}.png" for i in range(3)),
        *(f"labels/walk/{i:06d}.png" for i in range(4)),
        "labels/x.png",
        "labels/y.png",
    ]
    videos = [name for name in found if Path(name).suffix in (".mp4", ".avi")]
    assert [Path(name).stem for name in videos] == ["run", "walk"]
    assert {"overlay/x.jpg", "overlay/y.jpg"} <= set(found)
    said = capfd.readouterr().out
    assert "9 frames" in said and "x.jpg" in said and "y.png" in said
    assert "walk.avi" not in said, "frames of videos are not listed"


def test_events_of_several_videos(
    run_cli: Patchcut, toy_bundle: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [folder / "x.jpg", folder / "walk.avi", folder / "more/run.avi"]
    assert run_cli("run", *words, "--bundle", toy_bundle, "--json") == 0
    said, errors = capfd.readouterr()
    events = [json.loads(line) for line in said.splitlines()]
    assert errors == ""
    assert [event["event"] for event in events] == [
        *("start", "frame"),
        *("part", *["frame"] * 4),
        *("part", *["frame"] * 3),
        "end",
    ]
    parts = [event for event in events if event["event"] == "part"]
    assert [Path(part["name"]).name for part in parts] == ["walk.avi", "run.avi"]
    assert {(part["kind"], part["fps"]) for part in parts} == {("video", 10.0)}
    assert (events[-1]["frames"], events[-1]["skipped"], events[-1]["problems"]) == (8, 0, [])


@pytest.mark.parametrize(
    ("words", "throughput"),
    [([], True), (["--no-throughput"], False), (["--live"], False)],
)
def test_frames_of_a_recording_run_beside_each_other(
    run_cli: Patchcut,
    toy_bundle: Path,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
    throughput: bool,
) -> None:
    assert run_cli("run", folder / "walk.avi", "--bundle", toy_bundle, "--json", *words) == 0
    start = json.loads(capfd.readouterr().out.splitlines()[0])
    assert start["segmenter"]["throughput"] is throughput


def test_a_limit_counts_over_all_parts(
    run_cli: Patchcut, toy_bundle: Path, folder: Path, tmp_path: Path
) -> None:
    for limit, written in ((1, 1), (3, 3), (10**30, 9)):
        out = tmp_path / f"out{limit}"
        words = ["--bundle", toy_bundle, "-o", out, "--save", "labels", "--limit", limit]
        assert run_cli("run", folder, *words) == 0
        assert len(files(out)) == written


@pytest.mark.parametrize(
    "words",
    [
        ["--every", 10**30],
        ["--every", 0],
        ["--limit", 0],
        ["--limit", "9" * 5000],
        ["--queue", -1],
        ["--max-fps", 0],
        ["--start", "nan"],
        ["--start", 2, "--stop", 1],
    ],
)
def test_numbers_that_nobody_means_are_wrong_usage(
    run_cli: Patchcut, folder: Path, toy_bundle: Path, words: list[object]
) -> None:
    assert run_cli("run", folder / "x.jpg", "--bundle", toy_bundle, *words) == 2


def test_seconds_of_a_video(
    run_cli: Patchcut, toy_bundle: Path, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["run", folder / "walk.avi", "--bundle", toy_bundle, "-o", tmp_path / "out", "--save", "labels"]
    for queue in (0, 2):
        assert run_cli(*words, "--start", 0.1, "--stop", 0.25, "--queue", queue, "--overwrite") == 0
        assert files(tmp_path / "out") == ["labels/walk/000001.png", "labels/walk/000002.png"]
    assert run_cli(*words, "--resume") == 1
    assert "was made with start 0.1, not unset" in capfd.readouterr().err
    assert run_cli("run", folder / "x.jpg", "--bundle", toy_bundle, "--start", 1) == 2
    assert "[start] needs frames that have times, those of x.jpg have none" in capfd.readouterr().err


def test_a_video_that_is_played_live(
    run_cli: Patchcut, toy_bundle: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert (
        run_cli("run", folder / "walk.avi", "--bundle", toy_bundle, "--live", "--max-fps", 5, "--json") == 0
    )
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    indices = [event["index"] for event in events if event["event"] == "frame"]
    assert 1 <= len(indices) < 4 and indices == sorted(indices) and indices[-1] == 3
    assert events[-1]["dropped"] == 4 - len(indices), "frames are 0.1 s apart and turns 0.2 s"


def test_a_run_goes_on_where_it_was_stopped(
    run_cli: Patchcut, toy_bundle: Path, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["--bundle", toy_bundle, "-o", out, "--save", "labels"]
    assert run_cli("run", folder, *words, "--limit", 2) == 0
    assert files(out) == ["labels/x.png", "labels/y.png"]
    before = (out / "labels/x.png").stat().st_mtime_ns
    assert run_cli("run", folder, *words, "--resume", "--json") == 0
    end = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (end["frames"], end["skipped"]) == (7, 2)
    assert (out / "labels/x.png").stat().st_mtime_ns == before and len(files(out)) == 9
    assert run_cli("run", folder, *words, "--resume") == 0, "all is done: that is no failure"
    assert "4 photos or videos done already" in capfd.readouterr().out
    assert run_cli("run", folder, *words, "--resume", "--min-score", 0.5) == 1
    assert "was made with min_score 0.0, not 0.5" in capfd.readouterr().err
    assert run_cli("run", folder, *words) == 1
    assert run_cli("run", folder, "--resume", "--bundle", toy_bundle) == 2


def test_one_photo_whose_results_cannot_be_written_is_a_problem_and_not_the_end(
    run_cli: Patchcut, toy_bundle: Path, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (out / "labels/x.png").mkdir(parents=True)
    words = ["--bundle", toy_bundle, "-o", out, "--save", "labels", "--overwrite"]
    assert run_cli("run", folder / "x.jpg", folder / "y.png", *words) == 1
    said, errors = capfd.readouterr()
    assert errors == "" and "1 problem:" in said and "[x.jpg]" in said
    assert (out / "labels/y.png").is_file()


def test_quiet_says_nothing_but_what_went_wrong(
    run_cli: Patchcut, toy_bundle: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("run", folder / "x.jpg", "--bundle", toy_bundle, "-q") == 0
    assert capfd.readouterr() == ("", "")
    (folder / "z.jpg").write_bytes(b"")
    assert run_cli("run", folder / "x.jpg", folder / "z.jpg", "--bundle", toy_bundle, "--quiet") == 1
    said, errors = capfd.readouterr()
    assert said == "" and errors.startswith("patchcut: [z.jpg] is empty") and len(errors.splitlines()) == 1
    assert run_cli("run", folder, "-q", "-v") == 2


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_verbose_says_what_runs_on_stderr(
    run_cli: Patchcut,
    toy_bundle: Path,
    folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    more: list[str],
) -> None:
    words = ["--bundle", toy_bundle, "-o", tmp_path / "o", "--save", "json", "-v", *more]
    assert run_cli("run", folder / "walk.avi", *words) == 0
    said, errors = capfd.readouterr()
    for word in ("walk.avi (video", "10 frames a second", f"{tmp_path / 'o'}: json", "provider", "precision"):
        assert word in errors
    assert bool(more) == all(line.startswith("{") for line in said.splitlines())


@pytest.mark.parametrize("words", [[], ["--json"], ["-q"], ["-v"]])
def test_names_never_steer_the_terminal(
    run_cli: Patchcut,
    toy_bundle: Path,
    folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    (folder / "x.jpg").rename(folder / f"{STEER}.jpg")
    (folder / f"{STEER}.png").write_bytes(b"")
    (folder / "walk.avi").rename(folder / f"{STEER}.avi")
    out = tmp_path / f"out{STEER}"
    assert run_cli("run", folder, "--bundle", toy_bundle, "-o", out, "--save", "labels", *words) == 1
    assert run_cli("run", folder, "--bundle", toy_bundle, "-o", out, *words) == 1  # holds results already
    assert run_cli("run", f"missing{STEER}", "--bundle", toy_bundle, *words) == 1
    assert run_cli("run", folder, "--bundle", f"missing{STEER}", *words) == 1
    said, errors = capfd.readouterr()
    assert "\x1b" not in said + errors
    assert not any(line.startswith("ZZ") for line in (said + errors).splitlines())


def test_the_help_of_save_lists_all_that_can_be_saved() -> None:
    assert tuple(SINKS) == cli.SAVED


def test_a_long_out_is_one_line(
    run_cli: Patchcut, toy_bundle: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for out in ("x" * 300, "x/" * 3000, "\0", ""):
        assert run_cli("run", folder / "x.jpg", "--bundle", toy_bundle, "-o", out) in (1, 2)
        assert len(capfd.readouterr().err.splitlines()) == 1


def test_the_shell_completes_commands_and_options() -> None:
    as_the_script = "import sys; sys.argv = ['patchcut']; from patchcut.__main__ import main; main()"
    completions = {"patchcut ": {"run", "info", "demo"}, "patchcut run --re": {"--refine", "--resume"}}
    for words, want in completions.items():
        done = subprocess.run(
            [sys.executable, "-c", as_the_script],
            env={
                **os.environ,
                "_PATCHCUT_COMPLETE": "complete_bash",
                "COMP_WORDS": words,
                "COMP_CWORD": str(len(words.split(" ")) - 1),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert want <= set(done.stdout.split()), done.stderr


WORDS = ",".join(word for word in SINKS if word not in ("rerun", "votes"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("run", ["--size", 30]),
        ("run", ["--engine", "tensorrt"]),
        ("run", ["--save", "votes"]),
        ("track", ["--box", "1,1,9,9", "--size", 30]),
        ("track", ["--box", "1,1,9,9", "--mode", "parts"]),
        ("track", ["--box", "1000,1000,1009,1009"]),
    ],
)
def test_a_run_that_is_refused_leaves_nothing_behind(
    run_cli: Patchcut, folder: Path, toy_bundle: Path, tmp_path: Path, command: str, words: list[object]
) -> None:
    out = tmp_path / "new" / "out"
    saved = [] if "--save" in words else ["--save", WORDS]
    assert run_cli(command, folder / "walk.avi", "--bundle", toy_bundle, "-o", out, *saved, *words) != 0
    assert not (tmp_path / "new").exists(), sorted((tmp_path / "new").rglob("*"))


def test_a_refused_run_keeps_what_is_there(
    run_cli: Patchcut, folder: Path, toy_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    words = ["run", folder / "x.jpg", "--bundle", toy_bundle, "--save", "labels", "-o"]
    assert run_cli(*words, tmp_path / "empty", "--size", 30) == 2
    assert (tmp_path / "empty").is_dir()
    assert run_cli(*words, tmp_path / "out") == 0
    before = sorted((tmp_path / "out").rglob("*"))
    assert run_cli(*words, tmp_path / "out", "--size", 30, "--overwrite") == 2
    assert files(tmp_path / "out") == ["labels/x.png"]
    assert len(sorted((tmp_path / "out").rglob("*"))) == len(before)
