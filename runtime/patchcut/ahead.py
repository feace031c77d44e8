"""Work that a thread does ahead of whoever takes what it gives."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from patchcut import endings  # noqa: F401 - its end of the interpreter comes after this one's
from patchcut.errors import EngineError

_logger = logging.getLogger("patchcut")

Item = TypeVar("Item")

# How long a stopped thread is waited for; one that is stuck in a read ends by itself after it.
_STOP_S = 1.0
_NAP_S = 0.05

Clock = Callable[[], float]
Sleep = Callable[[float], None]


class Ahead(Generic[Item]):
    """Runs an iterator on a thread of its own; iterating gives its items in order, and then what it raised.

    The thread starts when the first item is asked for. It is never further ahead than `most` items and the
    one that it is making. Where the system starts no more threads, items are made when they are asked for.

    Args:
        items: what the thread runs. A None says that there is nothing yet, and is not given: so a wait in
            there ends soon after `stop`.
        name: the thread's.
        most: how many items wait at most; then the thread waits, too. With 0 an item is begun when it is
            asked for.
        newest: an item replaces one that waits, takes its turn, and that one is dropped: any where True, and
            `most` is 1 then; or the one for which `newest(item, waiting)` is true.
        silence_s: an iterator that gives nothing for so long, not even None, is given up.
        on_silence: called then, before the items end.
        news: set whenever an item, or the end, has come: for whoever takes items of several.
    Attributes:
        most: as above; may be changed.
        dropped: how many items newer ones have replaced.
    Examples:
        >>> ahead = patchcut.ahead.Ahead(iter("abc"), name="letters")
        >>> "".join(ahead)
        'abc'
    """

    def __init__(
        self,
        items: Iterator[Item | None],
        *,
        name: str,
        most: int = 1,
        newest: bool | Callable[[Item, Item], bool] = False,
        silence_s: float | None = None,
        on_silence: Callable[[], None] | None = None,
        news: threading.Event | None = None,
    ) -> None:
        self.most = 1 if newest is True else most
        self.dropped = 0
        self._items: Iterator[Item | None] = items
        self._replaces = newest if callable(newest) else lambda item, waiting: newest
        self._silence_s, self._on_silence = silence_s, on_silence
        self._waiting: deque[Item] = deque()
        self._error: BaseException | None = None
        self._news = news
        self._ended = self._stopped = self._asked = False
        self._alive_s = time.monotonic()
        self._changed = threading.Condition()
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._started = self._inline = False

    def __iter__(self) -> Ahead[Item]:
        return self

    def __next__(self) -> Item:
        """The next item, waited for.

        Raises:
            EngineError: the thread stayed in the process that this one was forked from.
        """
        self._check_process()
        self._start()
        if self._inline:
            return next(item for item in self._items if item is not None)
        with self._changed:
            self._ask()
            while not (self._waiting or self._ended or self._stopped):
                if not self._changed.wait(self._patience_s()) and self._is_silent():
                    self._stopped = True
                    if self._on_silence is not None:
                        self._on_silence()
            if self._stopped:
                raise StopIteration
            if self._waiting:
                self._alive_s = time.monotonic()  # one that waited for room was not silent
                self._changed.notify_all()
                return self._waiting.popleft()
            error, self._error = self._error, None
        if error is None:
            raise StopIteration
        raise error

    def is_ready(self) -> bool:
        """Whether the next item, an error or the end is there without a wait; from now on one is asked for.

        Raises:
            EngineError: the thread stayed in the process that this one was forked from.
        Examples:
            >>> ahead = patchcut.ahead.Ahead(iter("abc"), name="letters")
            >>> next(ahead), ahead.stop(), ahead.is_ready()
            ('a', None, True)
        """
        self._check_process()
        self._start()
        if self._inline:
            return True
        with self._changed:
            self._ask()
            return bool(self._waiting) or self._ended or self._stopped or self._is_silent()

    @property
    def is_elsewhere(self) -> bool:
        """Whether this is a fork of the process that has the thread."""
        return os.getpid() != self._process

    def stop(self) -> None:
        """Has the thread end; it may be in the middle of an item still.

        Examples:
            >>> ahead = patchcut.ahead.Ahead(iter("abc"), name="letters")
            >>> ahead.stop()
            >>> list(ahead)
            []
        """
        if self.is_elsewhere:  # its lock may be held for ever
            return
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._changed.notify_all()
        if self._inline:
            self._items = iter(())

    def join(self, timeout_s: float = _STOP_S) -> bool:
        """Waits for the thread after `stop`; whether it has ended, or never began.

        Examples:
            >>> ahead = patchcut.ahead.Ahead(iter("abc"), name="letters")
            >>> ahead.stop()
            >>> ahead.join()
            True
        """
        if self.is_elsewhere:
            return False
        if self._started and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
            _running.discard(self)  # one that is stuck is not waited for twice
        return not self._thread.is_alive()

    def _check_process(self) -> None:
        if self.is_elsewhere:
            what = f"was begun before the fork (by process {self._process}), and its threads stayed there"
            raise EngineError("stream", what, "begin it after the fork, in the child")

    def _start(self) -> None:
        if self._started or self._inline or self._stopped:
            return
        self._alive_s = time.monotonic()
        try:
            self._thread.start()
        except RuntimeError:
            what = "the system starts no more threads, so that one thing is done after the other"
            _logger.warning("[stream] %s; raise the limit of threads (ulimit -u)", what)
            self._inline = True
            return
        self._started = True
        _running.add(self)

    def _run(self) -> None:
        try:
            for item in self._items:
                if self._put(item):
                    break
                del item  # it is not held while the next one is made
                if self._rest():
                    break
            self._items = iter(())  # a generator is closed here, on its thread
        except BaseException as error:  # raised again where items are taken
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._tell()

    def _ask(self) -> None:
        """Has the next item begun where none is until it is asked for."""
        if not self._waiting and not self._asked:
            self._asked = True
            if self.most == 0:
                self._alive_s = time.monotonic()
            self._changed.notify_all()

    def _tell(self) -> None:
        self._changed.notify_all()
        if self._news is not None:
            self._news.set()

    def _put(self, item: Item | None) -> bool:
        """True if nobody wants more."""
        with self._changed:
            self._alive_s = time.monotonic()
            if item is None:
                return self._stopped
            if not self._replace(item):
                self._changed.wait_for(lambda: len(self._waiting) < max(self.most, 1) or self._stopped)
                if not self._stopped:
                    self._waiting.append(item)
            self._asked = False
            self._alive_s = time.monotonic()
            self._tell()
            return self._stopped

    def _replace(self, item: Item) -> bool:
        """Puts an item in place of one that waits; False where it replaces none."""
        for i, waiting in enumerate(self._waiting):
            if self._replaces(item, waiting):
                self._waiting[i] = item
                self.dropped += 1
                return True
        return False

    def _rest(self) -> bool:
        """Waits until an item is asked for, where none is begun before that; true if nobody wants more."""
        with self._changed:
            self._changed.wait_for(lambda: self.most > 0 or self._asked or self._stopped)
            self._alive_s = time.monotonic()
            return self._stopped

    def _patience_s(self) -> float | None:
        if self._silence_s is None:
            return None
        return max(self._alive_s + self._silence_s - time.monotonic(), 0.0)

    def _is_silent(self) -> bool:
        return self._silence_s is not None and time.monotonic() - self._alive_s >= self._silence_s


def waiting(seconds: float, clock: Clock = time.monotonic, sleep: Sleep = time.sleep) -> Iterator[None]:
    """None, now and then, until so many seconds are over: a wait in what an `Ahead` runs.

    Examples:
        >>> list(patchcut.ahead.waiting(0.0))
        []
    """
    end_s = clock() + seconds
    while (left_s := end_s - clock()) > 0:
        sleep(min(left_s, _NAP_S))
        yield None


def stop_all(running: Iterable[Ahead[Any]]) -> None:
    """Stops several at once, and waits for their threads no longer than for one.

    Examples:
        >>> ahead = patchcut.ahead.Ahead(iter("abc"), name="letters")
        >>> next(ahead), patchcut.ahead.stop_all([ahead]), list(ahead)
        ('a', None, [])
    """
    here = [ahead for ahead in running if not ahead.is_elsewhere]
    for ahead in here:
        ahead.stop()
    end_s = time.monotonic() + _STOP_S
    for ahead in here:
        ahead.join(max(end_s - time.monotonic(), 0.0))


_running: weakref.WeakSet[Ahead[Any]] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Python would end the threads where they come back from a library, and that can end the process."""
    stop_all(list(_running))
