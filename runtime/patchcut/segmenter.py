"""The segmenter: stages and settings, ready to turn frames into results."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import patchcut_kernels as kernels

from patchcut.bundle import embedded_bundles
from patchcut.checks import check_environment
from patchcut.description import Description
from patchcut.errors import FrameError, OptionError
from patchcut.finishing import LaterStages, device_of
from patchcut.frames import Frame, as_frame
from patchcut.heads import FittedHead, Head, LiveHead
from patchcut.notes import log_notes, log_problems
from patchcut.opening import Opened, OpenedConcepts, masks_of, open_stages, refiner_of
from patchcut.result import Result
from patchcut.settings import Device, Settings
from patchcut.stages import Extractor, Rules
from patchcut.work import Work

if TYPE_CHECKING:
    from patchcut.concepts import Concepts
    from patchcut.sources import Source
    from patchcut.video import Follower, PointedObjects, StreamMode, StreamOptions, Tracking
    from patchcut.video.segmenting import Beside
    from patchcut.video.stream import Segment

_logger = logging.getLogger("patchcut")

# Settings in which segmenters that share an engine may differ; those of the first line open a head.
_OF_HEADS = ("head", "concepts", "mode", "parts")
_OF_MASKS = ("refine", "min_score", "nothing_below", "single", "color", "value_range", "max_pixels")


class Segmenter:
    """Turns frames into results, one at a time: calls from several threads wait. Made by `load`.

    A copy is opened anew from the settings and shares nothing with this one; so is what a pickle makes, in
    the process that reads it. In a fork of the process that loaded it, a segmenter refuses to work.

    Attributes:
        spec: the bundle's manifest: names, licence, what it was trained on, measured accuracy.
        settings: what was chosen.
        extractor, head, parts, masks: the stages; `parts` is None in the mode "foreground".
    """

    def __init__(self, opened: Opened, settings: Settings, work: Work | None = None) -> None:
        self.spec = opened.spec
        self.settings = settings
        self.head = opened.head
        self.parts = opened.parts
        self.masks = opened.masks
        self._work = work or Work(opened.extractor)
        self._opened = opened
        self._absolute_path = opened.path.absolute()  # the working directory may change
        self._concepts = self._open_concepts(opened.concepts)

    @classmethod
    def open(cls, settings: Settings) -> Segmenter:
        """The segmenter that the settings describe.

        Raises:
            OptionError: a setting has a value that the bundle does not offer; the message lists what it does.
            BundleError: the bundle is missing, damaged, foreign or newer.
            EngineError: the engine's package or the device is not there.
        Examples:
            >>> patchcut.Segmenter.open(patchcut.Settings(mode="parts", parts="kmeans:k=3")).parts.head.k
            3
        """
        check_environment()
        return cls(open_stages(settings), settings)

    def with_settings(self, **changes: Any) -> Segmenter:
        """A segmenter with other settings that works with this one's engine, in turns with it.

        It costs no second backbone: the extractor is the same object. Without another head, nothing is read
        from the bundle either, and the two share their head, and its concepts.

        Args:
            changes: settings by their names: `head`, `concepts`, `mode` and `parts`, which open the bundle
                again; `refine`, `min_score`, `nothing_below`, `single`, `color`, `value_range`, `max_pixels`.
        Raises:
            OptionError: a setting is another one, such as `device`, or has a value that is not allowed; or
                the head needs features that this segmenter was not opened for.
            BundleError: the file is another bundle by now.
        Examples:
            >>> strict = seg.with_settings(min_score=0.9)
            >>> strict.extractor is seg.extractor, strict.settings.min_score
            (True, 0.9)
        """
        allowed = (*_OF_HEADS, *_OF_MASKS)
        for name in changes:
            if name not in allowed:
                what = f"is the engine's, which is shared; what may differ is {', '.join(allowed)}"
                raise OptionError(name, what, "load another segmenter")
        settings = replace(self.settings, **changes)
        masks = masks_of(self.spec, self.masks.rules.calibration, settings)
        now = Opened(self.spec, self._opened.path, self.extractor, self.head, self.parts, masks)
        if any(getattr(settings, name) != getattr(self.settings, name) for name in _OF_HEADS):
            return type(self)(open_stages(settings, now), settings, self._work)
        other = type(self)(now, settings, self._work)
        other._concepts = self._concepts
        return other

    def _open_concepts(self, opened: OpenedConcepts | None) -> Concepts | None:
        if opened is None:
            return None
        from patchcut.concepts import Concepts

        return Concepts(
            opened.live,
            opened.head,
            opened.foreground,
            self._absolute_path,
            self._work.features_of,
            self._taken,
            opened.hidden,
        )

    @property
    def concepts(self) -> Concepts:
        """What it can name, with the head for concepts: more are added and removed while it runs.

        Raises:
            OptionError: '[concepts] needs the head for concepts, this segmenter runs "gnn"; load(..., ...)'.
        Examples:
            >>> patchcut.load(head="concepts").concepts
            <Concepts: none>
        """
        if self._concepts is None or self._concepts.head is not self.head:
            what = f'needs the head for concepts, this segmenter runs "{self.head.name}"'
            raise OptionError("concepts", what, 'load it with head="concepts"')
        return self._concepts

    def __reduce__(self) -> tuple[Any, ...]:
        """How another process opens it: by the settings, with an embedded bundle by name, others by path.

        Raises:
            OptionError: a stage was put in by hand, or a head of the caller's own cannot be pickled.
        """
        settings = self._settings_elsewhere()
        try:
            pickle.dumps(settings)
        except Exception as error:  # whatever the caller's own head raises
            what = f"cannot be pickled: {error}"
            remedy = "load the segmenter in the other process, or give the head a class of a module"
            raise OptionError("head", what, remedy) from error
        return type(self).open, (settings,)

    def __copy__(self) -> Segmenter:
        return type(self).open(self._settings_elsewhere())

    def __deepcopy__(self, memo: object) -> Segmenter:
        return self.__copy__()

    def _settings_elsewhere(self) -> Settings:
        """Settings that open the same segmenter, whatever the working directory is."""
        stages = ("extractor", "head", "parts", "masks")
        if any(getattr(self, stage) is not getattr(self._opened, stage) for stage in stages):
            what = "has a stage that was put in by hand, which its settings do not describe"
            raise OptionError("segmenter", what, "load another one, and put the stage in there")
        if self._concepts is not None and self._concepts.changed:
            what = "has concepts that were added or removed, which its bundle does not hold"
            raise OptionError("segmenter", what, "seg.concepts.save(path), and load that bundle there")
        if self._absolute_path in embedded_bundles().values():
            return self.settings
        return replace(self.settings, bundle=self._absolute_path)

    @property
    def extractor(self) -> Extractor:
        return self._work.extractor

    @extractor.setter
    def extractor(self, extractor: Extractor) -> None:
        self._work.extractor = extractor

    def __call__(
        self,
        frame: object,
        *,
        points: Sequence[Any] = (),
        boxes: Sequence[Any] = (),
        masks: Sequence[Any] = (),
        names: Sequence[str] = (),
    ) -> Result:
        """The regions of one frame, best first; where something is pointed at, one region for each of it.

        Args:
            frame: [H, W, 3] uint8 in the `color` given to `load`, any strides; or grey, with alpha, of more
                than 8 bits, a PIL image, a Frame: see `patchcut.frames.as_frame`.
            points, boxes, masks, names: as in `track`. Where one is given, the head is not asked.
        Returns:
            A Result whose arrays are its own: nothing in it changes with the next frame. Only its `frame` is
            the caller's memory.
        Raises:
            FrameError: the object is not a frame.
            OptionError: a point, box or mask is none, or does not lie on the frame.
            EngineError: the backbone failed, or this is a fork of the process that loaded the segmenter.
        Examples:
            >>> seg(frame).label_map.shape
            (512, 512)
            >>> seg(frame, boxes=[(100, 0, 400, 512)]).track_ids.tolist()
            [1]
        """
        taken = as_frame(frame, self.settings.color, self.settings.pixel_rule)
        log_notes(taken.notes)
        if len(points) or len(boxes) or len(masks) or len(names):
            from patchcut.video import pointed_objects, prompts_of

            pointed = pointed_objects(self.settings, prompts_of(points, boxes, masks, names))
            return self._follower(pointed)([taken])[0]
        return self._work.segment([taken], [self._stages])[0]

    def batch(self, frames: Iterable[object]) -> list[Result]:
        """The regions of several frames, any number and of any sizes, each as `seg(frame)` finds them.

        As many as the engine takes (`seg.extractor.engine.facts.max_batch`) go through the backbone in one
        call: on a GPU at once, on a CPU one after the other or, with `throughput=True`, beside each other and
        beside what follows the backbone. `timings_ms` of a result has its share of what was done together,
        and of a backbone that ran beside others how long it was waited for.

        Args:
            frames: what `seg` takes.
        Returns:
            As many results, in the same order.
        Raises:
            FrameError: "[frame 3] ...": an object is not a frame. They are all looked at first.
            EngineError: as when `seg` is called.
        Examples:
            >>> [result.label_map.shape for result in seg.batch([frame, frame[:100]])]
            [(512, 512), (100, 512)]
        """
        taken = [self._taken(frame, i) for i, frame in enumerate(frames)]
        largest = self.extractor.engine.facts.max_batch
        results: list[Result] = []
        for first in range(0, len(taken), largest):
            several = taken[first : first + largest]
            results += self._work.segment(several, [self._stages] * len(several))
        return results

    def _taken(self, frame: object, i: int) -> Frame:
        """Frame i of several."""
        try:
            taken = as_frame(frame, self.settings.color, self.settings.pixel_rule)
        except FrameError as error:
            raise FrameError(f"frame {i}", error.what, error.remedy) from error
        log_notes(taken.notes)
        return taken

    def stream(
        self,
        source: object,
        *,
        mode: StreamMode = "auto",
        queue: int = 2,
        max_fps: float | None = None,
        every: int = 1,
        start: float | None = None,
        stop: float | None = None,
        track: bool = True,
        reuse_below: float | None = None,
    ) -> Generator[Result, None, None]:
        """Results of each frame of a source, in order; the source is closed at the end.

        The source is opened now; each result has its `frame`. From the first result on, frames are read on
        one thread and segmented on another, ahead of whoever takes the results; both end when the iterator
        is closed or gone. What has to be skipped is logged as a warning of the logger "patchcut"; to have it
        as a list, open the source with `patchcut.open_source` and read its `.problems` afterwards. With
        `refine="auto"` frames of videos and cameras are refined with "guided". Their objects are tracked:
        `Result.track_ids`.

        Args:
            source: what `open_source` takes: file, folder, glob, camera, URL, iterable, or a source itself.
            mode, queue, max_fps, start, stop, track, reuse_below: as in `patchcut.StreamOptions`.
            every: take frames 0, every, 2 * every, ...
        Raises:
            SourceError: the source cannot be opened.
            OptionError: an option has a value that is not allowed.
        What the source, a stage or an own head raises later comes after the results of the frames before.
        Examples:
            >>> [result.index for result in seg.stream([frame, frame])]
            [0, 1]
            >>> [result.index for result in seg.stream([frame] * 5, every=2, queue=8)]
            [0, 2, 4]
        """
        from patchcut.sources import open_source
        from patchcut.video import StreamOptions

        options = StreamOptions(
            mode=mode,
            queue=queue,
            max_fps=max_fps,
            start=start,
            stop=stop,
            track=track,
            reuse_below=reuse_below,
        )
        settings = self.settings
        opened = open_source(source, color=settings.color, every=every, rule=settings.pixel_rule)
        return self._logged(opened, self.results(opened, options))

    def track(
        self,
        source: object,
        *,
        points: Sequence[Any] = (),
        boxes: Sequence[Any] = (),
        masks: Sequence[Any] = (),
        names: Sequence[str] = (),
        at: int = 0,
        mode: StreamMode = "auto",
        queue: int = 2,
        max_fps: float | None = None,
        every: int = 1,
        start: float | None = None,
        stop: float | None = None,
    ) -> Tracking:
        """Results of each frame of a source, in order, of objects that are pointed at in one of them.

        On that frame an object is segmented from its point, box or mask; from there on it is followed, and
        lost and found again where it goes and comes back. `Result.track_ids` has the objects' ids: 1, 2, ...
        for the points, then the boxes, then the masks. A region is a whole object, in one piece or several.
        Frames before `at` have no regions. The head is not asked, and with `refine="auto"` the refiner is
        "guided". Photos are taken as frames that follow one another.

        Args:
            source: as in `stream`; one video, or the photos of one folder.
            points: x, y of each, in pixels of the frame.
            boxes: x0, y0, x1, y1 of each, half-open; what is beyond the frame is cut off.
            masks: [H, W] bool or uint8 of the frame's size for each, 0 is background.
            names: of the objects, in their order, for `Result.labels`; those that have none are "object 1".
            at: index of the frame that is pointed at (`Result.index`), or of the next one that comes.
            mode, queue, max_fps, every, start, stop: as in `stream`.
        Returns:
            A Tracking: an iterator of results, to which objects can be added.
        Raises:
            SourceError: the source cannot be opened.
            OptionError: an option has a value that is not allowed; nothing is pointed at; `Settings.mode` is
                not "foreground".
        An OptionError of a prompt that does not lie on the frame, and of `at` where the source ends before
        it, comes where results are taken.
        Examples:
            >>> [result.track_ids.tolist() for result in seg.track([frame, frame], points=[(250, 250)])]
            [[1], [1]]
        """
        from patchcut.sources import open_source
        from patchcut.video import StreamOptions, Tracking, pointed_objects, prompts_of

        options = StreamOptions(mode=mode, queue=queue, max_fps=max_fps, start=start, stop=stop)
        settings = self.settings
        pointed = pointed_objects(settings, prompts_of(points, boxes, masks, names), at)
        opened = open_source(source, color=settings.color, every=every, rule=settings.pixel_rule)
        return Tracking(self._logged(opened, self.followed(opened, pointed, options)), pointed)

    def _logged(
        self, source: Source, results: Generator[Result, None, None]
    ) -> Generator[Result, None, None]:
        with source, closing(results):  # its threads end before the source is closed
            told = 0
            for result in results:
                told = log_problems(source.problems, told)
                held = [result]
                del result  # its memory is free for the next frame where the caller lets it go
                yield held.pop()
            log_problems(source.problems, told)
            log_notes(source.notes)

    def results(self, source: Source, options: StreamOptions | None = None) -> Generator[Result, None, None]:
        """Results of each frame of an open source, which is neither closed nor asked for its problems.

        Their `timings_ms` begin with "read", the time that the source was waited for.

        Args:
            source: what `open_source` returned.
            options: as `stream` takes them one by one; None is all defaults.
        Examples:
            >>> with patchcut.open_source([frame]) as source:
            ...     [list(result.timings_ms)[0] for result in seg.results(source)]
            ['read']
        """
        from patchcut.video import Reuse
        from patchcut.video.stream import StreamOptions, results_of

        how = options or StreamOptions()
        convert = partial(as_frame, color=self.settings.color, rule=self.settings.pixel_rule)
        together = self._work.together(throughput=True) if self.settings.throughput else 1
        for part in source.parts():
            stages = self._stages_of(part, how)  # they remember what the frames of a part have in common
            segment: Segment = partial(self._segment_with, stages)
            beside = self._beside(stages)
            if part.is_video and how.reuse_below is not None:
                segment, beside = Reuse(segment, how.reuse_below, self._head_now), None
            yield from results_of(part, how, segment, convert, together=together, beside=beside)

    def _head_now(self) -> Head:
        return self.head.now if isinstance(self.head, LiveHead) else self.head

    def followed(
        self, source: Source, objects: PointedObjects, options: StreamOptions | None = None
    ) -> Generator[Result, None, None]:
        """Results of what was pointed at for each frame of an open source; `results` for `track`.

        Args:
            source: what `open_source` returned, or one of its parts.
            objects: of this source and no other.
            options: as `track` takes them one by one; None is all defaults.
        Raises:
            SourceError: after the results of its first part: it has several.
            OptionError: as in `track`.
        Examples:
            >>> objects = patchcut.video.PointedObjects()
            >>> number = objects.add(patchcut.video.Prompt(box=(100, 0, 400, 512)), at=1)
            >>> with patchcut.open_source([frame, frame]) as source:
            ...     [len(result) for result in seg.followed(source, objects)]
            [0, 1]
        """
        from patchcut.video.stream import StreamOptions, results_of

        for part in source.parts():
            objects.begin(part)
            yield from results_of(
                part,
                options or StreamOptions(),
                self._follower(objects),
                partial(as_frame, color=self.settings.color, rule=self.settings.pixel_rule),
            )
            objects.end()

    def _follower(self, objects: PointedObjects) -> Follower:
        from patchcut.video import Follower

        rules = Rules(self.settings.min_score, single=self.settings.single)
        masks = replace(self.masks, refiner=refiner_of(self.settings, of_video=True), rules=rules)
        return Follower(self._work, self.head.needs, masks, objects)

    def _segment_with(
        self, stages: LaterStages, frames: Sequence[Frame], timings_ms: Sequence[dict[str, float]]
    ) -> list[Result]:
        return self._work.segment(frames, [stages] * len(frames), timings_ms)

    def _beside(self, stages: LaterStages) -> Beside | None:
        """What runs the frames of one stream beside each other, where the engine does that."""
        return partial(self._work.as_taken, lambda read: stages) if self._work.runs_beside else None

    def describe(self) -> Description:
        """What runs: bundle, engine, provider, precision, size, devices, threads, heads, refiner, colours.

        Examples:
            >>> seg.describe().provider
            'CPUExecutionProvider'
        """
        facts, rules = self.extractor.engine.facts, self.masks.rules
        height, width = facts.graph.size_hw
        settings = replace(
            self.settings,
            bundle=self._opened.path,
            engine=facts.name,
            device=cast("Device", facts.device),
            precision=facts.precision,
            size=height if height == width else None,
            head=_chosen(self.head),
            nothing_below=rules.nothing_below,
            throughput=bool(self.settings.throughput),
            threads=facts.threads,
            parts=self.settings.parts if self.parts is None else _chosen(self.parts.head),
        )
        return Description(
            settings=settings,
            bundle=f"{self.spec.name} ({self._opened.path})",
            provider=facts.provider,
            why=self.extractor.why,
            weights=facts.weights,
            size_hw=facts.graph.size_hw,
            head_device=device_of(self.head, self.extractor.device),
            kernel_threads=kernels.get_threads(),
            calibrated=rules.calibration is not None,
        )

    @property
    def _stages(self) -> LaterStages:
        """Those of single frames, which remember nothing."""
        return LaterStages(self.head, self.parts, self.masks, self.settings.mode)

    def _stages_of(self, part: Source, options: StreamOptions) -> LaterStages:
        """Those of one part of a source, which is one stream: of a video they remember its frames."""
        if not part.is_video:
            return self._stages
        return self._stages.of_video(refiner_of(self.settings, of_video=True), track=options.track)


def load(bundle: str | Path | None = None, *, settings: Settings | None = None, **changes: Any) -> Segmenter:
    """A segmenter that is ready to run.

    Args:
        bundle: the name of an embedded bundle, or the path of a `.patchcut` file; None is "default".
        settings: what is chosen, all defaults where None.
        changes: settings by their names, over those of `settings`; see `Settings` for all of them.
    Raises:
        OptionError: a setting is unknown or has a value that is not allowed; the message lists what is.
        BundleError: the bundle is missing, damaged, foreign or newer.
        EngineError: the engine's package or the device is not there.
    Examples:
        >>> patchcut.load(head="kmeans:k=3", device="cpu").describe().head_device
        'cpu'
    """
    chosen = Settings() if settings is None else settings
    if not isinstance(chosen, Settings):
        raise OptionError("settings", f"must be a patchcut.Settings, got {type(chosen).__name__}")
    known = [one.name for one in fields(chosen)]
    for name in changes:
        if name not in known:
            raise OptionError(name, f"is no setting; there are {', '.join(known)}")
    if bundle is not None:
        changes["bundle"] = bundle
    segmenter = Segmenter.open(replace(chosen, **changes))
    if segmenter._concepts is not None and not segmenter._concepts.names:
        how = 'seg.concepts.add("mug", images=[...])'
        _logger.warning("[concepts] %s has none yet: all is background until %s", segmenter._opened.path, how)
    return segmenter


def _chosen(head: Head) -> FittedHead | str:
    """A head as the settings name it."""
    return head if isinstance(head, FittedHead) else head.name
