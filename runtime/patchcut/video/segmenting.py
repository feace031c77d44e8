"""How frames that were read become results: one by one, together, or beside each other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple

from patchcut.errors import SourceError
from patchcut.frames import Frame
from patchcut.result import Result
from patchcut.sources import Source


@dataclass(eq=False)
class Clip:
    """A part of a source, as a stream goes through it.

    Attributes:
        part: one of `Source.parts`.
        live: the newest frame wins.
        last: number of the last frame whose result was handed out.
    """

    part: Source
    live: bool
    last: int = field(default=-1, init=False)


class Read(NamedTuple):
    """A frame, and how many of its clip came before it."""

    clip: Clip
    number: int
    frame: Frame


class Made(NamedTuple):
    """A result, and how many frames of its clip came before its own."""

    clip: Clip
    number: int
    result: Result


# Results of frames that were read, given the milliseconds that each was waited for.
SegmentRead = Callable[[Sequence[Read], Sequence[dict[str, float]]], list[Result]]
# The next frame that is there, and what was waited for it; None where there is none.
Take = Callable[[], tuple[Read, dict[str, float]] | None]
# Results of frames, each taken and begun as soon as there is room for it, until nothing runs or is there.
Beside = Callable[[Take], Generator[Result, None, None]]


def counted(made: Made) -> Result:
    """The result, which of a live clip knows how many frames were skipped since the one before."""
    clip, number, result = made
    if clip.live:
        dropped = number - clip.last - 1
        vars(result)["dropped"] = dropped  # nobody has seen it yet, and a copy would leave the GPU
        clip.part.dropped += dropped
    clip.last = number
    return result


def several(frames: Iterator[Read], most: int) -> tuple[list[Read], list[dict[str, float]], Exception | None]:
    """Up to `most` frames, how long each was waited for, and what ended them early."""
    read: list[Read] = []
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


def segmented_together(
    read: Sequence[Read], waited_ms: Sequence[dict[str, float]], segment: SegmentRead
) -> list[Made]:
    """Results of frames that were read; those too large for the memory are among their part's problems."""
    try:
        results = segment(read, waited_ms)
        return [Made(one.clip, one.number, result) for one, result in zip(read, results, strict=True)]
    except MemoryError:  # other frames may be smaller
        if len(read) > 1:
            each = zip(read, waited_ms, strict=True)
            return [made for one, ms in each for made in segmented_together([one], [ms], segment)]
        frame = read[0].frame
        what = "does not fit in memory when it is segmented"
        name = frame.name or f"frame {frame.index}"
        read[0].clip.part.problems.append(str(SourceError(name, what, "scale it down")))
        return []


def segmented_beside(take: Take, beside: Beside, segment: SegmentRead) -> Iterator[Made]:
    """Results of frames, in order, until `take` has none; as `segmented_together`, but beside each other."""
    running: deque[tuple[Read, dict[str, float]]] = deque()

    def taken() -> tuple[Read, dict[str, float]] | None:
        if (one := take()) is not None:
            running.append(one)
        return one

    try:
        with closing(beside(taken)) as results:
            for result in results:
                clip, number, _ = running.popleft()[0]
                held = [Made(clip, number, result)]
                del result  # its memory is free for the next frame where the caller lets it go
                yield held.pop()
    except MemoryError:  # one by one, since others may be smaller
        while running:
            one, ms = running.popleft()
            yield from segmented_together([one], [ms], segment)
