"""A stream of results: frames are read on one thread and segmented on another, ahead of who takes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import Literal, NamedTuple, get_args

from patchcut.ahead import Ahead, Clock, Sleep, waiting
from patchcut.checks import check_choice, check_number, check_whole, use_plain_values
from patchcut.errors import OptionError, SourceError
from patchcut.frames import Frame
from patchcut.result import Result
from patchcut.sources import Source

StreamMode = Literal["auto", "video", "live"]
STREAM_MODES: tuple[StreamMode, ...] = get_args(StreamMode)
MAX_QUEUE = 1024
MAX_FPS = 1e6
_LONGEST_S = 1e9

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


class _Read(NamedTuple):
    """A frame, and how many came before it."""

    number: int
    frame: Frame


class _Made(NamedTuple):
    """A result, and how many frames came before its own."""

    number: int
    result: Result


def results_of(
    part: Source,
    options: StreamOptions,
    segment: Segment,
    convert: Convert,
    *,
    together: int = 1,
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
        clock, sleep: seconds; replaced in tests.
    What `part`, `convert` and `segment` raise comes after the results of the frames before.
    Examples:
        >>> from patchcut.video.stream import results_of
        >>> segment = lambda frames, timings_ms: [seg(one) for one in frames]
        >>> source = patchcut.open_source([frame, frame])
        >>> [one.index for one in results_of(source, patchcut.StreamOptions(), segment, lambda frame: frame)]
        [0, 1]
    """
    live = options.is_live(part)
    together = 1 if live or options.max_fps is not None else together
    timing = (clock, sleep)
    read = _read(part, options, convert, live=live, timing=timing)
    if not live and (options.queue == 0 or part.kind == "images"):
        present = filter(None, read)
        made = _segmented(present, part, segment, together, _Pace(options.max_fps, *timing))
        for one in made:
            if one is not None:
                held = [one.result]
                del one  # its memory is free for the next frame where the caller lets it go
                yield held.pop()
        return
    reader = Ahead(
        read,
        name="patchcut-read",
        most=options.queue,
        newest=live,
        silence_s=part.silence_s,
        on_silence=part.tell_silence,
    )
    made = _segmented(reader, part, segment, together, _Pace(options.max_fps, *timing))
    segmenter = Ahead(made, name="patchcut-segment", newest=live)
    try:
        yield from _counted(segmenter, part, live=live)
    finally:
        _end(reader, segmenter, part)


def _end(reader: Ahead[_Read], segmenter: Ahead[_Made], part: Source) -> None:
    """Ends both threads; a reader that is stuck keeps the source from being closed under it."""
    part.abandoned = True  # until it is known, whatever interrupts this
    reader.stop()
    segmenter.stop()
    segmenter.join()
    part.abandoned = not reader.join()


def _counted(made: Iterator[_Made], part: Source, *, live: bool) -> Iterator[Result]:
    """Results that know how many frames of a live source were skipped since the one before."""
    last = -1
    for number, result in made:
        if live:
            dropped = number - last - 1
            vars(result)["dropped"] = dropped  # nobody has seen it yet, and a copy would leave the GPU
            part.dropped += dropped
        last = number
        held = [result]
        del result
        yield held.pop()


def _read(
    part: Source, options: StreamOptions, convert: Convert, *, live: bool, timing: tuple[Clock, Sleep]
) -> Iterator[_Read | None]:
    """The frames that are wanted, as the segmenter takes them; None where there is nothing yet."""
    frames = part.in_turn()
    if options.start is not None or options.stop is not None:
        frames = _between(frames, options.start, options.stop, part)
    if live and not part.own_pace:
        frames = _played(frames, *timing)
    numbers = count()

    def numbered(frame: Frame | None) -> _Read | None:
        return None if frame is None else _Read(next(numbers), convert(frame))

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


class _Pace:
    """Turns that are 1 / fps apart, or later; with None, at once."""

    def __init__(self, fps: float | None, clock: Clock, sleep: Sleep) -> None:
        self._interval_s = 0.0 if fps is None else 1 / fps
        self._clock, self._sleep = clock, sleep
        self._next_s = clock()

    def turn(self) -> Iterator[None]:
        """The wait for the next turn."""
        if self._interval_s:
            yield from waiting(self._next_s - self._clock(), self._clock, self._sleep)
            self._next_s = max(self._next_s, self._clock()) + self._interval_s


def _segmented(
    frames: Iterator[_Read], part: Source, segment: Segment, together: int, pace: _Pace
) -> Iterator[_Made | None]:
    """Results of frames; those that came before an error are given before it is raised."""
    error = None
    while error is None:
        yield from pace.turn()
        read, waited_ms, error = _several(frames, together)
        if not read:
            break
        made = _made(read, waited_ms, part, segment)
        del read
        while made:
            yield made.pop(0)
    if error is not None:
        raise error


def _several(
    frames: Iterator[_Read], most: int
) -> tuple[list[_Read], list[dict[str, float]], Exception | None]:
    """Up to `most` frames, how long each was waited for, and what ended them early."""
    read: list[_Read] = []
    waited_ms: list[dict[str, float]] = []
    try:
        while len(read) < most:
            started = perf_counter()
            if (one := next(frames, None)) is None:
                break
            waited_ms.append({"read": 1e3 * (perf_counter() - started)})
            read.append(one)
    except Exception as error:  # whatever a source of the caller's raises
        return read, waited_ms, error
    return read, waited_ms, None


def _made(
    read: Sequence[_Read], waited_ms: Sequence[dict[str, float]], part: Source, segment: Segment
) -> list[_Made]:
    """Results of frames that were read; those too large for the memory are among the part's problems."""
    try:
        results = segment([one.frame for one in read], waited_ms)
        return [_Made(one.number, result) for one, result in zip(read, results, strict=True)]
    except MemoryError:  # other frames may be smaller
        if len(read) > 1:
            each = zip(read, waited_ms, strict=True)
            return [made for one, ms in each for made in _made([one], [ms], part, segment)]
        frame = read[0].frame
        what = "does not fit in memory when it is segmented"
        name = frame.name or f"frame {frame.index}"
        part.problems.append(str(SourceError(name, what, "scale it down")))
        return []
