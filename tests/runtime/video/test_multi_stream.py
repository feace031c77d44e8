"""Several sources at once: each by itself as alone, none holds another, and everything ends."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import patchcut
import pytest
from patchcut import (
    EngineError,
    Frame,
    MultiStream,
    OptionError,
    PatchcutError,
    Result,
    Segmenter,
    SourceError,
)
from patchcut.sources import Source
from patchcut.sources.opening import camera_index
from patchcut.work import Work

from tests.runtime.results import same
from tests.runtime.video.clips import Clip, walk
from tests.runtime.video.threads import stream_threads, until

pytestmark = pytest.mark.usefixtures("no_threads_left")


class Camera(Clip):
    """A live one."""

    def __init__(self, frames: Sequence[np.ndarray], apart_s: float) -> None:
        super().__init__(frames, name="camera", pauses_s=lambda: apart_s)
        self.kind = "camera"
        self.live = self.own_pace = True


def of_each(streams: MultiStream) -> dict[object, list[Result]]:
    found: dict[object, list[Result]] = {}
    for name, result in streams:
        found.setdefault(name, []).append(result)
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"throughput": True},
        {"throughput": True, "mode": "parts"},
        {"head": "kmeans:k=3", "mode": "scene"},
    ],
)
def test_each_source_gives_the_bits_of_a_stream_of_its_own(
    toy_bundle: Path, photo: np.ndarray, second_photo: np.ndarray, settings: dict[str, object]
) -> None:
    segmenter = patchcut.load(toy_bundle, threads=2, **settings)
    clips = {
        "a": walk(photo, 11),
        "b": walk(second_photo, 6),
        "photos": walk(photo, 3, 5),
        "d": walk(photo, 1),
    }

    def made(name: str) -> Source:
        clip = Clip(clips[name])
        clip.kind = "images" if name == "photos" else "video"
        return clip

    alone = {name: list(segmenter.stream(made(name), queue=0)) for name in clips}
    assert len({one.label_map.tobytes() for one in alone["a"]}) > 4
    found = of_each(MultiStream(segmenter, {name: made(name) for name in clips}))
    assert found.keys() == clips.keys()
    for name, results in found.items():
        assert [one.index for one in results] == list(range(len(clips[str(name)])))
        assert {next(iter(one.timings_ms)) for one in results} == {"read"}
        for one, other in zip(results, alone[str(name)], strict=True):
            same(one, other)


def test_frames_of_different_sources_are_one_call(
    toy_bundle: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = patchcut.load(toy_bundle, threads=2, throughput=True)
    monkeypatch.setattr(Work, "runs_beside", False)  # as on a GPU
    segment, calls = segmenter._work.segment, []

    def counting(frames: Sequence[Frame], *rest: object) -> list[Result]:
        calls.append([frame.name for frame in frames])
        time.sleep(0.05)  # what reads catches up
        return segment(frames, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(segmenter._work, "segment", counting)
    names = "abcd"
    of_each(MultiStream(segmenter, [Clip(walk(photo, 10), name=name) for name in names]))
    assert all(len(call) <= 8 for call in calls) and sum(map(len, calls)) == 40
    assert sum(sorted(call) == sorted(2 * names) for call in calls) >= 3, calls


def test_frames_of_different_sources_run_beside_each_other(
    toy_bundle: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All places are taken before a frame is finished, and the sources take turns."""
    segmenter = patchcut.load(toy_bundle, threads=2, throughput=True)
    fit, finish = segmenter.extractor._fit, segmenter._work.finish
    begun: list[str] = []
    running, finished = [], []

    def fitted(frame: Frame, out: Any) -> None:
        begun.append(frame.name)
        fit(frame, out)

    def finishing(frame: Frame, *rest: Any) -> Result:
        running.append(len(begun) - len(finished))
        time.sleep(0.01)  # what reads catches up
        finished.append(frame.name)
        return finish(frame, *rest)

    monkeypatch.setattr(segmenter.extractor, "_fit", fitted)
    monkeypatch.setattr(segmenter._work, "finish", finishing)
    of_each(MultiStream(segmenter, [Clip(walk(photo, 10), name=name) for name in "abcd"]))
    assert finished == begun and len(begun) == 40
    assert max(running) == 4 and running.count(4) > 20, running
    assert sum(len(set(begun[i : i + 4])) == 4 for i in range(37)) > 25, begun


def test_others_may_call_a_segmenter_whose_streams_never_rest(toy_bundle: Path, photo: np.ndarray) -> None:
    segmenter = patchcut.load(toy_bundle, threads=2, throughput=True)
    small = photo[:40, :60]
    with MultiStream(segmenter, [Clip([small] * 5000) for _ in range(3)]) as streams:
        results = iter(streams)
        taken: list[object] = []
        taking = threading.Thread(target=lambda: taken.extend(results), daemon=True)
        taking.start()
        begun = time.monotonic()
        for _ in range(5):
            same(segmenter(small), segmenter(small))
        assert time.monotonic() - begun < 5 and taking.is_alive()
        streams.close()
        taking.join(5)
    assert not taking.is_alive()


def test_a_frame_too_large_for_the_memory_spares_those_beside_it(
    toy_bundle: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = patchcut.load(toy_bundle, threads=2, throughput=True)
    finish = segmenter._work.finish

    def narrow(frame: Frame, *rest: Any) -> Result:
        if (frame.name, frame.index) == ("a", 2):
            raise MemoryError
        return finish(frame, *rest)

    monkeypatch.setattr(segmenter._work, "finish", narrow)
    streams = MultiStream(segmenter, {name: Clip(walk(photo, 5), name=name) for name in "ab"})
    found = of_each(streams)
    assert [one.index for one in found["a"]] == [0, 1, 3, 4]
    assert [one.index for one in found["b"]] == [0, 1, 2, 3, 4]
    assert len(streams.problems["a"]) == 1 and streams.problems["b"] == []


def test_a_segmenter_for_single_frames_takes_turns(
    toy_segmenter: Segmenter, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fast source is not twice in a row while another one waits."""
    segment, calls = toy_segmenter._work.segment, []

    def slow(frames: Sequence[Frame], *rest: object) -> list[Result]:
        calls.append([frame.name for frame in frames])
        time.sleep(0.02)
        return segment(frames, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(toy_segmenter._work, "segment", slow)
    of_each(MultiStream(toy_segmenter, [Clip(walk(photo, 12), name=name) for name in "ab"]))
    assert all(len(call) == 1 for call in calls)
    assert sum(a == b for a, b in pairwise(calls)) <= 3, calls


@pytest.mark.parametrize("seed", range(3))
def test_order_is_kept_and_nothing_is_lost_whatever_the_speeds(
    toy_bundle: Path, photo: np.ndarray, seed: int
) -> None:
    segmenter = patchcut.load(toy_bundle, threads=2, throughput=seed % 2 == 1)
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 25, 5).tolist()
    pauses_s = [lambda most=most: float(rng.random()) * most for most in (0.0, 0.002, 0.005, 0.01, 0.02)]
    tiny = np.ascontiguousarray(photo[:40, :60])
    clips = [Clip([tiny] * n, pauses_s=pause) for n, pause in zip(counts, pauses_s, strict=True)]
    streams = MultiStream(segmenter, clips, queue=int(rng.integers(0, 4)))
    found: dict[object, list[int]] = {name: [] for name in range(5)}
    for name, result in streams:
        found[name].append(result.index)
        time.sleep(float(rng.random()) * 0.005)
    assert found == {name: list(range(n)) for name, n in enumerate(counts)}
    assert streams.dropped == dict.fromkeys(range(5), 0)
    assert all(clip.closed for clip in clips) and streams.running == []


def test_a_source_that_stalls_holds_nobody(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    gate = threading.Event()
    clips = {"stalled": Clip(walk(photo, 2), gate=gate), "other": Clip(walk(photo, 30))}
    found = []
    with MultiStream(toy_segmenter, clips) as streams:
        for name, result in streams:
            found.append((name, result.index))
            if len(found) == 32:
                assert streams.running in (["stalled"], ["stalled", "other"])
                break
        assert sorted(found) == [("other", i) for i in range(30)] + [("stalled", i) for i in range(2)]
        begun = time.monotonic()
    assert time.monotonic() - begun < 2
    assert not clips["stalled"].closed and clips["other"].closed, "nobody may close what a thread reads"
    gate.set()
    assert until(lambda: clips["stalled"].closed > 0)


def test_a_silent_source_is_given_up_and_told(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    gate = threading.Event()
    clips = {"silent": Clip(walk(photo, 2), gate=gate), "other": Clip(walk(photo, 3))}
    clips["silent"].silence_s = 0.3
    streams = MultiStream(toy_segmenter, clips)
    assert {name: len(results) for name, results in of_each(streams).items()} == {"silent": 2, "other": 3}
    told = "[clip] gave nothing for 0.3 s and was given up; check that it still sends"
    assert streams.problems == {"silent": [told], "other": []}
    gate.set()


def test_a_source_that_breaks_is_told_and_the_others_go_on(
    toy_segmenter: Segmenter, photo: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    clips = [
        Clip(walk(photo, 3), name="torn", error=KeyError("torn")),
        Clip(walk(photo, 20), name="whole"),
        Clip([np.zeros(3)], name="no frame"),  # type: ignore[list-item]
    ]
    with caplog.at_level(logging.WARNING, "patchcut"):
        streams = MultiStream(toy_segmenter, clips)
        found = of_each(streams)
    assert {name: len(results) for name, results in found.items()} == {0: 3, 1: 20}
    (torn,) = streams.problems[0]
    assert torn == "[torn] broke, and gives no more frames: KeyError: 'torn'; check what reads it"
    assert streams.problems[1] == [] and len(streams.problems[2]) == 1
    assert torn in caplog.messages and all(clip.closed for clip in clips)


def test_what_a_stage_raises_ends_all(toy_bundle: Path, photo: np.ndarray) -> None:
    segmenter = patchcut.load(toy_bundle)
    head, calls = segmenter.head, []

    class Breaking:
        name, labels, needs, devices = head.name, head.labels, head.needs, head.devices

        def __call__(self, features: patchcut.Features) -> object:
            calls.append(0)
            if len(calls) == 5:
                raise RuntimeError("the head broke")
            return head(features)

    segmenter.head = Breaking()  # type: ignore[assignment]
    clips = [Clip(walk(photo, 20)) for _ in range(3)]
    taken = 0
    with pytest.raises(RuntimeError, match="the head broke"):
        for _ in MultiStream(segmenter, clips):
            taken += 1
    assert taken == 4 and all(clip.closed for clip in clips) and stream_threads() == []


@pytest.mark.parametrize("how", ["break", "raise", "close", "forget"])
def test_threads_end_with_the_streams(toy_segmenter: Segmenter, photo: np.ndarray, how: str) -> None:
    clips = [Clip([photo[:40, :60]] * 1000) for _ in range(4)]
    streams = MultiStream(toy_segmenter, clips)
    assert stream_threads() == [] and clips[0].given == 0
    results = iter(streams)
    next(results)
    assert until(lambda: stream_threads() == 4 * ["patchcut-read"] + ["patchcut-segment"])
    begun = time.monotonic()
    if how == "raise":
        with pytest.raises(ZeroDivisionError):
            for _ in results:
                raise ZeroDivisionError
    if how == "break":
        for _ in results:
            break
    if how == "close":
        streams.close()
        assert list(results) == []
    del results
    assert stream_threads() == [] and time.monotonic() - begun < 1.5
    assert all(clip.closed and clip.given < 1000 for clip in clips) and streams.running == []


@pytest.mark.parametrize("queue", [1, 3])
def test_a_consumer_that_takes_nothing_bounds_what_is_read(
    toy_segmenter: Segmenter, photo: np.ndarray, queue: int
) -> None:
    clips = [Clip([photo[:40, :60]] * 100) for _ in range(3)]
    results = iter(MultiStream(toy_segmenter, clips, queue=queue))
    next(results)

    def read() -> int:
        return sum(clip.given for clip in clips)

    # One taken, two that wait, and of each source `queue` frames and one that has no room.
    assert until(lambda: read() == 3 + 3 * (queue + 1))
    time.sleep(0.2)
    assert read() == 3 + 3 * (queue + 1)
    assert len(list(results)) == 299


def test_photos_are_read_when_the_result_before_is_done_with(
    toy_segmenter: Segmenter, photo: np.ndarray
) -> None:
    clips = [Clip(walk(photo, 4)) for _ in range(2)]
    for clip in clips:
        clip.kind = "images"
    for _ in (results := iter(MultiStream(toy_segmenter, clips))):
        time.sleep(0.05)
        assert sum(clip.given for clip in clips) <= 8
        assert max(clip.given for clip in clips) - min(clip.given for clip in clips) <= 1
    assert [clip.given for clip in clips] == [4, 4] and list(results) == []


def test_cameras_give_their_newest_frame_beside_a_file(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    """Results that nobody takes in time are replaced, each by one of its own camera; the file loses none."""
    tiny = photo[:40, :60]
    sources = {
        "left": Camera([tiny] * 60, 0.005),
        "file": Clip([tiny] * 10),
        "right": Camera([tiny] * 40, 0.01),
    }
    streams = MultiStream(toy_segmenter, sources)
    found: dict[object, list[Result]] = {name: [] for name in sources}
    for name, result in streams:
        found[name].append(result)
        time.sleep(0.03)
    assert [one.index for one in found["file"]] == list(range(10))
    for name, count in (("left", 60), ("right", 40)):
        indices = [one.index for one in found[name]]
        assert indices == sorted(set(indices)) and indices[-1] == count - 1
        assert [one.dropped for one in found[name]] == [b - a - 1 for a, b in pairwise([-1, *indices])]
        assert streams.dropped[name] == count - len(indices) == sources[name].dropped > 0
    assert streams.dropped["file"] == 0


def test_a_camera_is_new_although_the_results_of_a_file_wait(
    toy_segmenter: Segmenter, photo: np.ndarray
) -> None:
    camera = Camera([photo[:40, :60]] * 400, 0.005)
    results = iter(MultiStream(toy_segmenter, {"file": Clip(walk(photo, 50)), "camera": camera}))
    next(results)
    assert until(lambda: camera.given > 100)
    given = camera.given
    newest = next(result for name, result in results if name == "camera")
    assert newest.index > given - 50
    results.close()


def test_rates_hold_for_each_source(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    begun = time.monotonic()
    clips = [Clip([photo[:40, :60]] * 5) for _ in range(3)]
    assert len(list(MultiStream(toy_segmenter, clips, max_fps=20))) == 15
    assert 4 / 20 <= time.monotonic() - begun < 5


def test_seconds_and_every_choose_frames_of_each(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    clips = [Clip([photo[:40, :60]] * 10) for _ in range(2)]
    found = of_each(MultiStream(toy_segmenter, clips, start=0.25, stop=0.5))
    assert {name: [one.index for one in results] for name, results in found.items()} == {0: [3, 4], 1: [3, 4]}
    tiny = np.ascontiguousarray(photo[:40, :60])
    found = of_each(MultiStream(toy_segmenter, [[tiny] * 5, [tiny] * 3], every=2))
    assert {name: [one.index for one in results] for name, results in found.items()} == {
        0: [0, 2, 4],
        1: [0, 2],
    }


def test_sources_come_and_go_while_it_runs(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    endless = Clip([photo[:40, :60]] * 100_000)
    streams = MultiStream(toy_segmenter, {"endless": endless})
    found: list[object] = []
    for name, _ in streams:
        found.append(name)
        if len(found) == 3:
            assert streams.add(Clip(walk(photo, 4))) == 0
            assert streams.add(Clip(walk(photo, 2)), "late") == "late"
        if {*found} == {"endless", 0, "late"} and "endless" in streams.running:
            streams.remove("endless")
            assert endless.closed and endless.given < 100_000
            ended = len(found)
    assert (found.count(0), found.count("late")) == (4, 2)
    assert "endless" not in found[ended:] and streams.problems.keys() == {0, "late"}


def test_a_source_may_be_added_after_the_last_result(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    streams = MultiStream(toy_segmenter, [Clip(walk(photo, 1))])
    found = []
    for name, _ in streams:
        found.append(name)
        until(lambda: streams.running == [])
        if name == 0:
            streams.add(Clip(walk(photo, 2)))
    assert found == [0, 1, 1]


def test_names_and_sources_that_nobody_means_are_refused(
    toy_segmenter: Segmenter, photo: np.ndarray, tmp_path: Path
) -> None:
    clip, frames = Clip([photo]), iter([photo])
    for sources, what in (
        ([], r"\[sources\] must be at least one, got none"),
        ("video.mp4", r"\[sources\] must be a dict or a list of sources, got str; put it in a list"),
        ([clip, clip], r"\[sources\] source 1 and source 0 are the same, which can be read once"),
        ({"a": frames, "b": frames}, r"\[sources\] b and a are the same"),
        ({1.5: [photo]}, r"\[name\] must be a text or a whole number, got float"),
    ):
        with pytest.raises(OptionError, match=what):
            MultiStream(toy_segmenter, sources)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"\[seg\] must be a patchcut.Segmenter, got str"):
        MultiStream("default", [[photo]])  # type: ignore[arg-type]
    first = Clip([photo])
    with pytest.raises(SourceError, match=r"\[door: .*missing.mp4\] does not exist"):
        MultiStream(toy_segmenter, {"yard": first, "door": tmp_path / "missing.mp4"})
    assert first.closed, "what was opened before is closed"
    with MultiStream(toy_segmenter, {"a": [photo]}) as streams:
        with pytest.raises(OptionError, match=r"\[name\] 'a' is in use"):
            streams.add([photo], "a")
        with pytest.raises(OptionError, match=r"\[name\] no source is called 'b'; there are 'a'"):
            streams.remove("b")
        results = iter(streams)
        with pytest.raises(PatchcutError, match="iterated already"):
            iter(streams)
        assert len(list(results)) == 1
    for call in (lambda: iter(streams), lambda: streams.add([photo]), lambda: streams.remove("a")):
        with pytest.raises(PatchcutError, match=r"\[streams\] were closed, or have ended"):
            call()
    streams.close()


def test_a_camera_is_the_same_by_any_name(
    toy_segmenter: Segmenter, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [camera_index(one) for one in (0, "7", "/dev/video3", Path("/dev/video2"))] == [0, 7, 3, 2]
    assert [camera_index(one) for one in (True, "x.mp4", photo, [0], None)] == [None] * 5
    monkeypatch.setattr("patchcut.sources.opening.LiveVideo", lambda index, every: Camera([photo], 0.0))
    with pytest.raises(OptionError, match=r"yard and door are the same"):
        MultiStream(toy_segmenter, {"door": 0, "yard": "/dev/video0"})
    with MultiStream(toy_segmenter, {"door": 0, "yard": 1}) as streams:
        assert streams.running == ["door", "yard"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_leaves_running_streams_alone(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    clips = [Clip([photo[:40, :60]] * 30) for _ in range(2)]
    streams = MultiStream(toy_segmenter, clips)
    results = iter(streams)
    next(results)
    child = os.fork()
    if child == 0:
        try:
            next(results)
        except EngineError:
            streams.close()
            os._exit(sum(clip.closed for clip in clips))
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child has closed a parent's source"
    assert len(list(results)) == 59


INTERRUPTED = """
import sys, threading, time
import numpy, patchcut
seg = patchcut.load(sys.argv[1])
frame = numpy.zeros((40, 60, 3), numpy.uint8)
def endless():
    while True:
        yield frame
def stuck():
    yield frame
    time.sleep(0.5)
    yield frame
    time.sleep(1000)
results = iter(patchcut.MultiStream(seg, [endless(), endless(), stuck()]))
"""


def test_ctrl_c_in_a_program_ends_its_streams(toy_bundle: Path) -> None:
    code = f"""{INTERRUPTED.replace(", stuck()", "")}
try:
    for name, result in results:
        if result.index == 5:
            print("running", flush=True)
except KeyboardInterrupt:
    begun = time.monotonic()
del results
left = [one for one in threading.enumerate() if one.name.startswith("patchcut-")]
print(len(left), time.monotonic() - begun, flush=True)
"""
    command = [sys.executable, "-c", code, str(toy_bundle)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    left, seconds = said.split()[-2:]
    assert (process.returncode, left) == (0, "0") and float(seconds) < 1.5


def test_a_program_may_end_within_its_streams(toy_bundle: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED + "next(results)\n", str(toy_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
