"""`WS /v1/stream`: frames in, results with track ids out."""

from __future__ import annotations

import asyncio
import contextlib
import json

from patchcut import Result
from patchcut.video import PointedObjects
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from patchcut_server.backend import Backend
from patchcut_server.mailbox import Mailbox
from patchcut_server.metrics import Metrics
from patchcut_server.model import changes_of
from patchcut_server.prompting import point_at
from patchcut_server.refusals import bad_request, refusal_of
from patchcut_server.segmenting import read_settings
from patchcut_server.streams import Inbox, Running

# How often one without news looks whether its stream has ended.
_LOOK_S = 0.5
_GOING_AWAY, _WRONG_KIND, _FAILED = 1001, 1003, 1011
_MOST_REASON = 100  # bytes of 123 that a close frame has

# A code to close with, and why; None where the client has left.
End = tuple[int, str] | None


class _Results:
    """Puts results into a mailbox as JSON; a `Listener`."""

    def __init__(
        self, mailbox: Mailbox, metrics: Metrics, objects: PointedObjects | None, *, masks: bool
    ) -> None:
        self._mailbox, self._metrics, self._objects, self._masks = mailbox, metrics, objects, masks
        self._last = -1

    def result(self, result: Result) -> None:
        dropped, self._last = result.index - self._last - 1, result.index
        self._metrics.tell(result.timings_ms)
        self._metrics.dropped.inc(dropped)
        told = result.to_dict(masks="rle" if self._masks else None)
        lost = {} if self._objects is None else {"lost": list(self._objects.lost)}
        self._mailbox.put(json.dumps({**told, "dropped": dropped, **lost}).encode())

    def problem(self, index: int, words: str) -> None:
        self._mailbox.say(json.dumps({"index": index, "error": words}))

    def end(self, words: str) -> None:
        self._mailbox.fail(words)


async def stream(backend: Backend, socket: WebSocket) -> None:
    """Answers the frames that a client sends, each a binary message, until it leaves or the server stops."""
    try:
        running, inbox, mailbox, objects = await _open(backend, socket)
    except Exception as error:
        refusal = refusal_of(error)
        if refusal is None:
            raise
        backend.metrics.refused.labels(refusal.reason).inc()
        await socket.send_denial_response(
            JSONResponse({"error": str(refusal)}, refusal.status, refusal.headers)
        )
        return
    tasks: list[asyncio.Task[End]] = []
    try:
        await socket.accept()
        tasks = [
            asyncio.create_task(_receive(socket, inbox, mailbox, objects)),
            asyncio.create_task(_send(backend, socket, running, mailbox)),
            asyncio.create_task(_stop(backend)),
        ]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        end = next(iter(done)).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        inbox.end()
        backend.metrics.dropped.inc(mailbox.replaced)
        await asyncio.shield(asyncio.to_thread(running.close))
    if end is not None and socket.client_state is WebSocketState.CONNECTED:
        with contextlib.suppress(Exception):  # the client may have left by now
            await asyncio.wait_for(socket.close(*end), backend.options.slow_s)


async def _open(backend: Backend, socket: WebSocket) -> tuple[Running, Inbox, Mailbox, PointedObjects | None]:
    words = [one for one in socket.query_params.multi_items() if one[0] != "token"]
    settings, rest = read_settings(words, ("masks", "track"))
    said = {"masks": "rle", "track": "all", **dict(rest)}
    for name, choices in (("masks", ("rle", "none")), ("track", ("all", "pointed"))):
        if said[name] not in choices:
            raise bad_request(name, f"must be {' or '.join(choices)}, got {said[name][:60]!r}")
    changes = changes_of(settings, backend.model.settings)
    pointed = said["track"] == "pointed"
    if pointed and (mode := settings.get("mode", backend.model.settings.mode)) != "foreground":
        raise bad_request("mode", f"must be foreground where objects are pointed at, got {mode}")
    objects = PointedObjects() if pointed else None
    mailbox = Mailbox()
    results = _Results(mailbox, backend.metrics, objects, masks=said["masks"] == "rle")
    inbox = Inbox(backend.model.settings.pixel_rule, results.problem)
    running = await asyncio.to_thread(backend.streams.open, inbox, changes, results, objects)
    return running, inbox, mailbox, objects


async def _receive(socket: WebSocket, inbox: Inbox, mailbox: Mailbox, objects: PointedObjects | None) -> End:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        data = message.get("bytes")
        if data is not None:
            inbox.put(data)
        elif objects is None:
            return _WRONG_KIND, "frames are binary messages; to point at objects say track=pointed"
        else:
            mailbox.say(json.dumps(point_at(objects, message["text"])))


async def _send(backend: Backend, socket: WebSocket, running: Running, mailbox: Mailbox) -> End:
    """Sends what there is; a client that does not take it in time is left."""
    while not (mailbox.failed or running.ended):
        result, words = await mailbox.take(_LOOK_S)
        for text in [*words, *([] if result is None else [result.decode()])]:
            try:
                await asyncio.wait_for(socket.send_text(text), backend.options.slow_s)
            except WebSocketDisconnect:
                return None
            except (asyncio.TimeoutError, TimeoutError):
                return _GOING_AWAY, "what was sent was not taken"
    return _FAILED, mailbox.failed.encode()[:_MOST_REASON].decode("utf-8", "ignore")


async def _stop(backend: Backend) -> End:
    await backend.stopping.wait()
    return _GOING_AWAY, "the server is stopping"
