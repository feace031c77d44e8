"""`GET /v1/mjpeg`: overlays of a source that the operator named, as JPEGs one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

from patchcut import Result
from patchcut.cli.streams import say
from patchcut.errors import PatchcutError, SourceError
from patchcut.output.whole_files import encode_image
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from patchcut_server.backend import Backend
from patchcut_server.mailbox import Mailbox
from patchcut_server.metrics import Metrics
from patchcut_server.model import Changes, changes_of
from patchcut_server.refusals import Refusal, try_later
from patchcut_server.segmenting import read_settings
from patchcut_server.streams import Running

_BOUNDARY = "frame"
_LOOK_S = 0.5


class Channel:
    """One source in one set of settings, and those who watch it: it is read and drawn once for all of them.

    A `Listener`; it is open while somebody watches.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.viewers: tuple[Mailbox, ...] = ()
        self.lock = asyncio.Lock()
        self.running: Running | None = None
        self._metrics = metrics

    def result(self, result: Result) -> None:
        self._metrics.tell(result.timings_ms)
        self._metrics.dropped.inc(result.dropped)
        picture = encode_image(Path("overlay.jpg"), result.overlay())
        for viewer in self.viewers:
            viewer.put(picture)

    def problem(self, index: int, words: str) -> None:
        """Nothing: a source tells its problems itself."""

    def end(self, words: str) -> None:
        for viewer in self.viewers:
            viewer.fail(words)


class Channels:
    """The channels that are open.

    Args:
        backend: its sources, and its limits.
    Attributes:
        backend: the same.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._channels: dict[tuple[str, Changes], Channel] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def viewers(self) -> int:
        """How many watch."""
        return sum(len(channel.viewers) for channel in self._channels.values())

    async def watch(self, name: str, changes: Changes) -> tuple[AsyncIterator[bytes], Callable[[], None]]:
        """Pictures of a source, from the next one on, and what is to be called at their end.

        The source is opened before this returns.

        Raises:
            Refusal: 429, as many watch as are allowed; 503, it cannot be opened.
            OptionError: a setting has a value that is not allowed.
        """
        backend = self.backend
        if self.viewers >= backend.options.streams:
            raise try_later("streams", f"{self.viewers} watch, as many as are allowed", "streams full", 5)
        key = (name, changes)
        channel = self._channels.setdefault(key, Channel(backend.metrics))
        viewer = Mailbox()
        channel.viewers += (viewer,)  # before any wait: a channel that is watched is not forgotten
        try:
            async with channel.lock:
                if channel.running is None or channel.running.ended:
                    source = backend.options.sources[name]
                    opening = asyncio.to_thread(backend.streams.open, source, changes, channel)
                    channel.running = await asyncio.shield(opening)
        except SourceError as error:  # its words name paths and addresses of the operator's
            self._leave(key, channel, viewer)
            say(f"patchcut: {error}")
            told = SourceError("source", f"{name} cannot be opened", "the server's log says why")
            raise Refusal(503, told, "source") from error
        except BaseException:
            self._leave(key, channel, viewer)
            raise
        return self._pictures(viewer, channel.running), partial(self._leave, key, channel, viewer)

    async def _pictures(self, viewer: Mailbox, running: Running) -> AsyncIterator[bytes]:
        while not (viewer.failed or self.backend.stopping.is_set()):
            ended = running.ended
            picture, _ = await viewer.take(_LOOK_S)
            if picture is not None:
                yield picture
            elif ended:
                break

    def _leave(self, key: tuple[str, Changes], channel: Channel, viewer: Mailbox) -> None:
        channel.viewers = tuple(one for one in channel.viewers if one is not viewer)
        task = asyncio.create_task(self._close(key, channel))  # whoever left may be cancelled
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, key: tuple[str, Changes], channel: Channel) -> None:
        """Closes a channel that nobody watches any more."""
        async with channel.lock:
            if channel.viewers:
                return
            running, channel.running = channel.running, None
            if running is not None:
                await asyncio.to_thread(running.close)
            if not channel.viewers and self._channels.get(key) is channel:
                del self._channels[key]


async def mjpeg(channels: Channels, request: Request) -> Response:
    """Overlays of a source, for as long as it goes on and the client takes them."""
    words = [one for one in request.query_params.multi_items() if one[0] != "token"]
    settings, rest = read_settings(words, ("source",))
    name = dict(rest).get("source", "")
    if name not in channels.backend.options.sources:
        held = ", ".join(channels.backend.options.sources) or "none; see patchcut serve --source"
        what = f"is none of those that the operator named, got {name[:60]!r}; there are {held}"
        raise Refusal(404, PatchcutError("source", what), "not found")
    changes = changes_of(settings, channels.backend.model.settings)
    pictures, leave = await channels.watch(name, changes)
    return _Pictures(pictures, leave)


class _Pictures(StreamingResponse):
    """JPEGs one after the other; whatever ends it, the channel is left."""

    def __init__(self, pictures: AsyncIterator[bytes], leave: Callable[[], None]) -> None:
        media_type = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
        super().__init__(_parts(pictures), media_type=media_type, headers={"Cache-Control": "no-store"})
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


async def _parts(pictures: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for picture in pictures:
        head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
        yield head.encode() + picture + b"\r\n"
    yield f"--{_BOUNDARY}--\r\n".encode()
