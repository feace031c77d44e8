from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest
from patchcut.sources import cameras

from bench.breaking_server import serve
from bench.cases.soak import endure
from tests.runtime import toy_bundle as toy

SECONDS, BREAK_S = 20.0, 1.0


class BreakingCapture:
    """A capture of 50 frames a second that stops after a second; `is_away` sends nothing at all."""

    def __init__(self, is_away: bool) -> None:
        self.sent = 0
        self._end_s = 0.0 if is_away else time.monotonic() + BREAK_S
        self._image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)

    def isOpened(self) -> bool:
        return True

    def get(self, what: int) -> float:
        return {cv2.CAP_PROP_FPS: 50.0}.get(what, 0.0)

    def set(self, what: int, value: float) -> bool:
        return True

    def grab(self) -> bool:
        time.sleep(0.02)
        self.sent += time.monotonic() < self._end_s
        return time.monotonic() < self._end_s

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.roll(self._image, self.sent, axis=1)

    def release(self) -> None:
        pass


def test_a_stream_that_breaks_every_second_loses_nothing_unseen_and_grows_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[BreakingCapture] = []

    def open_next(index: int) -> BreakingCapture:
        opened.append(BreakingCapture(is_away=len(opened) % 5 == 4))
        return opened[-1]

    monkeypatch.setattr(cameras, "_open_camera", open_next)
    monkeypatch.setattr(cameras, "_PAUSES_S", (0.05, 0.1, 0.2))
    segmenter = patchcut.load(toy.write(tmp_path / "toy.patchcut"))
    with patchcut.open_source(0) as source:
        endured = endure(segmenter.stream(source), source, SECONDS)
    assert len(endured.times_ms) > 2 * SECONDS
    assert endured.out_of_order == 0
    assert endured.breaks_told == sum(capture.sent > 0 for capture in opened) - 1 >= SECONDS / 2
    assert endured.grown_mb <= 20
    assert (endured.grown_threads, endured.grown_files) == (0, 0)


def _results(numbers: list[tuple[int, int, float]]) -> Iterator[Any]:
    for index, dropped, time_s in numbers:
        timings_ms = {"read": 1.0, "head": 2.0}
        yield SimpleNamespace(index=index, dropped=dropped, time_s=time_s, timings_ms=timings_ms)


@pytest.mark.parametrize(
    ("numbers", "wrong"),
    [
        ([(0, 0, 0.0), (3, 2, 0.3), (4, 0, 0.4)], 0),
        ([(0, 0, 0.0), (3, 1, 0.3), (4, 0, 0.4)], 1),
        ([(0, 0, 0.0), (2, 1, 0.2), (1, 0, 0.3)], 1),
        ([(0, 0, 0.0), (1, 0, 0.2), (2, 0, 0.2)], 1),
    ],
)
def test_what_is_out_of_order_is_counted(numbers: list[tuple[int, int, float]], wrong: int) -> None:
    source: Any = SimpleNamespace(problems=["[x] stopped sending after 1 frames, and was opened again; y"])
    endured = endure(_results(numbers), source, 10.0, clock=iter(range(100)).__next__)  # type: ignore[arg-type]
    assert (endured.out_of_order, endured.breaks_told) == (wrong, 1)
    assert (endured.times_ms, endured.dropped) == ((2.0, 2.0, 2.0), sum(number[1] for number in numbers))


def test_the_server_breaks_and_counts(tmp_path: Path) -> None:
    path = tmp_path / "noise.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for image in np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), np.uint8):
        writer.write(image)
    writer.release()
    with serve(path, 0.5) as server, patchcut.open_source(server.url) as source:
        assert source.live
        frames = []
        for frame in source:
            frames.append(frame)
            if server.breaks == 2:
                break
    assert frames[0].image.shape == (48, 64, 3)
    assert sum("was opened again" in problem for problem in source.problems) == 2
