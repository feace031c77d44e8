"""Results of what was pointed at, frame by frame."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

from patchcut.endings import finished_first
from patchcut.features import to_host
from patchcut.finishing import Clock
from patchcut.frames import Frame
from patchcut.result import Result
from patchcut.stages import Canvas, Components, Masks, Regions
from patchcut.stages.masks import KeepLabels
from patchcut.stages.regions import rank
from patchcut.video.pointed import PointedObjects
from patchcut.video.prompts import Float32, Prompt
from patchcut.work import Work


@dataclass(frozen=True, eq=False)
class Follower:
    """Turns frames in order into results of objects that were pointed at.

    Attributes:
        work: makes the features.
        needs: their names.
        masks: how an assignment becomes regions.
        objects: what is followed.
    """

    work: Work
    needs: tuple[str, ...]
    masks: Masks
    objects: PointedObjects

    @finished_first()
    def __call__(self, frames: Sequence[Frame], timings_ms: Sequence[dict[str, float]] = ()) -> list[Result]:
        """One result for each frame; `timings_ms` are those of each until now."""
        self.work.extractor.check_process()
        before = timings_ms or [{} for _ in frames]
        with self.work.turns:
            return [self._follow(frame, Clock(ms)) for frame, ms in zip(frames, before, strict=True)]

    def _follow(self, frame: Frame, clock: Clock) -> Result:
        extractor, objects = self.work.extractor, self.objects
        canvas = self.work.canvas(frame)
        assignment = objects.empty(canvas)
        if objects.wants(frame.index):
            extractor.preprocess([frame])
            clock.stop("preprocess")
            features = extractor.run(1)
            clock.stop("backbone")
            assignment = objects(to_host(features.of(self.needs))[0], canvas, frame.index)
            clock.stop("head")
        regions = regions_of(self.masks, frame, assignment, canvas, objects.keep_labels)
        clock.stop("masks")
        return Result.of(
            regions,
            frame,
            assignment=assignment,
            labels=objects.labels,
            grid_hw=canvas.grid_hw,
            timings_ms=clock.ms,
            track_ids=np.array(objects.ids, np.int32)[regions.region_labels - 1],
        )


def whole_objects(components: Components) -> Components:
    """The same pixels with one component for each label, of one piece or of several."""
    present = np.unique(components.label_map)
    present = present[present > 0].astype(np.int32)
    table = np.zeros(int(components.label_map.max()) + 1, np.int32)
    table[present] = np.arange(1, len(present) + 1)
    ids = kernels.relabel(components.label_map, table)
    stats = kernels.region_stats(
        ids, len(present), label_map=components.label_map, confidence=np.asarray(components.confidence)
    )
    return replace(components, ids=ids, stats=stats)


def regions_of(
    masks: Masks, frame: Frame, assignment: Float32, canvas: Canvas, keep_labels: KeepLabels | None = None
) -> Regions:
    """One region for each object of a frame, best first; arguments as `Masks.components` takes them.

    Examples:
        >>> frame = patchcut.Frame(frame)
        >>> assignment = seg.head(features)[0]
        >>> len(patchcut.video.following.regions_of(seg.masks, frame, assignment, canvas).scores)
        1
    """
    return rank(whole_objects(masks.components(frame, assignment, canvas, keep_labels)), masks.rules)


class Tracking(Iterator[Result]):
    """Results of each frame of a source, in order, of what was pointed at; made by `Segmenter.track`.

    Objects can be added and removed while it runs, from any thread; that holds from the next frame that is
    segmented on, which may be two after the one whose result was taken last (with `queue=0`, the next).
    `close` ends it early, as for any stream.
    Examples:
        >>> tracking = seg.track([frame, frame, frame], boxes=[(100, 0, 400, 512)], queue=0)
        >>> next(tracking).track_ids.tolist()
        [1]
        >>> tracking.add(point=(30, 30), name="wall")
        2
        >>> sorted(next(tracking).track_ids.tolist())
        [1, 2]
        >>> tracking.remove(1)
        >>> [result.track_ids.tolist() for result in tracking]
        [[2]]
    """

    def __init__(self, results: Generator[Result, None, None], objects: PointedObjects) -> None:
        self._results = results
        self._objects = objects

    def __next__(self) -> Result:
        return next(self._results)

    @property
    def lost(self) -> tuple[int, ...]:
        """Ids of the objects that the frame segmented last does not show."""
        return self._objects.lost

    def add(
        self,
        *,
        point: Sequence[float] | None = None,
        box: Sequence[float] | None = None,
        mask: npt.NDArray[Any] | None = None,
        name: str = "",
    ) -> int:
        """The id of a new object, which one of the three points at on the next frame.

        Args:
            point, box, mask, name: as in `Segmenter.track`, of one object.
        Raises:
            OptionError: it is none, or does not lie on the frames so far.
        Examples:
            >>> seg.track([frame], points=[(250, 250)]).add(box=(0, 0, 90, 90))
            2
        """
        prompt = Prompt(point=point, box=box, mask=mask, name=name)
        if self._objects.frame_hw is not None:
            prompt.check_frame(self._objects.frame_hw)
        return self._objects.add(prompt)

    def remove(self, number: int) -> None:
        """Forgets an object; its id is not used again.

        Raises:
            OptionError: "[remove] there is no object 3; there are 1, 2".
        Examples:
            >>> seg.track([frame], points=[(250, 250)]).remove(1)
        """
        self._objects.remove(number)

    def close(self) -> None:
        """Ends it: its threads and its source.

        Examples:
            >>> seg.track([frame], points=[(250, 250)]).close()
        """
        self._results.close()
