"""From a frame's features to its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from patchcut_kernels.cuda import DeviceArray

from patchcut.errors import EngineError
from patchcut.features import Array, Features, to_host
from patchcut.frames import Frame
from patchcut.heads import (
    FittedHead,
    Following,
    Head,
    LiveHead,
    StreamedHead,
    StreamHead,
    Voted,
    VotingHead,
)
from patchcut.result import Result
from patchcut.settings import Mode
from patchcut.stages import Canvas, DividedPatches, Masks, Parts
from patchcut.stages.regions import Components, Regions, rank

if TYPE_CHECKING:
    from patchcut.video.continuity import Continuity


class Clock:
    """Milliseconds of one stage after the other, kept in `ms` by their names."""

    def __init__(self, ms: dict[str, float]) -> None:
        self.ms = ms
        self._started = perf_counter()

    def stop(self, stage: str) -> None:
        """Ends a stage and begins the next.

        Examples:
            >>> clock = patchcut.finishing.Clock({})
            >>> clock.stop("head")
            >>> list(clock.ms)
            ['head']
        """
        now = perf_counter()
        self.ms[stage] = 1e3 * (now - self._started)
        self._started = now


@dataclass(frozen=True)
class LaterStages:
    """The stages after the extractor; in a stream of video, with what is remembered of the frames before.

    Attributes:
        head, parts, masks: `parts` is None in the mode "foreground".
        mode: of the results.
        continuity: of a video whose objects are tracked.
    """

    head: Head
    parts: Parts | None
    masks: Masks
    mode: Mode
    continuity: Continuity | None = None

    def of_video(self, refiner: str, *, track: bool) -> LaterStages:
        """Those of one stream: clusters keep their column from frame to frame, and objects their track id.

        Args:
            refiner: a key of `patchcut.stages.refiners.REFINERS`.
            track: whether objects are tracked, and heads start from what they found on the frame before.
        Examples:
            >>> patchcut.load()._stages.of_video("guided", track=True).masks.refiner
            'guided'
        """
        from patchcut.video.continuity import Continuity

        head = self.head
        if isinstance(head, FittedHead):
            head = Following(head, warm=track)
        elif isinstance(head, StreamedHead):
            head = head.of_stream()
        parts = None if self.parts is None else self.parts.following(warm=track)
        continuity = Continuity(head.needs) if track else None
        return LaterStages(head, parts, replace(self.masks, refiner=refiner), self.mode, continuity)

    def follows_as(self, other: LaterStages) -> bool:
        """Whether one graph of a GPU does for both: of one head and refiner, nothing divided or tracked.

        Examples:
            >>> stages = patchcut.load()._stages
            >>> stages.follows_as(stages)
            True
        """
        alike = self.head is other.head and self.masks.refiner == other.masks.refiner
        return alike and not any(one.parts or one.continuity for one in (self, other))

    def __call__(self, frame: Frame, features: Features, canvas: Canvas, clock: Clock) -> Result:
        """The result of one frame.

        Args:
            features: of this frame alone, on the engine's device.
            canvas: where the frame lies.
            clock: has its timings until now.
        Raises:
            EngineError: the assignment is not finite.
        """
        if isinstance(self.head, LiveHead):
            return replace(self, head=self.head.now)(frame, features, canvas, clock)
        assignment, patches, voted = self._assign(features)
        clock.stop("head")
        on_device = isinstance(assignment, DeviceArray) and self.masks.stays_on_device(canvas)
        if not on_device:
            assignment = _finite(to_host(assignment))  # once, for the masks and the result
        foreground = assignment if patches is None else patches.foreground
        objects, track_ids = self._objects(frame, foreground, canvas)
        if on_device:
            _finite_if_empty(objects, assignment)
        if patches is None:
            clock.stop("masks")
            return self._result(
                frame, objects, assignment, canvas, clock.ms, track_ids=track_ids, voted=voted
            )
        regions, owners = self.masks.divided(objects, frame, patches, canvas)
        clock.stop("masks")
        return self._result(
            frame,
            regions,
            patches.assignment,
            canvas,
            clock.ms,
            labels=patches.labels,
            background=patches.background_columns,
            track_ids=None if track_ids is None else np.append(np.int32(0), track_ids)[owners],
            voted=voted,
        )

    def ranked(
        self,
        frame: Frame,
        components: Components,
        assignment: DeviceArray,
        canvas: Canvas,
        timings_ms: dict[str, float],
    ) -> Result:
        """The result of one frame, whose components a graph of CUDA has found; arguments as above.

        Raises:
            EngineError: the assignment is not finite.
        """
        regions = rank(components, self.masks.rules)
        _finite_if_empty(regions, assignment)
        return self._result(frame, regions, assignment, canvas, timings_ms)

    def _assign(self, features: Features) -> tuple[Array, DividedPatches | None, Voted | None]:
        """One frame's assignment [n, k]; in modes that divide it what its patches became; and the votes."""
        features = features.to(device_of(self.head, features.device))
        if self.continuity is not None and self.continuity.begin(features):
            self._begin_scene()
        voted = self.head.vote(features) if isinstance(self.head, VotingHead) else None
        assignment: Array = self.head(features)[0] if voted is None else voted.assignment[0]
        if self.continuity is not None:
            assignment = self.continuity.steady(_finite(to_host(assignment)), self.head.labels)
        if self.parts is None:
            return assignment, None, voted
        return assignment, self.parts(features.to("cpu"), _finite(to_host(assignment))), voted

    def _begin_scene(self) -> None:
        """No head starts from a frame before a cut."""
        if isinstance(self.head, StreamHead):
            self.head.begin_scene()
        if self.parts is not None:
            self.parts.begin_scene()

    def _objects(
        self, frame: Frame, assignment: Array, canvas: Canvas
    ) -> tuple[Regions, npt.NDArray[np.int32] | None]:
        """The objects of a frame and, in a video whose objects are tracked, their ids [m]."""
        if self.continuity is None:
            return self.masks(frame, assignment, canvas), None
        min_area = canvas.min_area(self.masks.min_area_patches)
        components = self.masks.components(frame, assignment, canvas, self.continuity.keep_labels)
        names = self.head.labels if self.parts is None and is_named(self.head) else ()
        return self.continuity.regions(components, canvas, self.masks.rules, min_area, names)

    def _result(
        self,
        frame: Frame,
        regions: Regions,
        assignment: Array,
        canvas: Canvas,
        timings_ms: dict[str, float],
        *,
        labels: Sequence[str] | None = None,
        background: tuple[int, ...] = (0,),
        track_ids: npt.NDArray[np.int32] | None = None,
        voted: Voted | None = None,
    ) -> Result:
        names = self.head.labels if labels is None else labels
        return Result.of(
            regions,
            frame,
            assignment=assignment,
            labels=tuple(names[: assignment.shape[1]]),
            background_columns=background,
            track_ids=track_ids,
            named=labels is None and is_named(self.head),
            label_colors=getattr(self.head, "label_colors", ()) if labels is None else (),
            votes=None if voted is None else voted.votes[0],
            voters=self.head.levels if isinstance(self.head, VotingHead) else (),
            mode=self.mode,
            grid_hw=canvas.grid_hw,
            timings_ms=timings_ms,
        )


def is_named(head: Head) -> bool:
    """Whether its labels are names, which mean the same on every frame."""
    return bool(getattr(head, "named", False))


def device_of(head: Head, device: str) -> str:
    """Where a head runs whose features are made on `device`."""
    return device if device in head.devices else "cpu"


def _finite(assignment: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """An assignment [n, k] itself.

    Raises:
        EngineError: it is not finite.
    """
    if not np.isfinite(assignment).all():
        remedy = "the backbone overflows in this precision: try another one"
        raise EngineError("head", "the assignment is not finite", remedy)
    return assignment


def _finite_if_empty(regions: Regions, assignment: Array) -> None:
    """Checks an assignment on a GPU, where no op looks: nothing is found where it is not finite."""
    if not len(regions.scores):
        _finite(to_host(assignment))
