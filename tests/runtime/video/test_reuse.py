"""Frames that barely change: which are segmented, and what the others are given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import patchcut
import pytest
from patchcut import Frame, OptionError
from patchcut.sources.arrays import FrameSource
from patchcut.video.reuse import MAX_REUSED

from tests.runtime.results import same


def reused(
    segmenter: patchcut.Segmenter, images: list[np.ndarray], below: float, **how: object
) -> list[bool]:
    source = FrameSource((Frame(image, index=i) for i, image in enumerate(images)), kind="video")
    results = list(segmenter.stream(source, reuse_below=below, **how))  # type: ignore[arg-type]
    assert [one.index for one in results] == list(range(len(images)))
    for result, image in zip(results, images, strict=True):
        assert result.frame is not None and (result.frame == image).all()
    return [one.reused for one in results]


@pytest.mark.parametrize("settings", [{}, {"throughput": True, "threads": 2}])
def test_a_still_picture_is_segmented_now_and_then(
    toy_bundle: Path, photo: np.ndarray, settings: dict[str, object]
) -> None:
    segmenter = patchcut.load(toy_bundle, **settings)
    images = [photo[:80, :120].copy() for _ in range(2 * MAX_REUSED + 3)]
    expected = [i % (MAX_REUSED + 1) != 0 for i in range(len(images))]
    assert reused(segmenter, images, 0.0) == expected


def test_noise_is_no_change_and_a_small_object_is_one(
    toy_segmenter: patchcut.Segmenter, photo: np.ndarray
) -> None:
    rng = np.random.default_rng(0)
    base = photo[:400, :600].astype(int)
    noisy = [np.clip(base + rng.integers(-2, 3, base.shape), 0, 255).astype(np.uint8) for _ in range(3)]
    with_object = noisy[2].copy()
    with_object[200:220, 300:320] ^= 128  # 0.2 % of the frame
    assert reused(toy_segmenter, [*noisy, with_object, noisy[0]], 2.0) == [False, True, True, False, False]


def test_slow_changes_add_up(toy_segmenter: patchcut.Segmenter) -> None:
    images = [np.full((60, 90, 3), 100 + i, np.uint8) for i in range(9)]
    assert reused(toy_segmenter, images, 2.0) == [False, True, True] * 3


def test_another_size_is_another_picture(toy_segmenter: patchcut.Segmenter) -> None:
    images = [np.zeros((60, 90, 3), np.uint8), np.zeros((90, 60, 3), np.uint8), np.zeros((3, 2, 3), np.uint8)]
    assert reused(toy_segmenter, images, 255.0) == [False, False, False]


def test_an_answer_that_is_given_twice_is_in_memory_of_its_own(
    toy_segmenter: patchcut.Segmenter, photo: np.ndarray
) -> None:
    source = FrameSource([photo[:80, :120]] * 2, kind="video")
    first, second = toy_segmenter.stream(source, reuse_below=1.0)
    same(first, second)
    second.label_map[:] = second.region_ids[:] = 7
    assert first.label_map.max() < 7 and first.region_ids.max() < 7


def test_photos_and_streams_without_it_reuse_nothing(
    toy_segmenter: patchcut.Segmenter, photo: np.ndarray
) -> None:
    assert not any(one.reused for one in toy_segmenter.stream([photo] * 3, reuse_below=255.0))
    assert not any(one.reused for one in toy_segmenter.stream(FrameSource([photo] * 3, kind="video")))


@pytest.mark.parametrize("below", [-1, 256, float("nan"), "2"])
def test_levels_are_checked(below: object) -> None:
    with pytest.raises(OptionError, match=r"\[reuse_below\] must be a number from 0 to 255"):
        patchcut.StreamOptions(reuse_below=below)  # type: ignore[arg-type]


def test_reused_frames_are_counted(
    run_cli: Callable[..., int],
    toy_bundle: Path,
    tmp_path: Path,
    photo: np.ndarray,
    capfd: pytest.CaptureFixture[str],
) -> None:
    av = pytest.importorskip("av", reason="writes a video")
    path = tmp_path / "still.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(photo[:96, :128]), format="bgr24")
        for packet in [packet for _ in range(8) for packet in stream.encode(picture)] + stream.encode():
            file.mux(packet)
    assert run_cli("run", path, "--bundle", toy_bundle, "--reuse-below", 8, "--json") == 0
    end = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert end["frames"] == 8 and end["reused"] == 7
