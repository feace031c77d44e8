"""Connections whose clients take their time: those that get nowhere are ended."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class PatientProtocol(H11Protocol):
    """HTTP/1.1, but a client must have sent its headers, and must take what it is sent, in some seconds.

    Bodies have a time of their own, see `read_body`. What arrives one byte a second is no progress: only a
    whole request is, and a writing buffer that was emptied.

    Attributes:
        slow_s: how many seconds; a subclass sets it.
    """

    slow_s = 15.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._progress_s = self.loop.time()
        self._watch: asyncio.TimerHandle | None = None
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._stop_watching()  # it has pings of its own
        super().handle_websocket_upgrade(event)

    def resume_writing(self) -> None:
        self._progress_s = self.loop.time()
        super().resume_writing()

    def on_response_complete(self) -> None:
        self._progress_s = self.loop.time()  # `_look` may see nothing of a short request
        super().on_response_complete()

    def _look(self) -> None:
        now_s = self.loop.time()
        working = self.cycle is not None and not self.cycle.response_complete
        if working and not self.transport.get_write_buffer_size():
            self._progress_s = now_s
        if now_s - self._progress_s > self.slow_s:
            self.transport.abort()
            return
        self._watch = self.loop.call_later(self.slow_s / 8, self._look)

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()


def patient_protocol(slow_s: float) -> type[PatientProtocol]:
    """A protocol for uvicorn's setting `http`.

    Examples:
        >>> patient_protocol(2.0).slow_s
        2.0
    """
    return type("PatientProtocol", (PatientProtocol,), {"slow_s": slow_s})
