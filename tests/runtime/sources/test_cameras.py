from __future__ import annotations

import threading
import time

import cv2
import numpy as np
import pytest
from patchcut.errors import SourceError
from patchcut.sources import Source, addresses, cameras, open_source
from patchcut.sources.cameras import without_password


def test_password_is_left_out() -> None:
    assert without_password("rtsp://me:pass@host:554/a@b:c") == "rtsp://me@host:554/a@b:c"
    assert without_password("http://host:80/x") == "http://host:80/x"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://me:p@ss@host/a", "rtsp://me@host/a"),
        ("rtsp://me:p/a:s@host:554/x", "rtsp://me@host:554/x"),
        ("http://host:80/a@b", "http://host:80/a@b"),
        ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
        ("http://host/video?user=me&pwd=secret&x=1", "http://host/video?user=me&pwd=...&x=1"),
        ("http://host?token=secret", "http://host?token=..."),
        ("rtsp://host/user=me_password=secret_channel=1", "rtsp://host/user=me_password=..._channel=1"),
        ("file", "file"),
    ],
)
def test_passwords_of_all_kinds_are_left_out(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize("index", [-1, 1000, 2**31, 2**31 - 1, -(2**31), 10**30])
def test_no_camera_has_that_index(index: int) -> None:
    with pytest.raises(
        SourceError, match=rf"^\[camera {index}\] cannot be opened: cameras are counted from 0 "
    ):
        open_source(index)


def test_an_address_of_other_bytes_is_refused() -> None:
    with pytest.raises(SourceError, match="holds bytes that are no UTF-8; write them as %XX"):
        open_source("rtsp://host/caf\udce9")


class FakeCapture:
    """A capture that answers `grab` as often as `send` allows; frame i is filled with i."""

    def __init__(self, count: int = 0) -> None:
        self.count = count
        self.asked = self.sent = self.released = 0
        self._sent = threading.Semaphore(0)
        self._ended = False

    def send(self, frames: int) -> None:
        """Let `frames` more frames come, and wait until all have been read and another is asked for."""
        self.sent += frames
        for _ in range(frames):
            self._sent.release()
        deadline = time.monotonic() + 10
        while self.asked <= self.sent and time.monotonic() < deadline:
            time.sleep(0.001)

    def end(self) -> None:
        self._ended = True
        self._sent.release()

    def isOpened(self) -> bool:
        return True

    def get(self, what: int) -> float:
        return {cv2.CAP_PROP_FPS: 30.0, cv2.CAP_PROP_FRAME_COUNT: float(self.count)}.get(what, 0.0)

    def set(self, what: int, value: float) -> bool:
        return True

    def grab(self) -> bool:
        self.asked += 1
        self._sent.acquire()
        return not self._ended

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.full((2, 2, 3), self.asked - 1, np.uint8)

    def release(self) -> None:
        self.released += 1
        self._ended = True
        self._sent.release()


def live(monkeypatch: pytest.MonkeyPatch, capture: FakeCapture, every: int = 1) -> Source:
    monkeypatch.setattr(cameras, "_open_camera", lambda index: capture)
    monkeypatch.setattr(cameras, "_PAUSES_S", ())
    return open_source(0, every=every)


def live_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "patchcut-live"]


def test_a_slow_reader_of_a_live_source_gets_the_newest_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = FakeCapture()
    with live(monkeypatch, capture) as source:
        frames = iter(source)
        threading.Timer(0.05, capture.send, [1]).start()
        assert next(frames).index == 0
        capture.send(5)
        newest = next(frames)
        assert (newest.index, newest.image[0, 0, 0], source.live, source.dropped) == (5, 5, True, 4)
        capture.send(1)
        assert next(frames).index == 6
        capture.end()
        assert list(frames) == []
    assert source.dropped == 4
    assert source.problems[0].startswith("[camera 0] stopped sending after 7 frames")
    assert capture.released and not live_threads()


def test_every_counts_the_frames_of_a_live_source(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = FakeCapture()
    with live(monkeypatch, capture, every=3) as source:
        frames = iter(source)
        threading.Timer(0.05, capture.send, [1]).start()
        assert next(frames).index == 0
        capture.send(7)
        assert (next(frames).index, source.dropped) == (6, 1)
        capture.end()


@pytest.mark.parametrize("how", ["close", "break", "never started"])
def test_a_live_source_stops_its_thread(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    capture = FakeCapture()
    source = live(monkeypatch, capture)
    frames = iter(source)
    if how != "never started":
        threading.Timer(0.05, capture.send, [1]).start()
        next(frames)
        threading.Timer(0.05, capture.send, [1]).start()  # the read that it waits in ends
    if how == "break":
        frames.close()  # type: ignore[attr-defined]
    source.close()
    source.close()
    assert capture.released and not live_threads()
    assert source.problems == []


def test_what_a_live_source_raises_reaches_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = FakeCapture()
    monkeypatch.setattr(capture, "grab", lambda: 1 / 0)
    with live(monkeypatch, capture) as source, pytest.raises(ZeroDivisionError):
        list(source)
    assert capture.released and not live_threads()


def test_a_recording_behind_an_address_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = FakeCapture(count=4)
    for _ in range(4):
        capture._sent.release()
    monkeypatch.setattr(cameras, "_open_stream", lambda url: capture)
    monkeypatch.setattr(addresses, "load_av", lambda: None)
    threading.Timer(0.2, capture.end).start()
    with open_source("http://host/x.mp4") as source:
        assert [frame.index for frame in source] == [0, 1, 2, 3]
    assert (source.live, source.dropped, source.total, source.problems) == (False, 0, 4, [])


class Reopened(FakeCapture):
    """A capture that sends some frames at once and then fails."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self._left = frames

    def grab(self) -> bool:
        self.asked += 1
        self._left -= 1
        return self._left >= 0


def test_a_live_source_that_stops_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    captures = [Reopened(frames) for frames in (3, 0, 2, 0, 0, 0)]
    opened: list[Reopened] = []

    def open_next(index: int) -> FakeCapture:
        opened.append(captures[len(opened)])
        return opened[-1]

    monkeypatch.setattr(cameras, "_open_camera", open_next)
    monkeypatch.setattr(cameras, "_PAUSES_S", (0.01, 0.02, 0.03))
    with open_source(0) as source:
        frames = [frame for frame in source.in_turn() if frame is not None]
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    times_s = [frame.time_s for frame in frames]
    assert times_s == sorted(times_s, key=float), "the clock goes on"  # type: ignore[arg-type]
    assert len(opened) == 6, "after frames the pauses begin again"
    assert all(one.released for one in opened)
    told = [problem.partition("; ")[0] for problem in source.problems]
    assert told == [
        "[camera 0] stopped sending after 3 frames, and was opened again",
        "[camera 0] stopped sending after 5 frames",
    ]


def test_a_pause_before_opening_again_ends_when_the_source_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = Reopened(1)
    monkeypatch.setattr(cameras, "_open_camera", lambda index: capture)
    monkeypatch.setattr(cameras, "_PAUSES_S", (60.0,))
    source = open_source(0)
    frames = iter(source)
    assert next(frames).index == 0
    begun = time.monotonic()
    source.close()
    assert time.monotonic() - begun < 1
    assert capture.released and not live_threads() and list(frames) == []


def test_a_camera_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = FakeCapture()
    monkeypatch.setattr(cameras, "_SILENCE_S", 0.3)
    with live(monkeypatch, capture) as source:
        assert list(source) == []
    assert source.problems == [
        "[camera 0] gave nothing for 0.3 s and was given up; check that it still sends"
    ]
    capture.end()
