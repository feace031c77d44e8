from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from patchcut import Settings
from patchcut.cli.demo import SAMPLES
from tests.browser import chromium

if TYPE_CHECKING:
    from patchcut_server import Model, Service


@dataclass
class Reply:
    """What a server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    """A server on a thread of this process."""

    service: Service
    port: int
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 20,
    ) -> Reply:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            got = connection.getresponse()
            return Reply(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read())
        finally:
            connection.close()

    def segment(self, body: bytes, query: str = "", **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", f"/v1/segment{query}", body, named)

    def metric(self, line: str) -> float:
        """The value of the metric whose line begins so; 0 where there is none."""
        for told in self.ask("GET", "/metrics").body.decode().splitlines():
            name, _, value = told.rpartition(" ")
            if name == line:
                return float(value)
        return 0.0

    def call(self, function: Callable[[], object]) -> None:
        self.loop.call_soon_threadsafe(function)

    def stop(self) -> None:
        self.call(self.service.stop)
        self.thread.join(20)
        assert not self.thread.is_alive()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)


@contextmanager
def serving(model: Model, **chosen: Any) -> Iterator[Served]:
    from patchcut_server import ServeOptions, Service
    from patchcut_server.cli import listen

    options = ServeOptions(port=0, **chosen)
    listener = listen(options)
    port = listener.getsockname()[1]
    service = Service(model, options)
    loop = asyncio.new_event_loop()

    def run() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(service.run(listener))
        finally:
            pending = asyncio.all_tasks(loop)  # of clients that have left; `asyncio.run` ends them as well
            for task in pending:
                task.cancel()
            if pending:
                loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    served = Served(service, port, loop, thread)
    try:
        wait_for(lambda: service._server is not None and service._server.started)
        yield served
    finally:
        if thread.is_alive():
            served.stop()


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="the toy bundle is made with onnx")
    from tests.runtime import toy_bundle as toy

    return toy.write(tmp_path_factory.mktemp("served") / "toy.patchcut")


@pytest.fixture(scope="session")
def model(bundle_path: Path) -> Model:
    from patchcut_server import Model

    return Model(Settings(bundle=bundle_path, threads=1, max_pixels=2**22))


@pytest.fixture(scope="module")
def served(model: Model) -> Iterator[Served]:
    with serving(model, slow_s=5.0) as one:
        yield one


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def address(served: Served) -> str:
    """Of the page of `served`."""
    return f"http://{served.url}/"


@pytest.fixture(scope="session")
def naming() -> Iterator[Served]:
    """A server of the embedded bundle, which can be shown things; who names some has them forgotten."""
    from patchcut_server import Model

    with serving(Model(Settings(head="concepts", threads=1)), slow_s=20.0) as one:
        yield one


@pytest.fixture
def serve(model: Model) -> Iterator[Callable[..., Served]]:
    """serve(**options): another server of the same model, until the test ends."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(serving(options.pop("model", model), **options))


@pytest.fixture(scope="session")
def jpeg() -> bytes:
    """A photo of 512 x 512 pixels."""
    return (SAMPLES / "astronaut.jpg").read_bytes()


@pytest.fixture(scope="session")
def image(jpeg: bytes) -> np.ndarray:
    """The same, [512, 512, 3] uint8 BGR."""
    return np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))


def wait_for(is_so: Callable[[], object], seconds: float = 30.0) -> None:
    ends = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.01)
