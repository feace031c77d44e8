"""Live frames of several clients and cameras: one `MultiStream` for those that ask for the same settings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from patchcut import Frame, MultiStream, Result, Segmenter
from patchcut.errors import PatchcutError
from patchcut.pixels import PixelRule
from patchcut.sources import Source
from patchcut.video import PointedObjects, StreamOptions

from patchcut_server.model import Changes, Model
from patchcut_server.pictures import decode_picture
from patchcut_server.refusals import refusal_of, try_later

_NAP_S = 0.05
_SILENT = 0


class Listener(Protocol):
    """Who takes the results of a stream; called on its threads."""

    def result(self, result: Result) -> None: ...

    def problem(self, index: int, words: str) -> None: ...

    def end(self, words: str) -> None: ...


class Inbox(Source):
    """Encoded frames that a client sends: the newest one waits for its turn, and is decoded then.

    Args:
        rule: how pixels are read, and how many there may be.
        on_problem: called with the index of a frame that cannot be decoded, and why.
    Attributes:
        received: how many frames came.
    Examples:
        >>> inbox = Inbox(PixelRule(), print)
        >>> inbox.put(b"P6 1 1 255 abc"), inbox.put(b"P6 2 1 255 abcdef"), inbox.end()
        (None, None, None)
        >>> [(frame.index, frame.image.shape) for frame in inbox]
        [(1, (1, 2, 3))]
    """

    def __init__(self, rule: PixelRule, on_problem: Callable[[int, str], None]) -> None:
        super().__init__("stream", "client")
        self.live = self.own_pace = True
        self.received = 0
        self._rule, self._on_problem = rule, on_problem
        self._newest: tuple[int, bytes] | None = None
        self._ended = False
        self._changed = threading.Condition()

    def put(self, data: bytes) -> None:
        """Has a frame take the place of the one that waits."""
        with self._changed:
            self._newest = (self.received, data)
            self.received += 1
            self._changed.notify()

    def end(self) -> None:
        """Says that no more frames come."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def __iter__(self) -> Iterator[Frame]:
        return (frame for frame in self.in_turn() if frame is not None)

    def in_turn(self) -> Iterator[Frame | None]:
        """The frames that could be decoded; None where none has come for a while."""
        while True:
            with self._changed:
                if self._newest is None and not self._ended:
                    self._changed.wait(_NAP_S)
                taken, self._newest = self._newest, None
                if taken is None and self._ended:
                    return
            yield None if taken is None else self._decoded(*taken)

    def _decoded(self, index: int, data: bytes) -> Frame | None:
        try:
            return decode_picture(data, self._rule, "frame", index)
        except Exception as error:
            refusal = refusal_of(error)
            self._on_problem(index, str(refusal or error))
            return None


@dataclass(eq=False)
class Running:
    """A stream that is open.

    Attributes:
        name: its number.
        group: the streams that it runs with.
    """

    name: int
    group: _Group | _Pointed

    @property
    def ended(self) -> bool:
        """Whether its source gives no more frames."""
        return self.group.has_ended(self.name)

    @property
    def why(self) -> str:
        """What its source said last of what went wrong; "" for nothing."""
        return self.group.why_ended(self.name)

    def close(self) -> None:
        """Ends it; may wait a second for its thread."""
        self.group.remove(self.name)


class Streams:
    """All streams of a server.

    Args:
        model: what segments; a stream stays with the segmenter that it began with.
        most: how many may be open.
    """

    def __init__(self, model: Model, most: int) -> None:
        self._model, self._most = model, most
        self._lock = threading.Lock()
        self._groups: dict[Hashable, _Group | _Pointed] = {}
        self._names = count(1)
        self._opening = 0

    @property
    def open_now(self) -> int:
        """How many are open."""
        with self._lock:
            return sum(len(group.listeners) for group in self._groups.values())

    def open(
        self, source: object, changes: Changes, listener: Listener, objects: PointedObjects | None = None
    ) -> Running:
        """Begins a stream; it may take the time that its source needs to open.

        Args:
            source: what `patchcut.open_source` takes; an `Inbox` where objects are pointed at.
            changes: the settings of its client.
            listener: takes its results.
            objects: what its client points at, which is followed then; None finds all that there is.
        Raises:
            Refusal: 429, as many are open as are allowed.
            OptionError, SourceError: the settings, or the source, cannot be had.
        """
        with self._lock:
            in_hand = self._opening + sum(len(group.listeners) for group in self._groups.values())
            if in_hand >= self._most:
                raise try_later("streams", f"{in_hand} are open, as many as are allowed", "streams full", 5)
            self._opening += 1
        try:
            segmenter = self._model.segmenter(changes)
            with self._lock:
                self._groups = {key: group for key, group in self._groups.items() if group.listeners}
                name = next(self._names)
                key: Hashable = (id(segmenter.extractor), changes) if objects is None else name
                made = _Group(segmenter) if objects is None else _Pointed(segmenter, objects)
                group = self._groups.setdefault(key, made)
                group.listeners[name] = listener  # now, so that the group is not forgotten meanwhile
            try:
                group.add(name, source)
            except BaseException:
                group.listeners.pop(name, None)
                raise
            return Running(name, group)
        finally:
            with self._lock:
                self._opening -= 1

    def close(self) -> None:
        """Ends all of them."""
        for group in list(self._groups.values()):
            group.close()


class _Group:
    """Streams of one segmenter, whose frames take turns; a thread hands out their results."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.listeners: dict[int, Listener] = {}
        self._segmenter = segmenter
        self._streams: MultiStream | None = None
        self._lock = threading.Lock()

    def add(self, name: int, source: object) -> None:
        with self._lock:
            if self._streams is not None:
                self._streams.add(source, name)
                return
            # One that never gives a frame: the others may all end, and more be added later.
            silent = Inbox(self._segmenter.settings.pixel_rule, lambda index, words: None)
            self._streams = MultiStream(self._segmenter, {name: source, _SILENT: silent}, mode="live")
            thread = threading.Thread(target=self._hand_out, args=(self._streams,), name="patchcut-streams")
            thread.daemon = True
            thread.start()

    def remove(self, name: int) -> None:
        with self._lock:
            self.listeners.pop(name, None)
            if self._streams is None:
                return
            with suppress(PatchcutError):  # all have ended
                self._streams.remove(name)
            if not self.listeners:
                self._streams.close()
                self._streams = None

    def has_ended(self, name: int) -> bool:
        streams = self._streams
        return streams is None or name not in streams.running

    def why_ended(self, name: int) -> str:
        streams = self._streams
        told = [] if streams is None else streams.problems.get(name, [])
        return told[-1] if told else ""

    def close(self) -> None:
        with self._lock:
            if self._streams is not None:
                self._streams.close()
                self._streams = None

    def _hand_out(self, streams: MultiStream) -> None:
        try:
            for name, result in streams:
                listener = self.listeners.get(int(name))
                if listener is not None:
                    listener.result(result)
                del result
        except Exception as error:  # of a stage: all are told
            for listener in list(self.listeners.values()):
                listener.end(str(error))
            with self._lock:
                if self._streams is streams:
                    self._streams = None


class _Pointed:
    """One stream of what its client points at, on a thread of its own: its objects are nobody else's."""

    def __init__(self, segmenter: Segmenter, objects: PointedObjects) -> None:
        self.listeners: dict[int, Listener] = {}
        self._segmenter, self._objects = segmenter, objects
        self._inbox: Inbox | None = None
        self._thread: threading.Thread | None = None

    def add(self, name: int, source: object) -> None:
        assert isinstance(source, Inbox)
        self._inbox = source
        self._thread = threading.Thread(target=self._hand_out, args=(name,), name="patchcut-pointed")
        self._thread.daemon = True
        self._thread.start()

    def remove(self, name: int) -> None:
        self.listeners.pop(name, None)
        self.close()

    def has_ended(self, name: int) -> bool:
        return self._thread is None or not self._thread.is_alive()

    def why_ended(self, name: int) -> str:
        return ""

    def close(self) -> None:
        if self._inbox is not None:
            self._inbox.end()
        if self._thread is not None:
            self._thread.join(1.0)

    def _hand_out(self, name: int) -> None:
        assert self._inbox is not None
        try:
            results = self._segmenter.followed(self._inbox, self._objects, StreamOptions(mode="live"))
            for result in results:
                listener = self.listeners.get(name)
                if listener is not None:
                    listener.result(result)
                del result
        except Exception as error:  # of a stage, or of a prompt
            listener = self.listeners.get(name)
            if listener is not None:
                listener.end(str(error))
