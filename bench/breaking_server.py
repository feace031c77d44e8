"""A server on this machine that sends a video's frames in a loop, as network cameras do, and breaks off."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle, islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import patchcut

from bench.cases import BenchError

FPS = 25
MOST_FRAMES = 200
# After every other break nothing is served for so long: the first try to open it again fails.
AWAY_S = 1.2

_BOUNDARY = "frame"
_START_S = 600.0


@dataclass(frozen=True)
class BreakingServer:
    """The server, in a process of its own, so that what it takes is not in this one's figures.

    Attributes:
        url: of the stream, a sequence of JPEGs.
    """

    url: str
    _breaks: Any

    @property
    def breaks(self) -> int:
        """How often it broke off and has been opened again since."""
        return int(self._breaks.value)


@contextmanager
def serve(path: Path, break_s: float) -> Iterator[BreakingServer]:
    """A server of a video whose every connection ends after `break_s` seconds.

    Raises:
        BenchError: it did not start.
    """
    spawn = multiprocessing.get_context("spawn")
    breaks = spawn.Value("i", 0)
    ours, its = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_serve, args=(path, break_s, breaks, its), daemon=True)
    process.start()
    try:
        if not ours.poll(_START_S):
            raise BenchError(f"the server of {path.name} did not start within {_START_S:g} s")
        yield BreakingServer(f"http://127.0.0.1:{ours.recv()}/stream.mjpg", breaks)
    finally:
        process.terminate()
        process.join()


def _serve(path: Path, break_s: float, breaks: Any, ready: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(_jpegs(path), break_s, breaks))
    server.daemon_threads = True
    ready.send(server.server_address[1])
    server.serve_forever()


def _jpegs(path: Path) -> list[bytes]:
    with patchcut.open_source(path) as source:
        return [cv2.imencode(".jpg", frame.image)[1].tobytes() for frame in islice(source, MOST_FRAMES)]


def _handler(jpegs: list[bytes], break_s: float, breaks: Any) -> type[BaseHTTPRequestHandler]:
    broken = False
    away_until_s = 0.0

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal broken
            if time.monotonic() < away_until_s:
                self.send_error(503)
                return
            if broken:
                broken = False
                breaks.value += 1
            self.send_response(200)
            self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
            self.end_headers()
            self._send_frames()

        def _send_frames(self) -> None:
            nonlocal broken, away_until_s
            begun_s = time.monotonic()
            for number, jpeg in enumerate(cycle(jpegs)):
                time.sleep(max(begun_s + number / FPS - time.monotonic(), 0.0))
                if time.monotonic() - begun_s > break_s:
                    broken = True
                    away_until_s = time.monotonic() + AWAY_S * (breaks.value % 2)
                    return
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                try:
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                except OSError:  # whoever read it has gone
                    return

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: each connection would be a line on stderr."""

    return Handler
