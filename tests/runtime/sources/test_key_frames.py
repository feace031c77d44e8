"""Videos read in pieces are what they are when read from their begin to their end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from patchcut.errors import SourceError
from patchcut.sources import key_frames
from patchcut.sources.key_frames import frames_at, groups_of, packet_times
from patchcut.sources.videos import open_video

from tests.runtime.batch.made_sources import write_video

pytest.importorskip("av", reason="needs patchcut[video]")

# With B-frames, and with groups of pictures that need frames of the one before ("open").
KINDS = {
    "open.mp4": ("libx264", {"bf": "3", "x264-params": "keyint=8:open-gop=1:scenecut=0"}),
    "open.mkv": ("libx265", {"bf": "3", "x265-params": "keyint=8:open-gop=1:log-level=0"}),
    "closed.ts": ("libx264", {"bf": "3"}),
    "b.mp4": ("mpeg4", {"bf": "2"}),
    "vp9.webm": ("libvpx-vp9", {}),
    "intra.mov": ("mjpeg", {}),
    "b.m2ts": ("mpeg2video", {"bf": "2"}),
}


@pytest.mark.parametrize("name", KINDS)
def test_pieces_are_the_whole(tmp_path: Path, name: str) -> None:
    codec, options = KINDS[name]
    path = write_video(tmp_path / name, 40, codec=codec, options=options)
    whole = list(open_video(path))
    times = packet_times(path)
    assert times is not None and len(whole) == len(times.shown) == 40
    groups = groups_of(times)
    assert len(groups) >= 5 and sum(map(len, groups)) == 40
    first = 0
    for group in groups:
        found = dict(frames_at(path, "x", group.tolist()))
        assert sorted(found) == list(range(len(group)))
        for place, frame in found.items():
            expected = whole[first + place]
            assert frame.time_s == expected.time_s
            np.testing.assert_array_equal(frame.image, expected.image)
        first += len(group)


def test_some_frames_of_a_piece(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mp4", 24, options={"bf": "2"})
    times = packet_times(path)
    assert times is not None
    wanted = times.shown[9::4].tolist()
    assert [place for place, _ in frames_at(path, "x", wanted)] == list(range(len(wanted)))


def test_a_seek_that_leads_too_far_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "x.mp4", 24, options={"x264-params": "keyint=8:open-gop=1:scenecut=0"})
    times = packet_times(path)
    assert times is not None
    whole = [frame.image for frame in open_video(path)]
    opened = key_frames.open_file

    class Late:
        """A container whose index leads to the third key frame, wherever one wants to go."""

        def __init__(self, container: object) -> None:
            self._own = container

        def __getattr__(self, name: str) -> object:
            return getattr(self._own, name)

        def seek(self, offset: int, **how: object) -> None:
            self._own.seek(int(times.keys[2]), **how)

    monkeypatch.setattr(key_frames, "open_file", lambda *args: Late(opened(*args)))
    found = dict(frames_at(path, "x", times.shown[8:18].tolist()))
    assert sorted(found) == list(range(10))
    for place, frame in found.items():
        np.testing.assert_array_equal(frame.image, whole[8 + place])


def test_what_cannot_be_cut_is_told_by_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, codec in (("x.avi", "mpeg4"), ("x.mpg", "mpeg2video")):
        assert packet_times(write_video(tmp_path / name, 10, codec=codec)) is None, "frames have no times"
    assert packet_times(write_video(tmp_path / "x.webm", 10, codec="libvpx")) is None, "some show nothing"
    whole = write_video(tmp_path / "x.mkv", 40).read_bytes()
    (tmp_path / "short.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    assert packet_times(tmp_path / "short.mkv") is None, "it is cut short"
    with pytest.raises(SourceError, match="cannot be opened as a video"):
        (tmp_path / "no.mp4").write_bytes(b"no video")
        packet_times(tmp_path / "no.mp4")
    monkeypatch.setattr("patchcut.sources.videos.load_av", lambda: None)
    assert packet_times(tmp_path / "x.mkv") is None, "OpenCV knows no key frames"
