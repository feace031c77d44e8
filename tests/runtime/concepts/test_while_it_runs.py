"""Concepts come and go while frames are segmented: nothing stops, and each result has its own names."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import patchcut
import pytest
from patchcut import Features, Frame, Segmenter
from patchcut.heads import KMeansHead, LiveHead
from patchcut.heads.gnn import GnnHead
from patchcut.heads.prototypes import PrototypesHead
from patchcut.sources.arrays import FrameSource

from tests.runtime.concepts import semantic_toy as toy
from tests.runtime.concepts.semantic_toy import BOX, scene


@pytest.fixture
def seg(tmp_path: Path) -> Segmenter:
    return patchcut.load(toy.bundle(tmp_path / "toy.patchcut"), head="concepts")


def show(seg: Segmenter, name: str, images: int = 5) -> None:
    seg.concepts.add(name, [scene(name, seed=i) for i in range(images)], boxes=[BOX] * images)


def video(frame: np.ndarray, ends: Callable[[], bool]) -> FrameSource:
    def frames() -> Iterator[Frame]:
        index = 0
        while not ends():
            yield Frame(frame, index=index)
            index += 1

    return FrameSource(frames(), kind="video", name="clip")


class Watch:
    """Takes the results of a stream on a thread, and when each came."""

    def __init__(self, seg: Segmenter, frame: np.ndarray, **how: object) -> None:
        self.results: list[patchcut.Result] = []
        self.at_s: list[float] = []
        self.error: BaseException | None = None
        self._ends = False
        stream = seg.stream(video(frame, lambda: self._ends), **how)  # type: ignore[arg-type]
        self._thread = threading.Thread(target=self._take, args=(stream,))
        self._thread.start()

    def _take(self, stream: Iterator[patchcut.Result]) -> None:
        try:
            for result in stream:
                self.results.append(result)
                self.at_s.append(time.monotonic())
        except BaseException as error:
            self.error = error

    def wait(self, count: int) -> None:
        """Until so many more results have come."""
        wanted, end_s = len(self.results) + count, time.monotonic() + 60
        while len(self.results) < wanted and self._thread.is_alive() and time.monotonic() < end_s:
            time.sleep(0.002)
        assert len(self.results) >= wanted, self.error

    def end(self) -> None:
        self._ends = True
        self._thread.join(60)
        assert not self._thread.is_alive() and self.error is None, self.error


@pytest.mark.parametrize("how", [{}, {"track": False}, {"reuse_below": 3.0}, {"mode": "live"}])
def test_a_stream_goes_on_while_concepts_come_and_go(seg: Segmenter, how: dict[str, object]) -> None:
    watch = Watch(seg, scene("mug", "bowl"), **how)
    try:
        watch.wait(5)
        before, started_s = len(watch.results), time.monotonic()
        show(seg, "mug")
        took_s, during = time.monotonic() - started_s, len(watch.results) - before
        watch.wait(8)
        show(seg, "bowl")
        watch.wait(8)
        seg.concepts.remove("mug")
        watch.wait(8)
    finally:
        watch.end()
    assert took_s < 1 or during > 0  # beside a stream on a machine that is busy otherwise
    seen = list(dict.fromkeys(result.labels for result in watch.results))
    everything = ("background", "mug", "bowl")
    assert seen == [everything[:1], everything[:2], everything, ("background", "bowl")]
    for result in watch.results:
        assert result.assignment.shape[1] == len(result.labels)
        assert set(result.label_map.ravel().tolist()) <= set(range(len(result.labels)))
        np.testing.assert_allclose(result.assignment.sum(axis=1), 1, atol=1e-4)
    last = watch.results[-1]
    assert set(last.label_names) == {"bowl"} and last.labels[last.label_map[56, 168]] == "bowl"


def test_an_object_keeps_its_track_when_another_concept_comes(seg: Segmenter) -> None:
    show(seg, "mug")
    watch = Watch(seg, scene("mug", "none"))
    try:
        watch.wait(8)
        show(seg, "leaf")
        watch.wait(8)
    finally:
        watch.end()
    ids = {
        int(track_id)
        for result in watch.results
        if result.track_ids is not None
        for track_id, name in zip(result.track_ids, result.label_names, strict=True)
        if name == "mug" and result.region_ids[56, 56] == list(result.track_ids).index(track_id) + 1
    }
    assert len(ids) == 1


def test_a_frame_keeps_the_concepts_that_it_began_with(seg: Segmenter) -> None:
    """In the middle of a frame the head is another one; the labels are those that the assignment has."""
    head = seg.head
    assert isinstance(head, LiveHead)

    class Slow:
        name, labels, needs, devices = "slow", ("background", "here", "there"), head.needs, ("cpu",)

        def __call__(self, features: Features) -> np.ndarray:
            head.put(before)
            return np.full((features.batch, features.default.shape[1], 3), 1 / 3, np.float32)

    before = head.now
    head.put(Slow())
    assert seg(scene("mug")).labels == Slow.labels
    assert seg(scene("mug")).labels == ("background",)
    with pytest.raises(ValueError, match=r"\[head\] must need the features \('semantic', 'key'\) on cpu"):
        head.put(KMeansHead())


def test_threads_add_and_remove_and_segment_at_once(seg: Segmenter) -> None:
    errors: list[BaseException] = []

    def change(name: str) -> None:
        try:
            for _ in range(4):
                show(seg, name, images=1)
                seg.concepts.remove(name)
            show(seg, name, images=2)
        except BaseException as error:
            errors.append(error)

    def segment() -> None:
        try:
            while any(thread.is_alive() for thread in changing):
                result = seg(scene("mug", "bowl", "leaf"))
                assert result.assignment.shape[1] == len(result.labels)
        except BaseException as error:
            errors.append(error)

    changing = [threading.Thread(target=change, args=(name,)) for name in toy.COLORS]
    others = [threading.Thread(target=segment) for _ in range(2)]
    for thread in [*changing, *others]:
        thread.start()
    for thread in [*changing, *others]:
        thread.join(120)
    assert errors == [] and set(seg.concepts.names) == set(toy.COLORS)


def test_no_head_computes_two_images_at_once(seg: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has one memory for the affinity; frames and what is shown meanwhile have a head each."""
    running: list[object] = []
    together: list[object] = []
    call = GnnHead.__call__

    def slow(self: GnnHead, features: Features) -> object:
        together.extend(one for one in running if one is self)
        running.append(self)
        time.sleep(0.01)
        try:
            return call(self, features)
        finally:
            running.remove(self)

    seg.concepts.add("whole", [scene("mug")], masks=[np.ones((toy.SIDE, toy.SIDE), bool)])
    monkeypatch.setattr(GnnHead, "__call__", slow)
    spec = seg.head.now.spec  # type: ignore[attr-defined]
    concepts = spec.concepts.model_copy(update={"foreground": "gnn"})
    live = PrototypesHead(
        spec.model_copy(update={"concepts": concepts}),
        seg.head.now.prototypes,  # type: ignore[attr-defined]
        seg.concepts._foreground,
    )
    seg.concepts._put(live)
    watch = Watch(seg, scene("mug"))
    adding = [threading.Thread(target=show, args=(seg, name, 4)) for name in toy.COLORS]
    try:
        for thread in adding:
            thread.start()
        for thread in adding:
            thread.join(60)
    finally:
        watch.end()
    assert together == [] and len(seg.concepts) == 4


def test_it_can_be_saved_while_it_runs(seg: Segmenter, tmp_path: Path) -> None:
    watch = Watch(seg, scene("mug", "bowl"))
    try:
        show(seg, "mug")
        seg.concepts.save(tmp_path / "mine.patchcut")
        watch.wait(3)
    finally:
        watch.end()
    assert patchcut.load(tmp_path / "mine.patchcut", head="concepts").concepts.names == ("mug",)
