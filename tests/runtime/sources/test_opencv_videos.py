from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from patchcut import pyav
from patchcut.errors import SourceError, install_hint
from patchcut.pyav import load_av
from patchcut.sources import open_source, videos
from patchcut.sources.opencv_videos import OpenCvVideo

from tests.runtime.sources.files import check_that_a_cut_video_gives_what_it_has, picture, write_video
from tests.runtime.sources.recordings import record, remux


@pytest.fixture(autouse=True)
def without_av(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "load_av", lambda: None)


@pytest.mark.parametrize(("suffix", "codec"), [(".avi", "MJPG"), (".mp4", "mp4v")])
def test_video(tmp_path: Path, suffix: str, codec: str) -> None:
    with open_source(write_video(tmp_path / f"a:b{suffix}", codec=codec)) as source:
        frames = list(source)
    assert isinstance(source, OpenCvVideo)
    assert (source.kind, source.problems) == ("video", [])
    assert source.total == (30 if suffix == ".avi" else None)
    assert source.fps == pytest.approx(10.0)
    assert [frame.index for frame in frames] == list(range(30))
    assert np.allclose([frame.time_s for frame in frames], np.arange(30) / 10, atol=1e-3)
    assert np.abs(frames[7].image.astype(int) - picture(seed=7)).mean() < 12
    assert source.end_s == pytest.approx(3.0)


def test_every(tmp_path: Path) -> None:
    source = open_source(write_video(tmp_path / "x.avi"), every=7)
    assert [frame.index for frame in source] == [0, 7, 14, 21, 28]
    assert (source.total, source.every) == (5, 7)


@pytest.mark.parametrize("name", ["cut.mp4", "sound.mkv", "late.mkv"])
def test_whole_files_are_not_called_damaged(tmp_path: Path, name: str) -> None:
    """What OpenCV takes for the number of frames counts hidden ones, or is guessed from the sound."""
    whole = record(tmp_path / "a.mp4", sound_s=3.0)
    path = remux(whole, tmp_path / name, shift_s={"cut.mp4": -0.4, "late.mkv": 5.0}.get(name, 0.0))
    source = open_source(path)
    assert len(list(source)) in (14, 24)
    assert source.problems == []


def test_failed_reads_inside_a_video_do_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = range(5, 12)

    class Gappy:
        """A capture that fails in the middle and goes on, as H.264 does where its packets are damaged."""

        def __init__(self, capture: cv2.VideoCapture) -> None:
            self._capture = capture
            self._index = -1

        def read(self) -> tuple[bool, np.ndarray | None]:
            self._index += 1
            ok, image = self._capture.read()
            return (False, None) if self._index in lost else (ok, image)

        def __getattr__(self, name: str) -> object:
            return getattr(self._capture, name)

    source = open_source(write_video(tmp_path / "x.avi", frames=20))
    monkeypatch.setattr(source, "_capture", Gappy(source._capture))
    assert [frame.index for frame in source] == [i for i in range(20) if i not in lost]
    assert "decoded 13 of 20 frames" in source.problems[0]


def test_cut_video_gives_what_it_has(tmp_path: Path) -> None:
    check_that_a_cut_video_gives_what_it_has(tmp_path)


def test_a_codec_that_opencv_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(write_video(tmp_path / "x.avi"))
    monkeypatch.setattr(source, "_read", lambda wanted: (False, None))
    monkeypatch.setattr("patchcut.sources.opencv_videos.codec_name", lambda capture: "AV01")
    assert list(source) == []
    assert source.problems[0].startswith("[x.avi] opened, but no frame could be decoded; its codec is AV01")
    assert install_hint("video") in source.problems[0]


def test_no_video(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"hello" * 100)
    with pytest.raises(SourceError, match=r"\[x.mp4\] cannot be opened as a video: .*; install PyAV, which"):
        open_source(tmp_path / "x.mp4")


@pytest.mark.parametrize("version", [None, "16.1.0"])
def test_that_opencv_stands_in_is_said_once_and_is_no_problem(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, version: str | None
) -> None:
    module = None
    if version is not None:
        module = ModuleType("av")
        module.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "av", module)
    load_av.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "patchcut"):
            assert load_av() is None and pyav.load_av() is None
    finally:
        load_av.cache_clear()
    (message,) = caplog.messages
    assert "so OpenCV reads and writes videos" in message
    assert message.endswith(install_hint("video"))
