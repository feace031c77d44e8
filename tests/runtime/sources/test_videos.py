from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from patchcut.sources import open_source

from tests.runtime.sources.files import picture, write_video


@pytest.mark.parametrize(("suffix", "codec"), [(".avi", "MJPG"), (".mp4", "mp4v")])
def test_video(tmp_path: Path, suffix: str, codec: str) -> None:
    with open_source(write_video(tmp_path / f"a:b{suffix}", codec=codec)) as source:
        frames = list(source)
    assert (source.kind, source.total, source.problems) == ("video", 30, [])
    assert source.fps == pytest.approx(10.0)
    assert [frame.index for frame in frames] == list(range(30))
    assert np.allclose([frame.time_s for frame in frames], np.arange(30) / 10, atol=1e-3)
    assert np.abs(frames[7].image.astype(int) - picture(seed=7)).mean() < 12


def test_frames_lost_inside_a_video_are_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.avi", frames=60)
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 5 : len(data) // 2] = bytes(len(data) // 2 - len(data) * 2 // 5)
    path.write_bytes(data)
    source = open_source(path)
    frames = list(source)
    assert 40 < len(frames) < 60
    what = f"decoded {len(frames)} of 60 frames: the file is damaged or cut short"
    assert source.problems == [f"[x.avi] {what}; copy or download it again"]


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
    path = write_video(tmp_path / "x.avi", frames=60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(path)
    count = len(list(source))
    assert 20 < count < 40
    assert f"decoded {count} of 60 frames" in source.problems[0]


def test_stopping_early_is_no_problem(tmp_path: Path) -> None:
    with open_source(write_video(tmp_path / "x.avi")) as source:
        frames = iter(source)
        next(frames)
        frames.close()
    assert source.problems == []


def test_real_videos(shared_data: Path) -> None:
    for name, count in (("damaged.avi", 270), ("cars.mp4", 377)):
        with open_source(shared_data / "videos" / name) as source:
            times = [frame.time_s for frame in source]
        assert len(times) == source.total == count
        assert times == sorted(times)
        assert source.problems == []
