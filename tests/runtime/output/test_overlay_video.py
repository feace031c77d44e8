from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import av
import cv2
import numpy as np
import pytest
from patchcut.errors import OutputError
from patchcut.output import opencv_encoder, overlay_video
from patchcut.output.av_encoder import CODECS, AvEncoder
from patchcut.output.overlay_video import OverlayVideo
from patchcut.output.whole_files import whole_file
from patchcut.sources import open_source

from tests.runtime.sources.files import picture

UNEVEN_S = (0.0, 0.04, 0.08, 0.3, 0.31, 2.0, 2.001, 2.5)


@pytest.fixture
def without_av(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay_video, "load_av", lambda: None)


def write(
    path: Path,
    times_s: Sequence[float | None] = UNEVEN_S,
    size_wh: tuple[int, int] = (96, 64),
    fps: float = 25.0,
    end_s: float | None = None,
) -> Path:
    video = OverlayVideo(path, fps, size_wh)
    for index, time_s in enumerate(times_s):
        video.write(picture(size_wh[1], size_wh[0], index), time_s)
    video.close(end_s)
    return video.path


def read(path: Path) -> tuple[list[float], float, list[np.ndarray]]:
    """Times, length and frames of a video, by PyAV itself."""
    with av.open(str(path)) as container:
        frames: list[Any] = list(container.decode(video=0))
        images = [frame.to_ndarray(format="bgr24") for frame in frames]
        return [frame.time for frame in frames], container.duration / 1e6, images


@pytest.mark.parametrize("start_s", [0.0, 5.0, 95443.7])
def test_frames_have_their_own_times_and_the_last_one_lasts(tmp_path: Path, start_s: float) -> None:
    path = write(tmp_path / "x", [start_s + time_s for time_s in UNEVEN_S], end_s=start_s + 3.23)
    times_s, length_s, images = read(path)
    assert path == tmp_path / "x.mp4"
    assert np.allclose(times_s, UNEVEN_S, atol=1e-5)
    assert length_s == pytest.approx(3.23, abs=1e-4)
    for index, image in enumerate(images):
        assert np.abs(image.astype(int) - picture(64, 96, index)).mean() < 8
    source = open_source(path)
    assert [frame.time_s for frame in source] == times_s
    assert (source.total, source.problems, source.end_s) == (8, [], pytest.approx(3.23))


@pytest.mark.parametrize(
    "rate", [24000 / 1001, 24, 25, 30000 / 1001, 30, 50, 60000 / 1001, 60, 120, 240, 1000, 12.5]
)
def test_times_of_every_rate_are_kept(tmp_path: Path, rate: float) -> None:
    wanted_s = [index / rate for index in range(10)]
    times_s, length_s, _ = read(write(tmp_path / "x", wanted_s, fps=rate, end_s=10 / rate))
    assert np.allclose(times_s, wanted_s, atol=2e-6)
    assert length_s == pytest.approx(10 / rate, abs=1e-5)


def test_frames_without_times_follow_at_the_rate(tmp_path: Path) -> None:
    times_s, length_s, _ = read(write(tmp_path / "x", [None] * 10, fps=10.0))
    assert np.allclose(times_s, np.arange(10) / 10)
    assert length_s == pytest.approx(1.0)


def test_times_that_run_back_or_stand_still_lose_no_frame(tmp_path: Path) -> None:
    times_s, _, images = read(write(tmp_path / "x", [0.0, 0.04, 0.04, 0.02, 0.08]))
    assert len(images) == 5
    assert (np.diff(times_s) > 0).all()
    assert times_s[-1] == pytest.approx(0.08)


@pytest.mark.parametrize(
    "size_wh", [(191, 143), (192, 143), (191, 144), (1, 1), (1, 300), (2, 2), (640, 361)]
)
def test_every_row_and_column_is_kept(tmp_path: Path, size_wh: tuple[int, int]) -> None:
    path = write(tmp_path / "x", size_wh=size_wh, end_s=3.0)
    times_s, length_s, images = read(path)
    assert {image.shape for image in images} == {(size_wh[1], size_wh[0], 3)}
    assert np.allclose(times_s, UNEVEN_S, atol=1e-5)
    assert length_s == pytest.approx(3.0)
    ok, image = cv2.VideoCapture(str(path)).read()
    assert ok and image.shape == images[0].shape
    assert open_source(path).fps == pytest.approx(8 / 3)


def test_a_frame_of_another_size_is_fitted_in_on_black(tmp_path: Path) -> None:
    video = OverlayVideo(tmp_path / "x", 25.0, (96, 64))
    video.write(np.full((64, 96, 3), 255, np.uint8), 0.0)
    video.write(np.full((128, 96, 3), 255, np.uint8), 0.04)
    video.write(np.full((30, 90, 3), 255, np.uint8), 0.08)
    video.close()
    _, _, (_, tall, wide) = read(video.path)
    assert tall[:, 26:70].mean() > 240 and tall[:, :20].mean() < 15 and tall[:, 76:].mean() < 15
    assert wide[18:46].mean() > 240 and wide[:14].mean() < 15 and wide[50:].mean() < 15


def test_what_a_caller_does_with_its_image_afterwards_changes_nothing(tmp_path: Path) -> None:
    video = OverlayVideo(tmp_path / "x", 25.0, (96, 64))
    image = np.full((64, 96, 3), 200, np.uint8)
    for _ in range(3):
        image[:] = 200
        video.write(image)
        image[:] = 0
    video.close()
    assert all(got.mean() > 190 for got in read(video.path)[2])


def test_browsers_play_it(tmp_path: Path) -> None:
    """H.264 of a profile that all know, or VP9, 4:2:0 and 8 bits, in MP4."""
    for size_wh, codec in (((96, 64), "h264"), ((95, 64), "vp9")):
        with av.open(str(write(tmp_path / codec, size_wh=size_wh))) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.pix_fmt) == (codec, "yuv420p")
            assert "mp4" in container.format.name and len(container.streams) == 1


@pytest.mark.parametrize("codec", [codec.name for codec in CODECS])
def test_encoders_that_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str) -> None:
    if codec not in av.codec.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    monkeypatch.setattr(overlay_video, "CODECS", [one for one in CODECS if one.name == codec])
    times_s, length_s, images = read(write(tmp_path / "x", end_s=3.23))
    assert np.allclose(times_s, UNEVEN_S, atol=1e-4)
    assert (length_s, images[0].shape) == (pytest.approx(3.23, abs=1e-3), (64, 96, 3))


def test_names_of_any_bytes(tmp_path: Path) -> None:
    path = write(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 %d:1")))
    assert path.is_file() and os.fsencode(path).endswith(b"caf\xe9 %d:1.mp4")
    assert len(list(open_source(path))) == 8


def test_nothing_is_there_before_it_is_whole(tmp_path: Path) -> None:
    video = OverlayVideo(tmp_path / "x", 25.0, (96, 64))
    video.write(picture(64, 96))
    assert not (tmp_path / "x.mp4").exists()
    video.close()
    video.close()
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]


@pytest.mark.parametrize("when", ["write", "finish"])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def full(*args: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "x.mp4").write_bytes(b"of an earlier run")
    video = OverlayVideo(tmp_path / "x", 25.0, (96, 64))
    video.write(picture(64, 96))
    monkeypatch.setattr(AvEncoder, "append" if when == "write" else "finish", full)
    message = r"^\[output\] cannot write .*/x.mp4: No space left on device; free some space"
    with pytest.raises(OutputError, match=message):
        for seed in range(3 if when == "write" else 0):
            video.write(picture(64, 96, seed))
        video.close()
    with suppress(OutputError):
        video.close()
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]
    assert (tmp_path / "x.mp4").read_bytes() == b"of an earlier run"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    @contextmanager
    def on_full_disk(path: Path) -> Iterator[Path]:
        with whole_file(path):
            yield Path("/dev/full")

    video = OverlayVideo(tmp_path / "x", 25.0, (640, 480), open_partial=on_full_disk)
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    with pytest.raises(OutputError, match="No space left on device"):
        for _ in range(60):
            video.write(noise)
        video.close()
    with suppress(OutputError):
        video.close()
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_in_the_middle_of_a_write_leaves_a_whole_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C comes while the encoder works: in another thread, which signals do not reach."""
    video = OverlayVideo(tmp_path / "x", 25.0, (96, 64))
    append = AvEncoder.append

    def slow(*args: Any) -> None:
        time.sleep(0.05)
        append(*args)

    monkeypatch.setattr(AvEncoder, "append", slow)
    for index in range(4):
        video.write(picture(64, 96, index), index / 25)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):

        def interrupted(timeout: float | None = None) -> NoReturn:
            raise KeyboardInterrupt

        patch.setattr(video._pending, "result", interrupted)
        video.write(picture(64, 96, 4), 4 / 25)
    video.close()
    times_s, _, _ = read(video.path)
    assert np.allclose(times_s[:4], np.arange(4) / 25)


def test_an_interruption_of_close_comes_after_the_file_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = OverlayVideo(tmp_path / "x", 25.0, (96, 64))
    for index in range(4):
        video.write(picture(64, 96, index), index / 25)
    finish, waits = video._finish, []

    def interrupted_once(end_s: float | None) -> None:
        waits.append(end_s)
        if len(waits) == 1:
            raise KeyboardInterrupt
        finish(end_s)

    monkeypatch.setattr(video, "_finish", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        video.close(1.0)
    times_s, length_s, _ = read(video.path)
    assert (len(times_s), length_s) == (4, pytest.approx(1.0))


@pytest.mark.usefixtures("without_av")
def test_opencv_repeats_and_drops_frames_so_that_it_lasts_as_long(tmp_path: Path) -> None:
    times_s = (7.0, 7.11, 7.12, 7.58, 8.0)
    path = write(tmp_path / "x", times_s, fps=10.0, end_s=8.5)
    capture = cv2.VideoCapture(str(path))
    images = []
    while (read_ := capture.read())[0]:
        images.append(read_[1])
    assert (path.name, len(images)) == ("x.mp4", 15)
    nearest = [
        min(range(5), key=lambda i: np.abs(image.astype(int) - picture(64, 96, i)).mean()) for image in images
    ]
    assert nearest == [0, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4]


@pytest.mark.usefixtures("without_av")
def test_opencv_makes_an_odd_size_even_by_doubling_its_edge(tmp_path: Path) -> None:
    path = write(tmp_path / "x", [0.0, 0.1], (95, 63), fps=10.0)
    ok, image = cv2.VideoCapture(str(path)).read()
    assert ok and image.shape == (64, 96, 3)
    assert np.abs(image[:63, :95].astype(int) - picture(63, 95, 0)).mean() < 12


@pytest.mark.usefixtures("without_av")
def test_opencv_without_mpeg4_writes_motion_jpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay_video, "_FORMATS", (("none", ".mp4"), ("MJPG", ".avi")))
    path = write(tmp_path / "x", [None] * 3)
    assert (path.name, len(read(path)[2])) == ("x.avi", 3)
    assert [one.name for one in tmp_path.iterdir()] == ["x.avi"]


@pytest.mark.usefixtures("without_av")
def test_without_any_encoder_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay_video, "_FORMATS", (("none", ".mp4"),))
    with pytest.raises(OutputError, match=r"there is no encoder that writes .*/x at 96x64; choose other"):
        OverlayVideo(tmp_path / "x", 25.0, (96, 64))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_av")
def test_opencv_that_lost_frames_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opencv_encoder, "frame_count", lambda path: 1)  # as on a full disk
    with pytest.raises(
        OutputError, match="would hold 1 of 3 frames and was removed; check that the disk has"
    ):
        write(tmp_path / "x", [None] * 3)
    assert list(tmp_path.iterdir()) == []
