"""The loop: images in, answers out. It knows nothing of rclpy, and nothing of bags."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from patchcut import Frame, FrameError, Result, Segmenter, StreamOptions
from patchcut.notes import log_notes
from patchcut.pixels import AS_IT_COMES, PixelRule
from patchcut.sources import Source

from patchcut_ros.images import frame_of
from patchcut_ros.messages import ANSWERS, Messages


class Arrived(NamedTuple):
    """An image and when it came.

    Attributes:
        number: how many came before it.
        message: an Image or a CompressedImage.
        time_ns: when it came; of a bag, when it was recorded.
    """

    number: int
    message: Any
    time_ns: int


class Mailbox:
    """Keeps the newest image that came until it is taken; older ones are dropped.

    `put` and `close` may be called on any thread; one thread iterates, which ends when it is closed.
    Examples:
        >>> mailbox = Mailbox()
        >>> mailbox.put("old", 1), mailbox.put("new", 2), mailbox.close(after_last=True)
        (None, None, None)
        >>> list(mailbox)
        [Arrived(number=1, message='new', time_ns=2)]
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._newest: Arrived | None = None
        self._came = 0
        self._closed = False

    def put(self, message: Any, time_ns: int) -> None:
        """An image takes the place of one that waits."""
        with self._changed:
            self._newest = Arrived(self._came, message, time_ns)
            self._came += 1
            self._changed.notify()

    def clear(self) -> None:
        """Drops the image that waits.

        Examples:
            >>> Mailbox().clear()
        """
        with self._changed:
            self._newest = None

    def close(self, *, after_last: bool = False) -> None:
        """Ends the iteration; with `after_last` the image that waits is given before that."""
        with self._changed:
            self._closed = True
            if not after_last:
                self._newest = None
            self._changed.notify()

    def __iter__(self) -> Iterator[Arrived]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None or self._closed)
                taken, self._newest = self._newest, None
            if taken is None:
                return
            yield taken


class Images(Source):
    """The frames of images that arrive; what cannot be read is told, and left out.

    Args:
        arrived: in their order.
        on_problem: called with one line for each image that cannot be read or answered.
        rule: how pixels are read.
    Examples:
        >>> wrong = image(np.zeros((2, 2), np.uint8), "yuv9")
        >>> images = Images([Arrived(0, wrong, 0), Arrived(1, image(np.ones((2, 2)), "mono8"), 5)], print)
        >>> [frame.index for frame in images]
        [image] has the encoding 'yuv9', which is none of ...
        [1]
        >>> images.origin_of(1).time_ns
        5
    """

    def __init__(
        self,
        arrived: Iterable[Arrived],
        on_problem: Callable[[str], None],
        rule: PixelRule = AS_IT_COMES,
    ) -> None:
        super().__init__("stream", "images")
        self.own_pace = True
        self.problems = _Told(on_problem)
        self._arrived, self._rule = arrived, rule
        self._origins: dict[int, Origin] = {}

    def __iter__(self) -> Iterator[Frame]:
        for index, message, time_ns in self._arrived:
            try:
                frame = frame_of(message, index, self._rule)
            except FrameError as error:
                self.problems.append(str(error))
                continue
            log_notes(frame.notes)
            self._origins[index] = Origin(message.header, time_ns)
            yield frame

    def origin_of(self, index: int) -> Origin:
        """Where the frame of a result came from; once for each, and in their order."""
        for passed in [one for one in list(self._origins) if one < index]:
            self._origins.pop(passed)
        return self._origins.pop(index)


class _Told(list[str]):
    """Problems of a source that may run for months: told, and not kept."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell

    def append(self, words: str) -> None:
        self._tell(words)


class Origin(NamedTuple):
    """Where a frame came from.

    Attributes:
        header: of its message.
        time_ns: as in `Arrived`.
    """

    header: Any
    time_ns: int


class Output(Protocol):
    """Who takes one kind of answer."""

    def is_wanted(self) -> bool:
        """Whether anybody would see it now: what nobody sees is not made."""

    def put(self, message: Any, origin: Origin) -> None:
        """Takes an answer."""


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Answers images, one after the other, on the thread that calls `run`.

    Attributes:
        segmenter: what answers.
        images: what is answered.
        stream: how; see `LIVE` and `RECORDED`.
        messages: who has the classes.
        outputs: by the names of `ANSWERS`.
        on_result: called when a result's answers were put.
    Examples:
        >>> arrived = [Arrived(i, image(frame, "bgr8", sec=i), 0) for i in range(3)]
        >>> Loop(
        ...     segmenter=seg,
        ...     images=Images(arrived, print),
        ...     stream=RECORDED,
        ...     messages=messages,
        ...     outputs={},
        ...     on_result=lambda origin, result: print(origin.header.stamp.sec, len(result)),
        ... ).run()
        0 1
        1 1
        2 1
    """

    segmenter: Segmenter
    images: Images
    stream: StreamOptions
    messages: Messages
    outputs: dict[str, Output]
    on_result: Callable[[Origin, Result], None]

    def run(self) -> None:
        """Answers until there are no more images.

        Raises:
            PatchcutError: the engine failed; what an output raises.
        """
        with closing(self.segmenter.results(self.images, self.stream)) as results:
            for result in results:
                origin = self.images.origin_of(result.index)
                for name, output in self.outputs.items():
                    if output.is_wanted():
                        output.put(ANSWERS[name].make(result, origin.header, self.messages), origin)
                self.on_result(origin, result)


# An image is taken when the one before is answered, so that it is the newest then, and none is converted
# that is not answered.
LIVE = StreamOptions(mode="video", queue=0)
# Every image, in order; the next ones are read meanwhile.
RECORDED = StreamOptions(mode="video")
