"""The work on frames: one thread at a time takes them through the backbone and what comes after it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from patchcut.endings import finished_first
from patchcut.features import Features
from patchcut.finishing import Clock, LaterStages
from patchcut.frames import Frame
from patchcut.result import Result
from patchcut.stages import Canvas, Extractor, FrameGraphs
from patchcut.turns import Turns

if TYPE_CHECKING:
    from patchcut.stages.extractor import Places
    from patchcut.video.segmenting import Read, Take

# Frames of a recording that are read before they are segmented, with throughput=True: as many as a device on
# the edge has cores, and no more results are held than these.
_TOGETHER = 8
# Frames that somebody asks the features of, between two frames of streams.
_A_TURN = 2


class Work:
    """What a segmenter does with frames.

    Args:
        extractor: makes their features.
    Attributes:
        extractor: the same.
        turns: of the threads that want to work.
        graphs: of frames, on a GPU.
    """

    def __init__(self, extractor: Extractor) -> None:
        self.extractor = extractor
        self.turns = Turns()
        self.graphs = FrameGraphs()

    def together(self, *, throughput: bool) -> int:
        """Frames of streams that go through the backbone in one call: of a GPU several in any case."""
        facts = self.extractor.engine.facts
        alone = facts.device == "cpu" and not throughput
        return 1 if alone else min(_TOGETHER, facts.max_batch)

    def features_of(self, frames: Sequence[Frame]) -> list[tuple[Features, Canvas]]:
        """Features of each frame in memory of their own, and where it lies; between frames of other threads.

        Others wait for two of them at most.
        """
        pairs = (frames[i : i + _A_TURN] for i in range(0, len(frames), _A_TURN))
        return [made for pair in pairs for made in self._features_in_a_turn(pair)]

    @finished_first()
    def _features_in_a_turn(self, frames: Sequence[Frame]) -> list[tuple[Features, Canvas]]:
        """One after the other: in a batch, int8 would round each by the range of all."""
        self.extractor.check_process()
        made = []
        with self.turns:
            for frame in frames:
                sets = self.extractor([frame]).to("cpu").sets
                made.append({name: np.array(array) for name, array in sets.items()})
        grid_hw = self.extractor.graph.grid_hw
        return [(Features(own, grid_hw), self.canvas(frame)) for own, frame in zip(made, frames, strict=True)]

    @finished_first()
    def segment(
        self,
        frames: Sequence[Frame],
        stages: Sequence[LaterStages],
        timings_ms: Sequence[dict[str, float]] = (),
    ) -> list[Result]:
        """Results of as many frames as the engine takes, by the stages of each frame's own stream.

        `timings_ms` are those of each until now. Frames of one stream come in their order.
        """
        self.extractor.check_process()  # before the lock: another thread may have held it at the fork
        before = timings_ms or [{} for _ in frames]
        with self.turns:
            clock = Clock({})
            captured = None
            if all(one.follows_as(stages[0]) for one in stages):
                captured = self.graphs(self.extractor, frames, stages[0].head, stages[0].masks)
            if captured is not None:
                clock.stop("graph")
                found = zip(frames, captured, stages, self._timings(before, clock), strict=True)
                return [
                    its_own.ranked(frame, *one, self.canvas(frame), ms) for frame, one, its_own, ms in found
                ]
            if len(frames) > 1 and self.extractor.engine.facts.beside:
                return self._segment_beside(frames, stages, before)
            self.extractor.preprocess(frames)
            clock.stop("preprocess")
            features = self.extractor.run(len(frames))
            clock.stop("backbone")
            timings = self._timings(before, clock)
            return [
                self.finish(frame, features.frame(i), stages[i], timings[i]) for i, frame in enumerate(frames)
            ]

    def _segment_beside(
        self, frames: Sequence[Frame], stages: Sequence[LaterStages], before: Sequence[dict[str, float]]
    ) -> list[Result]:
        """Results of frames that the engine runs beside each other: one is finished while others run.

        What a result says of its backbone is how long that was waited for.
        """
        clock, results = Clock({}), []
        with self.extractor.beside(frames) as each:
            clock.stop("preprocess")
            for frame, its_own, ms in zip(frames, stages, self._timings(before, clock), strict=True):
                waiting = Clock(ms)
                features = next(each)
                waiting.stop("backbone")
                results.append(self.finish(frame, features, its_own, ms))
        return results

    @property
    def runs_beside(self) -> bool:
        """Whether frames of several streams run beside each other, each begun as soon as there is room."""
        return self.extractor.engine.facts.beside

    def as_taken(self, stages_of: Callable[[Read], LaterStages], take: Take) -> Generator[Result, None, None]:
        """Results of the frames that `take` gives, in order: one is finished while the next ones run.

        A frame is taken as soon as there is a place for it. It ends when nothing runs and `take` has nothing,
        or when another thread waits for this segmenter; then nothing more is taken.
        """
        self.extractor.check_process()
        facts = self.extractor.engine.facts
        count = min(_TOGETHER, facts.max_batch, 2 * facts.threads)  # one of each thread runs, and one is next
        running: deque[tuple[Frame, LaterStages, dict[str, float]]] = deque()
        begun = 0
        with self.turns, self.extractor.places(count) as places:
            while True:
                while len(running) < count and not (begun and self.turns.is_awaited):
                    if (taken := take()) is None:
                        break
                    read, ms = taken
                    del taken
                    clock = Clock(ms)
                    with finished_first():
                        places.begin(begun % count, read.frame)
                    clock.stop("preprocess")
                    running.append((read.frame, stages_of(read), ms))
                    begun += 1
                    del read
                if not running:
                    break
                yield self._finish_next(places, (begun - len(running)) % count, *running.popleft())

    @finished_first()
    def _finish_next(
        self, places: Places, place: int, frame: Frame, stages: LaterStages, timings_ms: dict[str, float]
    ) -> Result:
        waiting = Clock(timings_ms)
        features = places.wait(place)
        waiting.stop("backbone")
        return self.finish(frame, features, stages, timings_ms)

    @staticmethod
    def _timings(before: Sequence[dict[str, float]], clock: Clock) -> list[dict[str, float]]:
        """The timings of each frame until now: its own, and its share of what was done together."""
        share = {stage: ms / len(before) for stage, ms in clock.ms.items()}
        return [{**own, **share} for own in before]

    def finish(
        self, frame: Frame, features: Features, stages: LaterStages, timings_ms: dict[str, float]
    ) -> Result:
        """The result of one frame, whose features are there."""
        return stages(frame, features, self.canvas(frame), Clock(timings_ms))

    def canvas(self, frame: Frame) -> Canvas:
        height, width = frame.image.shape[:2]
        return Canvas.of((height, width), self.extractor.backbone, self.extractor.graph)
