"""Streams: order, what is dropped, how far they read ahead, and that everything ends."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import patchcut
import pytest
from patchcut import Frame, OptionError, Result, Segmenter, SourceError, StreamOptions
from patchcut.sources import Source
from patchcut.video.stream import results_of

from tests.runtime.results import boxes_result, same
from tests.runtime.video.clips import Clip, walk
from tests.runtime.video.threads import stream_threads, until

pytestmark = pytest.mark.usefixtures("no_threads_left")

TINY = (40, 60)


@pytest.mark.parametrize("settings", [{}, {"throughput": True}, {"mode": "parts"}, {"refine": "bilateral"}])
def test_a_stream_gives_the_bits_of_frame_by_frame(
    toy_bundle: Path, photo: np.ndarray, settings: dict[str, object]
) -> None:
    segmenter = patchcut.load(toy_bundle, threads=2, **settings)
    frames = walk(photo, 12)
    alone = list(segmenter.stream(Clip(frames), queue=0))
    assert len({one.label_map.tobytes() for one in alone}) > 6
    for queue in (1, 2, 5):
        ahead = list(segmenter.stream(Clip(frames), queue=queue))
        assert [(one.index, one.time_s, one.dropped) for one in ahead] == [
            (i, i / 10, 0) for i in range(len(frames))
        ]
        for one, other in zip(ahead, alone, strict=True):
            same(one, other)


def test_a_stream_refines_as_the_segmenter_says(toy_bundle: Path, photo: np.ndarray) -> None:
    guided = patchcut.load(toy_bundle, refine="guided")
    frames = walk(photo, 4)
    each = patchcut.load(toy_bundle).stream(Clip(frames), track=False)
    for one, frame in zip(each, frames, strict=True):
        same(one, guided(frame))


@pytest.mark.parametrize("queue", [1, 3])
def test_a_consumer_that_takes_nothing_bounds_what_is_read(
    toy_segmenter: Segmenter, photo: np.ndarray, queue: int
) -> None:
    clip = Clip([photo[:40, :60]] * 200)
    results = toy_segmenter.stream(clip, queue=queue)
    assert clip.given == 0 and stream_threads() == []
    next(results)
    # One taken, one that waits, one that is made and has no room, `queue` frames, and one that has none.
    assert until(lambda: clip.given == queue + 4)
    time.sleep(0.1)
    assert clip.given == queue + 4
    assert stream_threads() == ["patchcut-read", "patchcut-segment"]
    assert [one.index for one in results] == list(range(1, 200))
    assert clip.closed and list(results) == []


@pytest.fixture(scope="module")
def beside(toy_bundle: Path) -> Segmenter:
    """Its frames run beside each other, four at once."""
    return patchcut.load(toy_bundle, throughput=True, threads=2)


def test_frames_beside_each_other_wait_for_their_consumer(beside: Segmenter, photo: np.ndarray) -> None:
    clip = Clip(walk(photo, 60))
    results = beside.stream(clip, queue=2)
    found = [next(results)]
    # One taken, two results that wait, four more that were begun before they did, two frames, and one more.
    assert not until(lambda: clip.given > 1 + 2 + 4 + 2 + 2, 0.3)
    # The segmenter is free meanwhile.
    same(beside(photo), beside(photo))
    for one in results:
        found.append(one)
        if one.index in (10, 11, 30):
            assert beside(photo).label_map.shape == photo.shape[:2]
    assert clip.closed and clip.given == 60
    expected = beside.stream(Clip(walk(photo, 60)), queue=0)
    for one, other in zip(found, expected, strict=True):
        same(one, other)


def test_frames_beside_each_other_before_an_error_are_not_lost(beside: Segmenter, photo: np.ndarray) -> None:
    for count in (0, 1, 3, 9):
        taken = []
        with pytest.raises(KeyError, match="torn"):
            for one in beside.stream(Clip(walk(photo, count), error=KeyError("torn"))):
                taken.append(one.index)
        assert taken == list(range(count))


@pytest.mark.parametrize("how", ["close", "forget", "raise", "live"])
@pytest.mark.parametrize("which", ["toy_segmenter", "beside"])
def test_threads_end_with_the_stream(
    request: pytest.FixtureRequest, photo: np.ndarray, how: str, which: str
) -> None:
    toy_segmenter: Segmenter = request.getfixturevalue(which)
    clip = Clip([photo[:40, :60]] * 1000)
    results = toy_segmenter.stream(clip, mode="live" if how == "live" else "auto")
    next(results)
    assert len(stream_threads()) == 2
    begun = time.monotonic()
    if how == "raise":
        with pytest.raises(ZeroDivisionError):
            for _ in toy_segmenter.stream(Clip([photo] * 100)):
                raise ZeroDivisionError
    if how == "forget":
        del results
    else:
        results.close()
    assert stream_threads() == [] and time.monotonic() - begun < 1
    assert clip.closed and clip.given < 1000


def test_what_a_source_raises_comes_after_the_results_before_it(
    toy_segmenter: Segmenter, photo: np.ndarray
) -> None:
    clip = Clip(walk(photo, 3), error=KeyError("torn"))
    taken = []
    with pytest.raises(KeyError, match="torn"):
        for one in toy_segmenter.stream(clip):
            taken.append(one.index)
    assert taken == [0, 1, 2] and clip.closed and stream_threads() == []


def test_what_a_stage_raises_reaches_the_consumer_with_its_cause(toy_bundle: Path, photo: np.ndarray) -> None:
    segmenter = patchcut.load(toy_bundle)
    head, calls = segmenter.head, []

    class Breaking:
        name, labels, needs, devices = head.name, head.labels, head.needs, head.devices

        def __call__(self, features: patchcut.Features) -> object:
            calls.append(0)
            if len(calls) == 3:
                try:
                    raise OSError("disk")
                except OSError as error:
                    raise RuntimeError("the head broke") from error
            return head(features)

    segmenter.head = Breaking()  # type: ignore[assignment]
    clip = Clip([photo] * 50)
    taken = []
    with pytest.raises(RuntimeError, match="the head broke") as raised:
        for one in segmenter.stream(clip):
            taken.append(one.index)
    assert isinstance(raised.value.__cause__, OSError)
    assert taken == [0, 1] and clip.closed and stream_threads() == []
    segmenter.head = head
    assert segmenter(photo).label_map.shape == photo.shape[:2]


def test_a_source_that_is_stuck_is_left_open_and_ends_by_itself(
    toy_segmenter: Segmenter, photo: np.ndarray
) -> None:
    gate = threading.Event()

    class Stuck(Clip):
        def __iter__(self) -> Iterator[Frame]:
            yield Frame(photo)
            gate.wait(30)

    clip = Stuck([])
    results = toy_segmenter.stream(clip)
    next(results)
    begun = time.monotonic()
    results.close()
    assert time.monotonic() - begun < 2
    assert not clip.closed, "nobody may close what a thread reads"
    gate.set()


def test_a_silent_source_is_given_up_and_told(
    toy_segmenter: Segmenter, photo: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()

    class Silent(Clip):
        def __iter__(self) -> Iterator[Frame]:
            yield Frame(photo)
            gate.wait(30)

    clip = Silent([])
    clip.silence_s = 0.3
    with caplog.at_level(logging.WARNING, "patchcut"):
        assert len(list(toy_segmenter.stream(clip))) == 1
    told = "[clip] gave nothing for 0.3 s and was given up; check that it still sends"
    assert clip.problems == [told] and told in caplog.messages
    gate.set()


class Steps:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_s += seconds


def run_stepwise(steps: Steps, clip: Source, options: StreamOptions, busy_s: float = 0.0) -> list[float]:
    """When each frame was segmented, by a segmenter that takes `busy_s`."""
    begun_s = []

    def segment(frames: Sequence[Frame], timings_ms: Sequence[dict[str, float]]) -> list[Result]:
        begun_s.append(steps.now_s)
        steps.now_s += busy_s
        return [boxes_result([(0, 0, 4, 4)], index=one.index) for one in frames]

    found = results_of(clip, options, segment, lambda frame: frame, clock=steps.clock, sleep=steps.sleep)
    assert [one.index for one in found] == list(range(len(begun_s)))
    return begun_s


@pytest.mark.parametrize(("busy_s", "apart_s"), [(0.0, 0.25), (0.1, 0.25), (0.7, 0.7)])
def test_no_more_frames_a_second_than_wanted(photo: np.ndarray, busy_s: float, apart_s: float) -> None:
    clip = Clip([photo[:8, :8]] * 10)
    begun_s = run_stepwise(Steps(), clip, StreamOptions(max_fps=4, queue=0), busy_s)
    np.testing.assert_allclose([b - a for a, b in pairwise(begun_s)], apart_s, atol=1e-9)
    assert len(begun_s) == 10 and begun_s[0] == 0


def test_the_fastest_rate_holds_on_threads_too(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    begun = time.monotonic()
    assert len(list(toy_segmenter.stream(Clip([photo[:40, :60]] * 6), max_fps=20))) == 6
    assert time.monotonic() - begun >= 5 / 20


def sent(photo: np.ndarray, count: int, apart_s: float) -> Iterator[Frame]:
    """Frames of a made camera; `time_s` is when each came."""
    for index in range(count):
        time.sleep(apart_s)
        yield Frame(photo[:40, :60], "bgr", "made", index, time.monotonic())


def test_a_live_stream_gives_the_newest_frame_and_counts_the_others(
    toy_segmenter: Segmenter, photo: np.ndarray
) -> None:
    results = []
    for one in toy_segmenter.stream(sent(photo, 100, 0.005), mode="live"):
        results.append(one)
        time.sleep(0.04)
    indices = [one.index for one in results]
    assert indices == sorted(set(indices)) and indices[-1] == 99 and len(indices) < 60
    assert [one.dropped for one in results] == [b - a - 1 for a, b in pairwise([-1, *indices])]
    assert sum(one.dropped for one in results) == 100 - len(results) > 0


def test_the_answer_of_a_live_stream_is_never_old(
    toy_segmenter: Segmenter, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segmenter that takes 60 ms and frames each 5 ms: with a queue, ages would grow to hundreds."""
    segment = toy_segmenter._work.segment

    def slow(*args: object) -> list[Result]:
        time.sleep(0.06)
        return segment(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(toy_segmenter._work, "segment", slow)
    ages_s = []
    for one in toy_segmenter.stream(sent(photo, 200, 0.005), mode="live"):
        assert one.time_s is not None
        ages_s.append(time.monotonic() - one.time_s)
    assert len(ages_s) > 3
    assert np.median(ages_s) < 2.2 * 0.06


def test_a_recording_that_is_played_live_keeps_its_own_speed(
    toy_segmenter: Segmenter, photo: np.ndarray
) -> None:
    begun = time.monotonic()
    results = list(toy_segmenter.stream(Clip([photo[:40, :60]] * 11), mode="live"))
    assert time.monotonic() - begun >= 1.0
    assert results[-1].index == 10 and sum(one.dropped + 1 for one in results) == 11


def test_every_frame_of_a_live_source_can_be_asked_for(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    clip = Clip([photo[:40, :60]] * 30)
    clip.live = clip.own_pace = True
    clip.kind = "camera"
    assert [one.index for one in toy_segmenter.stream(clip, mode="video")] == list(range(30))
    assert clip.dropped == 0


def test_seconds_and_every_choose_frames(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    for queue in (0, 2):
        for start, stop, want in ((None, 0.3, [0, 1, 2]), (0.7, None, [7, 8, 9]), (0.25, 0.5, [3, 4])):
            clip = Clip([photo[:40, :60]] * 10)
            found = toy_segmenter.stream(clip, queue=queue, start=start, stop=stop)
            assert [one.index for one in found] == want
            assert clip.closed
    assert [one.index for one in toy_segmenter.stream([photo] * 5, every=2)] == [0, 2, 4]
    with pytest.raises(OptionError, match="every"):
        toy_segmenter.stream(Clip([]), every=2)
    with pytest.raises(OptionError, match=r"\[start\] needs frames that have times"):
        list(toy_segmenter.stream([photo], start=1))


@pytest.mark.parametrize("queue", [0, 2])
def test_a_start_past_the_end_is_told(toy_segmenter: Segmenter, photo: np.ndarray, queue: int) -> None:
    clip = Clip([photo[:40, :60]] * 10)
    assert list(toy_segmenter.stream(clip, queue=queue, start=1.5)) == []
    (problem,) = clip.problems
    assert problem.endswith("has no frame from 1.5 s on: its last is at 0.90 s; start earlier")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"mode": "fast"}, r'\[mode\] must be one of "auto", "video", "live"'),
        ({"queue": -1}, r"\[queue\] must be a whole number from 0 to 1024"),
        ({"queue": 1.5}, r"\[queue\]"),
        ({"max_fps": 0}, r"\[max_fps\] must be a number"),
        ({"max_fps": float("nan")}, r"\[max_fps\]"),
        ({"start": "1:00"}, r"\[start\] must be a number"),
        ({"start": 2, "stop": 2}, r"\[stop\] must be later than start, 2, got 2"),
    ],
)
def test_options_that_nobody_means_are_refused(
    toy_segmenter: Segmenter, photo: np.ndarray, options: dict[str, object], what: str
) -> None:
    with pytest.raises(OptionError, match=what):
        toy_segmenter.stream([photo], **options)  # type: ignore[arg-type]


def test_the_size_may_change_in_mid_stream(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    frames = [photo[: 40 + 13 * (i % 3), : 60 + 7 * (i % 5)] for i in range(20)]
    for one, frame in zip(toy_segmenter.stream(Clip(frames)), frames, strict=True):
        assert one.label_map.shape == frame.shape[:2]


@pytest.mark.parametrize("which", ["toy_segmenter", "beside"])
def test_two_streams_of_one_segmenter_in_two_threads(
    request: pytest.FixtureRequest, photo: np.ndarray, which: str
) -> None:
    toy_segmenter: Segmenter = request.getfixturevalue(which)
    clips = [walk(photo, 20), walk(photo, 20)[::-1]]
    expected = [list(toy_segmenter.stream(Clip(one), queue=0)) for one in clips]
    found: list[list[Result]] = [[], []]

    def work(i: int) -> None:
        found[i] = list(toy_segmenter.stream(Clip(clips[i])))

    workers = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for got, want in zip(found, expected, strict=True):
        for one, other in zip(got, want, strict=True):
            same(one, other)


def test_photos_are_read_one_at_a_time(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    class Photos(Clip):
        def __init__(self, frames: Sequence[np.ndarray]) -> None:
            super().__init__(frames)
            self.kind = "images"

    clip = Photos([photo] * 5)
    results = toy_segmenter.stream(clip, mode="live")
    for given in (1, 2):
        next(results)
        assert clip.given == given and stream_threads() == []
    results.close()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("mode", ["video", "live"])
def test_nothing_grows_over_thousands_of_frames(
    toy_segmenter: Segmenter, photo: np.ndarray, mode: str
) -> None:
    def resident_kb() -> int:
        return int(re.findall(r"VmRSS:\s*([0-9]+)", Path("/proc/self/status").read_text())[0])

    tiny = np.ascontiguousarray(photo[: TINY[0], : TINY[1]])
    seen, early = 0, 0
    frames = (Frame(np.array(tiny), index=i) for i in range(3000))
    for one in toy_segmenter.stream(frames, mode=mode):  # type: ignore[arg-type]
        seen += 1 + one.dropped
        if not early and seen >= 500:
            early = resident_kb()
    assert seen == 3000
    assert resident_kb() - early < 6000, "a frame and its result take 35 kB: 2500 of them would be 85 MB"


def test_problems_of_a_stream_are_logged_as_they_come(
    toy_segmenter: Segmenter, photo: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    class Gaps(Clip):
        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                self.problems.append(str(SourceError("clip", f"lost a frame before {frame.index}")))
                yield frame

    with caplog.at_level(logging.WARNING, "patchcut"):
        assert len(list(toy_segmenter.stream(Gaps([photo[:40, :60]] * 3)))) == 3
    assert [one for one in caplog.messages if "lost a frame" in one] == [
        f"[clip] lost a frame before {i}" for i in range(3)
    ]


INTERRUPTED = """
import sys, threading, time
import numpy, patchcut
seg = patchcut.load(sys.argv[1])
frame = numpy.zeros((40, 60, 3), numpy.uint8)
def endless():
    while True:
        yield frame
try:
    for result in seg.stream(endless()):
        if result.index == 5:
            print("running", flush=True)
except KeyboardInterrupt:
    begun = time.monotonic()
left = [one for one in threading.enumerate() if one.name.startswith("patchcut-")]
print(len(left), time.monotonic() - begun, flush=True)
"""


def test_ctrl_c_in_a_program_ends_its_stream(toy_bundle: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(toy_bundle)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    left, seconds = said.split()
    assert (process.returncode, left) == (0, "0") and float(seconds) < 1


@pytest.mark.parametrize("mode", ["video", "live"])
def test_a_program_may_end_within_a_stream(toy_bundle: Path, mode: str) -> None:
    code = (
        INTERRUPTED.split("try:", maxsplit=1)[0]
        + f"results = seg.stream(endless(), mode={mode!r})\nnext(results)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(toy_bundle)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_leaves_a_running_stream_alone(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    clip = Clip([photo[:40, :60]] * 60)
    results = toy_segmenter.stream(clip)
    next(results)
    child = os.fork()
    if child == 0:
        try:
            next(results)
        except patchcut.EngineError:
            os._exit(clip.closed)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child has closed the parent's source"
    assert [one.index for one in results] == list(range(1, 60))
