"""`patchcut track`: what is pointed at, written as `patchcut run` writes, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

Patchcut = Callable[..., int]


@pytest.fixture
def video(tmp_path: Path, photo: np.ndarray) -> Path:
    path = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, photo.shape[1::-1])
    for shift in range(5):
        writer.write(np.roll(photo, 4 * shift, axis=1))
    writer.release()
    return path


def frames_of(said: str) -> list[dict[str, object]]:
    events = [json.loads(line) for line in said.splitlines()]
    return [event for event in events if event["event"] == "frame"]


def test_objects_of_a_video_are_followed(
    run_cli: Patchcut, toy_bundle: Path, video: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mask = np.zeros((426, 640), np.uint8)  # of MJPG, whose sides are even
    mask[300:400, 450:600] = 255
    assert cv2.imwrite(str(tmp_path / "mask.png"), mask)
    words = ["--bundle", toy_bundle, "--box", "100,100,300,300", "--point", "20,400.5"]
    words += ["--mask", tmp_path / "mask.png", "--name", "leaf", "--at", 1, "--json"]
    out = tmp_path / "out"
    assert run_cli("track", video, *words, "--out", out, "--save", "labels,overlay") == 0
    frames = frames_of(capfd.readouterr().out)
    assert len(frames) == 5 and frames[0]["regions"] == []
    assert frames[1]["labels"] == ["background", "leaf", "object 2", "object 3"]
    assert {one["label"] for one in frames[1]["regions"]} >= {"object 2", "object 3"}  # type: ignore[attr-defined]
    assert len(list((out / "labels" / "walk").iterdir())) == 5
    assert [path.stem for path in (out / "overlay").iterdir()] == ["walk"]
    labels = cv2.imread(str(out / "labels" / "walk" / "000001.png"))
    assert len(np.unique(labels.reshape(-1, 3), axis=0)) >= 3


def test_a_photo_is_segmented(
    run_cli: Patchcut, toy_bundle: Path, photo: np.ndarray, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "photo.png"
    assert cv2.imwrite(str(path), photo)
    assert run_cli("track", path, "--bundle", toy_bundle, "--box", "100,100,300,300", "--json") == 0
    (frame,) = frames_of(capfd.readouterr().out)
    assert [one["label"] for one in frame["regions"]] == ["object 1"]  # type: ignore[attr-defined]


def test_transparent_pixels_of_a_mask_are_background(tmp_path: Path) -> None:
    from patchcut.cli.track import read_mask

    picture = np.zeros((4, 5, 4), np.uint8)
    picture[1:3, 1:4] = (0, 0, 9, 255)
    picture[0] = (50, 50, 50, 0)
    for image in (picture, picture[..., 2] * (picture[..., 3] > 0)):
        assert cv2.imwrite(str(tmp_path / "mask.png"), image)
        mask = read_mask(tmp_path / "mask.png")
        assert mask.dtype == bool and np.argwhere(mask).tolist() == [
            [y, x] for y in (1, 2) for x in (1, 2, 3)
        ]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([], 2, "[track] needs at least one --point, --box or --mask; or let `patchcut run` find objects"),
        (["--box", "1,2,3"], 2, "[box] must be X0,Y0,X1,Y1 in pixels, got '1,2,3'; write numbers and commas"),
        (["--box", "9,9,3,3"], 2, "[box] must be x0, y0, x1, y1 with x0 < x1"),
        (["--point", "here"], 2, "[point] must be X,Y in pixels, got 'here'"),
        (["--point", "700,20"], 2, "[point] must lie on the frame, 640x426, got 700,20"),
        (["--mask", "missing.png"], 1, "[missing.png] cannot be read: No such file or directory"),
        (["--mask", "WALK"], 1, "is no picture that OpenCV can read"),
        (
            ["--point", "9,9", "--at", "5"],
            2,
            "[at] must be a frame of the video, got 5, the last that came is 4",
        ),
        (
            ["--point", "9,9", "--at", "3", "--limit", "3"],
            2,
            "[at] must be a frame of the run, got 3 with a limit",
        ),
        (
            ["--point", "9,9", "--mode", "parts"],
            2,
            '[mode] must be "foreground" where objects are pointed at',
        ),
        (["--point", "9,9", "--no-track"], 2, "[no-track] is for objects that are found"),
        (["--point", "9,9", "--reuse-below", "2"], 2, "[reuse-below] is for objects that are found"),
        (["--point", "9,9", "--name", "a", "--name", "b"], 2, "[names] must be a list of one name an object"),
    ],
)
def test_wrong_words_are_one_line(
    run_cli: Patchcut,
    toy_bundle: Path,
    video: Path,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
    status: int,
    said: str,
) -> None:
    words = [str(video) if word == "WALK" else word for word in words]
    assert run_cli("track", video, "--bundle", toy_bundle, "-q", *words) == status
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0], lines


def test_another_prompt_is_another_run(
    run_cli: Patchcut, toy_bundle: Path, video: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [
        "track",
        video,
        "--bundle",
        toy_bundle,
        "--out",
        tmp_path / "out",
        "--save",
        "labels",
        "--resume",
    ]
    assert run_cli(*words, "--point", "9,9") == 0
    assert run_cli(*words, "--point", "9,9") == 0
    capfd.readouterr()
    assert run_cli(*words, "--point", "300,200") != 0
    assert re.search("prompts", capfd.readouterr().err)
