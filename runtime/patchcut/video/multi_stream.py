"""Several sources at once: their frames go through the backbone together, and none waits for another."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from patchcut.ahead import Ahead, stop_all
from patchcut.errors import EngineError, OptionError, PatchcutError, SourceError
from patchcut.frames import as_frame
from patchcut.notes import log_notes, log_problems
from patchcut.result import Result
from patchcut.segmenter import Segmenter
from patchcut.sources import Source, open_source
from patchcut.sources.cameras import LiveVideo
from patchcut.sources.opening import camera_index
from patchcut.video.segmenting import Clip, Made, Read, counted, segmented_beside, segmented_together
from patchcut.video.stream import Pace, StreamMode, StreamOptions, read_frames

if TYPE_CHECKING:
    from typing_extensions import Self

StreamName = str | int

# How long nothing is looked at where no source tells of anything.
_NAP_S = 0.05
# Results of recordings that may wait for whoever takes them when the next frames are segmented.
_MOST_WAITING = 1


class MultiStream:
    """Results of several sources as they come, each with the name of the source that it is of.

    A thread for each source reads, and one segments: of the frames that are there, one of each source in
    turn, so that none starves. They go through the backbone in one call on a GPU; with `throughput=True` on a
    CPU beside each other, each begun as soon as there is room for it.
    A source that is slow, stalls, breaks or ends does not hold the others. Within a source all is as in
    `Segmenter.stream`: the order, what a live one drops, what stages remember, and the refiner. Iterating
    ends when all sources have ended; whatever ends it, all threads end within a second, and the sources are
    closed.

    Args:
        seg: what segments; its settings say how. Other threads may call it meanwhile.
        sources: names of streams and their sources, or a list of sources, whose names are 0, 1, ...; each is
            what `open_source` takes. All are opened now.
        mode, queue, max_fps, start, stop, track: as in `patchcut.StreamOptions`, for each source by itself.
            With `queue=0`, and of photos, a frame is read when the result before it is done with.
        every: take frames 0, every, 2 * every, ... of each.
    Raises:
        SourceError: "[door: video.mp4] does not exist; ...": a source cannot be opened.
        OptionError: there are no sources, one is given twice that can be read once, such as a camera, or an
            option has a value that is not allowed.
    What a stage or an own head raises is raised where results are taken, after the results before it.
    Examples:
        >>> with patchcut.MultiStream(seg, {"door": [frame, frame], "yard": [frame]}) as streams:
        ...     sorted((name, result.index) for name, result in streams)
        [('door', 0), ('door', 1), ('yard', 0)]
    """

    def __init__(
        self,
        seg: Segmenter,
        sources: Mapping[StreamName, object] | Sequence[object],
        *,
        mode: StreamMode = "auto",
        queue: int = 2,
        max_fps: float | None = None,
        every: int = 1,
        start: float | None = None,
        stop: float | None = None,
        track: bool = True,
    ) -> None:
        if not isinstance(seg, Segmenter):
            raise OptionError("seg", f"must be a patchcut.Segmenter, got {type(seg).__name__}")
        self._options = StreamOptions(
            mode=mode, queue=queue, max_fps=max_fps, start=start, stop=stop, track=track
        )
        self._seg, self._every = seg, every
        self._convert = partial(as_frame, color=seg.settings.color, rule=seg.settings.pixel_rule)
        self._streams: dict[StreamName, _Stream] = {}
        self._segmenter: Ahead[Made] | None = None
        self._news = threading.Event()
        self._lock = threading.Lock()  # of those who add, remove and close; nothing else waits for it
        self._process = os.getpid()
        self._closed = False
        self._next_name = self._turn = 0
        with ExitStack() as opened:
            opened.callback(self.close)
            for name, source in _named(sources):
                self.add(source, name)
            opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<MultiStream: {len(self.running)} of {len(self._streams)} sources running>"

    def __iter__(self) -> Generator[tuple[StreamName, Result], None, None]:
        """(name, result) as they come; it can be iterated once.

        Raises:
            PatchcutError: it was closed, is iterated already, or has been.
            EngineError: it was made in the process that this one was forked from.
        """
        self._check_open()
        if self._segmenter is not None:
            raise PatchcutError("streams", "are iterated already", "make another MultiStream")
        self._segmenter = self._segmented()
        return self._results()

    @property
    def running(self) -> list[StreamName]:
        """Names of the sources that have not ended."""
        return [] if self._closed else [one.name for one in self._all() if not one.ended]

    @property
    def problems(self) -> dict[StreamName, list[str]]:
        """What was skipped or went wrong in each source, a line for each thing, as `Source.problems`.

        They are logged, too, as warnings of the logger "patchcut".
        """
        return {one.name: list(one.source.problems) for one in self._all()}

    @property
    def dropped(self) -> dict[StreamName, int]:
        """How many frames of each live source newer ones have replaced so far."""
        return {one.name: one.dropped for one in self._all()}

    def add(self, source: object, name: StreamName | None = None) -> StreamName:
        """Opens one more source, also while results are taken, and returns its name.

        Args:
            source: what `open_source` takes.
            name: its name; None is the next number.
        Raises:
            SourceError, OptionError: as when the streams are made; or the name is taken.
            PatchcutError: the streams were closed.
        Examples:
            >>> with patchcut.MultiStream(seg, [[frame]]) as streams:
            ...     streams.add([frame, frame]), streams.running
            (1, [0, 1])
        """
        claim = _claim(source)
        with self._lock:
            name = self._free_name(name, claim)
        stream = _Stream(name, self._open(source, name), claim, Pace(self._options.max_fps))
        stream.reader = self._reader(stream)
        with ExitStack() as undone, self._lock:  # what others may have closed or added meanwhile
            undone.callback(stream.source.close)
            self._streams[self._free_name(name, claim)] = stream
            undone.pop_all()
        self._news.set()
        return name

    def remove(self, name: StreamName) -> None:
        """Ends a source, closes it, and forgets it; it gives no more results.

        Raises:
            OptionError: there is none of that name.
            PatchcutError: the streams were closed.
        Examples:
            >>> with patchcut.MultiStream(seg, {"door": [frame], "yard": [frame]}) as streams:
            ...     streams.remove("door")
            ...     [name for name, result in streams]
            ['yard']
        """
        with self._lock:
            self._check_open()
            stream = self._streams.get(name)
            if stream is None:
                known = ", ".join(map(repr, self._streams)) or "none"
                raise OptionError("name", f"no source is called {name!r}; there are {known}")
            stream.removed = True
            del self._streams[name]
        stream.tell()
        _end([stream])
        self._news.set()

    def close(self) -> None:
        """Ends all threads and closes all sources; harmless when called again.

        Examples:
            >>> streams = patchcut.MultiStream(seg, [[frame], [frame]])
            >>> streams.close()
            >>> streams.running
            []
        """
        if os.getpid() != self._process:  # threads and sources are the parent's, and the lock may be held
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._news.set()
        _end(self._all(), self._segmenter)
        for stream in self._all():
            stream.tell()
            log_notes(stream.source.notes)

    def _check_open(self) -> None:
        if os.getpid() != self._process:
            what = f"were made before the fork (by process {self._process}), and their threads stayed there"
            raise EngineError("streams", what, "make them after the fork, in the child")
        if self._closed:
            raise PatchcutError("streams", "were closed, or have ended", "make another MultiStream")

    def _free_name(self, name: StreamName | None, claim: Hashable) -> StreamName:
        """The name of a source to be added, after all that can be checked before it is opened."""
        self._check_open()
        if name is None:
            taken = [one for one in self._streams if isinstance(one, int)]
            self._next_name = max([self._next_name, *(one + 1 for one in taken)])
            name, self._next_name = self._next_name, self._next_name + 1
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise OptionError("name", f"must be a text or a whole number, got {type(name).__name__}")
        if name in self._streams:
            raise OptionError("name", f"{name!r} is in use", "choose another, or remove that source")
        for other in self._all():
            if claim is not None and claim == other.claim and not other.ended:
                what = f"{_titled(name)} and {_titled(other.name)} are the same, which can be read once"
                raise OptionError("sources", what, "name it once")
        return name

    def _all(self) -> list[_Stream]:
        return list(self._streams.values())  # a copy at once: others may add and remove

    def _open(self, source: object, name: StreamName) -> Source:
        settings = self._seg.settings
        try:
            return open_source(source, color=settings.color, every=self._every, rule=settings.pixel_rule)
        except SourceError as error:
            raise SourceError(f"{_titled(name)}: {error.where}", error.what, error.remedy) from error

    def _results(self) -> Generator[tuple[StreamName, Result], None, None]:
        """Takes results on the caller's thread."""
        with closing(self):
            while self.running and self._segmenter is not None:
                for made in self._segmenter:
                    stream = _clip_of(made).stream
                    if stream.removed:
                        continue
                    held = [counted(made)]
                    del made  # its memory is free for the next frame where the caller lets it go
                    stream.dropped += held[0].dropped
                    for one in self._all():
                        one.tell()
                    stream.handed += 1
                    self._news.set()
                    yield stream.name, held.pop()
                    stream.done += 1
                    self._news.set()
                self._segmenter = self._segmented()  # for sources that were added after it had ended

    def _reader(self, stream: _Stream) -> Ahead[Read]:
        return Ahead(
            self._frames(stream),
            name="patchcut-read",
            most=0,
            newest=_replaces,
            silence_s=stream.source.silence_s,
            on_silence=stream.source.tell_silence,
            news=self._news,
        )

    def _frames(self, stream: _Stream) -> Iterator[Read | None]:
        """Frames of a source, part by part, on its own thread, which closes it where they end."""
        with closing(stream.source):
            for part in stream.source.parts():
                stages = self._seg._stages_of(part, self._options)
                stream.clip = _Clip(part, self._options.is_live(part), stream, stages)
                stream.reader.most = self._ahead_of(stream.clip, 1)
                yield from read_frames(stream.clip, self._options, self._convert)

    def _segmented(self) -> Ahead[Made]:
        """The thread that segments; how many results wait is decided before frames are taken."""
        return Ahead(self._made(), name="patchcut-segment", most=sys.maxsize, newest=_replaces)

    def _made(self) -> Iterator[Made | None]:
        """Results of the frames of all sources, until these have ended."""
        since = perf_counter()
        while self.running:
            self._news.clear()
            segmented = self._beside if self._seg._work.runs_beside else self._together
            idle = True
            for made in segmented(since):
                idle, held = False, [made]
                del made
                yield held.pop()
            if not idle:
                since = perf_counter()
                continue
            paced_s = [one.pace.left_s() for one in self._all() if not one.ended]
            self._news.wait(min([_NAP_S, *(left_s for left_s in paced_s if left_s > 0)]))
            yield None

    def _together(self, since: float) -> Iterator[Made]:
        """Results of frames that are there, of one call of the segmenter."""
        read, waited_ms = self._take(
            since, self._seg._work.together(throughput=bool(self._seg.settings.throughput))
        )
        if not read:
            return
        made = segmented_together(read, waited_ms, self._segment)
        del read
        for one in made:
            _clip_of(one).stream.made += 1
        while made:
            yield made.pop(0)

    def _beside(self, since: float) -> Iterator[Made]:
        """Results of frames until there are none, each begun as soon as there is room for it."""

        def take() -> tuple[Read, dict[str, float]] | None:
            nonlocal since
            read, waited_ms = self._take(since, 1)
            since = perf_counter()
            if not read:
                return None
            _clip_of(read[0]).stream.running += 1
            return read[0], waited_ms[0]

        beside = partial(self._seg._work.as_taken, lambda read: _clip_of(read).stages)
        try:
            for made in segmented_beside(take, beside, self._segment):
                stream = _clip_of(made).stream
                stream.running -= 1
                stream.made += 1
                held = [made]
                del made
                yield held.pop()
                since = perf_counter()
        finally:
            for stream in self._all():
                stream.running = 0

    def _take(self, since: float, together: int) -> tuple[list[Read], list[dict[str, float]]]:
        """Up to `together` frames, those of the source that has waited longest first, and their waits."""
        read: list[Read] = []
        waited_ms: list[dict[str, float]] = []
        turns = deque(sorted(self._eligible(together), key=lambda stream: stream.turn))
        while turns and len(read) < together:
            stream = turns.popleft()
            one = stream.take()
            if one is None:
                continue
            now = perf_counter()
            waited_ms.append({"read": 1e3 * (now - since)})
            since = now
            self._turn += 1
            stream.turn = self._turn
            if not one.clip.live and stream.reader.most > 0:
                turns.append(stream)
            read.append(one)
        return read, waited_ms

    def _eligible(self, together: int) -> list[_Stream]:
        """The streams whose next frame may be taken: with a place for its result."""
        streams = [one for one in self._all() if not one.ended]
        recorded = [one for one in streams if one.clip is not None and not one.clip.live]
        for one in recorded:
            assert one.clip is not None
            one.reader.most = self._ahead_of(one.clip, -(-together // len(recorded)))
        full = sum(one.made - one.handed for one in recorded) > _MOST_WAITING
        return [
            one
            for one in streams
            if one.clip is None
            or (one.clip.live and not one.running)
            or (not one.clip.live and not full and (one.reader.most > 0 or one.is_done))
        ]

    def _ahead_of(self, clip: _Clip, share: int) -> int:
        """How many frames wait: at least its share of a call; one of a live source, and no photo."""
        if clip.live:
            return 1
        if self._options.queue == 0 or clip.part.kind == "images":
            return 0
        return self._options.queue if clip.part.own_pace else max(self._options.queue, share)

    def _segment(self, read: Sequence[Read], timings_ms: Sequence[dict[str, float]]) -> list[Result]:
        stages = [_clip_of(one).stages for one in read]
        return self._seg._work.segment([one.frame for one in read], stages, timings_ms)


@dataclass(eq=False)
class _Stream:
    """One of the sources, and how far it is.

    Attributes:
        name: what the caller calls it.
        source: it is closed by the thread that reads it.
        claim: what no other stream may read meanwhile.
        pace: of its frames.
        reader: reads it.
        clip: the part that it is reading; None until it has begun.
        running: how many of its frames are being segmented beside others.
        made: how many results there are; counted, as `running`, by the thread that segments.
        handed, done: how many of them were given, and after how many the next one was asked for; counted by
            whoever takes them.
        dropped: frames that newer ones have replaced.
        turn: the last turn that it had.
        told: how many problems were logged.
        ended, removed: it gives no more frames; and nobody wants its results.
    """

    name: StreamName
    source: Source
    claim: Hashable
    pace: Pace
    reader: Ahead[Read] = field(init=False)
    clip: _Clip | None = None
    running: int = 0
    made: int = 0
    handed: int = 0
    done: int = 0
    dropped: int = 0
    turn: int = 0
    told: int = 0
    ended: bool = False
    removed: bool = False

    @property
    def is_done(self) -> bool:
        """Whether whoever takes its results is done with all of its frames."""
        return not self.running and self.made == self.done

    def take(self) -> Read | None:
        """The next frame if it is there and due; whatever ends the source ends no other."""
        if self.pace.left_s() > 0:
            return None
        try:
            if not self.reader.is_ready():
                return None
            one = next(self.reader, None)
        except Exception as error:  # whatever a source of the caller's raises
            self._break(error)
            one = None
        if one is None:
            self.ended = True
        else:
            self.pace.begin()
        return one

    def tell(self) -> None:
        """Logs the problems that are new."""
        self.told = log_problems(self.source.problems, self.told)

    def _break(self, error: Exception) -> None:
        told = error
        if not isinstance(error, PatchcutError):
            what = f"broke, and gives no more frames: {type(error).__name__}: {error}"
            told = SourceError(self.source.name, what, "check what reads it")
        self.source.problems.append(str(told))


@dataclass(eq=False)
class _Clip(Clip):
    """A part of a source, and what follows the backbone on its frames alone."""

    stream: _Stream
    stages: Any


def _clip_of(one: Read | Made) -> _Clip:
    return cast("_Clip", one.clip)


def _replaces(item: Read | Made, waiting: Read | Made) -> bool:
    """Whether a frame or a result replaces an earlier one that nobody has taken."""
    return item.clip.live and item.clip is waiting.clip


def _end(streams: Iterable[_Stream], segmenter: Ahead[Made] | None = None) -> None:
    """Ends threads; a reader that is stuck keeps its source from being closed under it."""
    streams = list(streams)
    for one in streams:
        one.source.abandoned = True  # until it is known, whatever interrupts this
    readers: list[Ahead[Any]] = [one.reader for one in streams]
    stop_all(readers if segmenter is None else [segmenter, *readers])
    with ExitStack() as closed:  # each, also where one fails
        for one in streams:
            one.ended = True
            one.source.abandoned = not one.reader.join(0)
            if not one.source.abandoned:
                closed.callback(one.source.close)


def _named(sources: object) -> list[tuple[Any, object]]:
    """The names and sources of what the caller gave.

    Raises:
        OptionError: there are none, or they are not several.
    """
    if not isinstance(sources, Mapping | list | tuple):
        what = f"must be a dict or a list of sources, got {type(sources).__name__}"
        raise OptionError("sources", what, "put it in a list")
    if not sources:
        raise OptionError("sources", "must be at least one, got none")
    return list(sources.items() if isinstance(sources, Mapping) else enumerate(sources))


def _titled(name: StreamName) -> str:
    return name if isinstance(name, str) else f"source {name}"


def _claim(source: object) -> Hashable:
    """What of a source only one stream can read at a time; None of files and addresses."""
    index = camera_index(source)
    if index is not None:
        return f"camera {index}"
    if isinstance(source, str):
        return "stdin" if source == "-" else None
    if isinstance(source, LiveVideo) and source.kind == "camera":
        return source.name
    return id(source) if isinstance(source, Source | Iterator) else None
