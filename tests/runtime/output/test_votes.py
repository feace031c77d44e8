"""Votes of the levels: their picture, and `--save votes`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest
from patchcut import Frame
from patchcut.output.folder import OutputFolder
from patchcut.output.votes import draw_votes

from tests.runtime import toy_bundle as toy
from tests.runtime.heads.test_levels import bundle_of, tensors


@pytest.fixture
def levels(tmp_path: Path) -> Path:
    return bundle_of(tmp_path / "levels.patchcut", tensors())


def test_foreground_is_red_and_background_blue(photo: np.ndarray) -> None:
    votes = np.zeros((1, 4), np.float32)
    votes[0, :2] = 1  # the upper half
    picture = draw_votes(Frame(photo), votes, ["dataset"], np.zeros(photo.shape[:2], bool), (2, 2))
    height, width = picture.shape[:2]
    assert width == 2 * 480 and height == round(480 * photo.shape[0] / photo.shape[1])
    upper, lower = picture[height // 5, : width // 2], picture[-height // 5, : width // 2]
    assert upper[..., 2].mean() > upper[..., 0].mean() + 50
    assert lower[..., 0].mean() > lower[..., 2].mean() + 50


def test_channels_follow_the_frame(photo: np.ndarray) -> None:
    votes = np.random.default_rng(0).random((3, 16)).astype(np.float32)
    rest = (votes, ["a", "b", "c"], np.ones(photo.shape[:2], bool), (4, 4))
    rgb = draw_votes(Frame(np.ascontiguousarray(photo[..., ::-1]), "rgb"), *rest)
    np.testing.assert_array_equal(rgb[..., ::-1], draw_votes(Frame(photo), *rest))


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 900), (700, 3)])
def test_frames_of_any_size_have_a_picture(size_hw: tuple[int, int]) -> None:
    frame = Frame(np.zeros((*size_hw, 3), np.uint8))
    picture = draw_votes(frame, np.ones((2, 4), np.float32), ["a", "b"], np.ones(size_hw, bool), (2, 2))
    assert picture.shape[1] % 3 == 0


def test_the_command_saves_them(
    run_cli: Callable[..., int], levels: Path, tmp_path: Path, photo: Any
) -> None:
    cv2.imwrite(str(tmp_path / "x.jpg"), photo)
    options = ("--bundle", levels, "--head", "levels", "--save", "votes,npz", "--out", tmp_path / "out")
    assert run_cli("run", tmp_path / "x.jpg", *options) == 0
    assert cv2.imread(str(tmp_path / "out/votes/x.jpg")).shape[1] > 4 * 400
    assert np.load(tmp_path / "out/npz/x.npz")["votes"].shape == (3, 64)


@pytest.mark.parametrize("more", [("--head", "kmeans"), ("--head", "levels", "--box", "1,1,50,50")])
def test_heads_that_take_none_are_refused(
    run_cli: Callable[..., int], levels: Path, tmp_path: Path, photo: Any, more: tuple[str, ...], capfd: Any
) -> None:
    cv2.imwrite(str(tmp_path / "x.jpg"), photo)
    command = "track" if "--box" in more else "run"
    options = ("--bundle", levels, "--save", "votes", "--out", tmp_path / "out", *more)
    assert run_cli(command, tmp_path / "x.jpg", *options) == 2
    assert '[save] has "votes", and the head' in capfd.readouterr().err


def test_a_result_without_votes_is_a_problem_of_that_result(tmp_path: Path, photo: np.ndarray) -> None:
    seg = patchcut.load(toy.write(tmp_path / "toy.patchcut"))
    with patchcut.open_source([photo]) as source, OutputFolder(tmp_path / "out", ["votes"]) as folder:
        folder.start(source)
        folder.write(seg(photo))
    (problem,) = folder.problems
    assert "takes no votes" in problem
