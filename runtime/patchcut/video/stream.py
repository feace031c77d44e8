"""A stream of results: frames are read on one thread and segmented on another, ahead of who takes them."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Literal, get_args

from patchcut.ahead import Ahead, Clock, Sleep, waiting
from patchcut.checks import check_choice, check_number, check_whole, use_plain_values
from patchcut.errors import OptionError, SourceError
from patchcut.frames import Frame
from patchcut.result import Result
from patchcut.sources import Source
from patchcut.video.segmenting import (
    Beside,
    Clip,
    Made,
    Read,
    SegmentRead,
    counted,
    segmented_beside,
    segmented_together,
    several,
)

StreamMode = Literal["auto", "video", "live"]
STREAM_MODES: tuple[StreamMode, ...] = get_args(StreamMode)
MAX_QUEUE = 1024
MAX_FPS = 1e6
_LONGEST_S = 1e9
# Results that may wait for whoever takes them when another frame is begun beside others.
_MOST_WAITING = 1
_NAP_S = 0.05

# Results of frames, given the milliseconds that each was waited for.
Segment = Callable[[Sequence[Frame], Sequence[dict[str, float]]], list[Result]]
# A frame as the segmenter takes it.
Convert = Callable[[Frame], Frame]


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """How a source becomes results. A value that is not allowed is an OptionError that names it.

    Attributes:
        mode: "video": every frame, in order, none lost. "live": always the newest frame, and `Result.dropped`
            counts what was skipped; a recording is played at its own speed for that, and photos are all
            taken. "auto" is "live" for cameras and live streams, and "video" for all else.
        queue: in "video", frames that wait for the segmenter, from 0 to 1024; one result waits for whoever
            takes it. With 0 a frame is read when its result is asked for, on the caller's thread. Photos,
            each of which may fill the memory, are always read so.
        max_fps: at most so many results a second; in "video" what comes before waits. None is no limit.
        start, stop: seconds on the clock of `time_s`: only frames from start on and before stop are
            segmented. Of a source of several videos it holds for each. None is no limit.
        track: whether the frames of a video know of those before: what is found holds still, and an object
            keeps its id, `Result.track_ids`. Else each is judged by itself.
        reuse_below: frames of a video that differ from the last segmented one by at most so many grey levels
            in each of 32 x 32 blocks get its answer, at most ten in a row, and `Result.reused` says so: a
            still picture costs next to nothing then. 0 to 255; None segments all.
    Examples:
        >>> patchcut.StreamOptions(mode="live", max_fps=10).queue
        2
    """

    mode: StreamMode = "auto"
    queue: int = 2
    max_fps: float | None = None
    start: float | None = None
    stop: float | None = None
    track: bool = True
    reuse_below: float | None = None

    def __post_init__(self) -> None:
        use_plain_values(self)
        check_choice("mode", self.mode, STREAM_MODES)
        check_whole("queue", self.queue, 0, MAX_QUEUE)
        if self.max_fps is not None:
            check_number("max_fps", self.max_fps, 1 / MAX_FPS, MAX_FPS)
        if self.reuse_below is not None:
            check_number("reuse_below", self.reuse_below, 0.0, 255.0)
        for name in ("start", "stop"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), -_LONGEST_S, _LONGEST_S)
        if self.start is not None and self.stop is not None and self.stop <= self.start:
            raise OptionError("stop", f"must be later than start, {self.start:g}, got {self.stop:g}")

    def is_live(self, part: Source) -> bool:
        """Whether the newest frame of a source wins.

        Examples:
            >>> patchcut.StreamOptions().is_live(patchcut.open_source([frame]))
            False
        """
        if self.mode == "auto":
            return part.live
        return self.mode == "live" and part.kind != "images"


def results_of(
    part: Source,
    options: StreamOptions,
    segment: Segment,
    convert: Convert,
    *,
    together: int = 1,
    beside: Beside | None = None,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
) -> Iterator[Result]:
    """Results of the frames of one part of a source, in order.

    Args:
        part: one of `Source.parts`, open; what cannot be segmented is among its problems.
        options: how.
        segment: makes the results; it is called on one thread.
        convert: makes of a source's frame one that `segment` takes.
        together: how many frames at most `segment` is given.
        beside: what runs frames that are read ahead beside each other, where the engine does that.
        clock, sleep: seconds; replaced in tests.
    What `part`, `convert` and `segment` raise comes after the results of the frames before.
    Examples:
        >>> from patchcut.video.stream import results_of
        >>> segment = lambda frames, timings_ms: [seg(one) for one in frames]
        >>> source = patchcut.open_source([frame, frame])
        >>> [one.index for one in results_of(source, patchcut.StreamOptions(), segment, lambda frame: frame)]
        [0, 1]
    """
    clip = Clip(part, options.is_live(part))
    together = 1 if clip.live or options.max_fps is not None else together
    pace = Pace(options.max_fps, clock, sleep)
    read = read_frames(clip, options, convert, clock=clock, sleep=sleep)
    segment_read = partial(_segment_read, segment)
    if not clip.live and (options.queue == 0 or part.kind == "images"):
        for made in _segmented(filter(None, read), segment_read, together, pace):
            if made is not None:
                held = [made.result]
                del made  # its memory is free for the next frame where the caller lets it go
                yield held.pop()
        return
    reader = Ahead(
        read,
        name="patchcut-read",
        most=options.queue,
        newest=clip.live,
        silence_s=part.silence_s,
        on_silence=part.tell_silence,
    )
    rolling = None
    if beside is not None and not clip.live and options.max_fps is None:
        rolling = _BesideEachOther(clip, reader, beside, segment_read)
    caller = threading.get_ident()

    def segmented() -> Iterator[Made | None]:
        # Where the system starts no more threads, this is the caller's own, who may use the segmenter between
        # two results, and would wait for himself.
        if rolling is None or threading.get_ident() == caller:
            yield from _segmented(reader, segment_read, together, pace)
        else:
            yield from rolling

    segmenter = Ahead(
        segmented(), name="patchcut-segment", most=1 if rolling is None else sys.maxsize, newest=clip.live
    )
    try:
        yield from map(counted if rolling is None else rolling.counted, segmenter)
    finally:
        _end(reader, segmenter, part)


def _segment_read(
    segment: Segment, read: Sequence[Read], waited_ms: Sequence[dict[str, float]]
) -> list[Result]:
    return segment([one.frame for one in read], waited_ms)


def _end(reader: Ahead[Read], segmenter: Ahead[Made], part: Source) -> None:
    """Ends both threads; a reader that is stuck keeps the source from being closed under it."""
    part.abandoned = True  # until it is known, whatever interrupts this
    reader.stop()
    segmenter.stop()
    segmenter.join()
    part.abandoned = not reader.join()


def read_frames(
    clip: Clip,
    options: StreamOptions,
    convert: Convert,
    *,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
) -> Iterator[Read | None]:
    """The frames that are wanted, as the segmenter takes them; None where there is nothing yet."""
    frames = clip.part.in_turn()
    if options.start is not None or options.stop is not None:
        frames = _between(frames, options.start, options.stop, clip.part)
    if clip.live and not clip.part.own_pace:
        frames = _played(frames, clock, sleep)
    numbers = count()

    def numbered(frame: Frame | None) -> Read | None:
        return None if frame is None else Read(clip, next(numbers), convert(frame))

    return map(numbered, frames)  # not a loop: that would hold a frame while the next one is read


def _between(
    frames: Iterator[Frame | None], start: float | None, stop: float | None, part: Source
) -> Iterator[Frame | None]:
    """The frames of some seconds; None for those before. A part that ends before them has a problem.

    Raises:
        OptionError: they have no times.
    """
    last_s, wanted = None, False
    for frame in frames:
        if frame is None:
            yield None
            continue
        if frame.time_s is None:
            what = f"needs frames that have times, those of {frame.name or 'this source'} have none"
            raise OptionError("start" if start is not None else "stop", what, "leave it out")
        last_s = frame.time_s
        if stop is not None and last_s >= stop:
            return
        wanted = start is None or last_s >= start
        yield frame if wanted else None
    if start is not None and last_s is not None and not wanted:
        what = f"has no frame from {start:g} s on: its last is at {last_s:.2f} s"
        part.problems.append(str(SourceError(part.name, what, "start earlier")))


def _played(frames: Iterator[Frame | None], clock: Clock, sleep: Sleep) -> Iterator[Frame | None]:
    """The frames of a recording when a player would show them."""
    begin_s: float | None = None
    for frame in frames:
        if frame is not None and frame.time_s is not None:
            begin_s = clock() - frame.time_s if begin_s is None else begin_s
            yield from waiting(begin_s + frame.time_s - clock(), clock, sleep)
        yield frame


class Pace:
    """Turns that are 1 / fps apart, or later; with None, at once."""

    def __init__(self, fps: float | None, clock: Clock = time.monotonic, sleep: Sleep = time.sleep) -> None:
        self._interval_s = 0.0 if fps is None else 1 / fps
        self._clock, self._sleep = clock, sleep
        self._next_s = clock()

    def left_s(self) -> float:
        """Seconds until a turn may begin; not above 0 where it may."""
        return self._next_s - self._clock()

    def begin(self) -> None:
        """Begins a turn."""
        self._next_s = max(self._next_s, self._clock()) + self._interval_s

    def turn(self) -> Iterator[None]:
        """The wait for the next turn, which then begins."""
        if self._interval_s:
            yield from waiting(self.left_s(), self._clock, self._sleep)
            self.begin()


def _segmented(
    frames: Iterator[Read], segment: SegmentRead, together: int, pace: Pace
) -> Iterator[Made | None]:
    """Results of frames; those that came before an error are given before it is raised."""
    error = None
    while error is None:
        yield from pace.turn()
        read, waited_ms, error = several(frames, together)
        if not read:
            break
        made = segmented_together(read, waited_ms, segment)
        del read
        while made:
            yield made.pop(0)
    if error is not None:
        raise error


class _BesideEachOther:
    """Results of a recording's frames that run beside each other.

    While results wait for whoever takes them, no other frame is begun.

    Args:
        clip, reader: of the frames.
        beside, segment: what segments them.
    """

    def __init__(self, clip: Clip, reader: Ahead[Read], beside: Beside, segment: SegmentRead) -> None:
        self._clip, self._reader = clip, reader
        self._beside, self._segment = beside, segment
        self._made = -1
        self._taken = threading.Event()
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[Made | None]:
        """Those that came before an error are given before it is raised."""
        while self._error is None:
            while self._is_full:
                self._taken.clear()
                if self._is_full:
                    self._taken.wait(_NAP_S)
                yield None
            first = self._next()
            if first is None:
                break
            ready = [first]
            del first
            for made in segmented_beside(partial(self._take, ready), self._beside, self._segment):
                self._made = made.number
                held = [made]
                del made
                yield held.pop()
        if self._error is not None:
            raise self._error

    def counted(self, made: Made) -> Result:
        """A result that is handed out."""
        result = counted(made)
        self._taken.set()
        return result

    @property
    def _is_full(self) -> bool:
        return self._made - self._clip.last > _MOST_WAITING

    def _take(self, ready: list[tuple[Read, dict[str, float]]]) -> tuple[Read, dict[str, float]] | None:
        """A frame that is there."""
        if ready:
            return ready.pop()
        if self._error is not None or self._is_full or not self._reader.is_ready():
            return None
        return self._next()

    def _next(self) -> tuple[Read, dict[str, float]] | None:
        read, waited_ms, self._error = several(self._reader, 1)
        return (read[0], waited_ms[0]) if read else None
