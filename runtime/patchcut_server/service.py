"""The server: its routes, what guards them, and its way from start to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Generator
from functools import partial

import patchcut
import uvicorn
from fastapi import FastAPI
from patchcut.errors import PatchcutError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from patchcut_server import kserve
from patchcut_server.backend import Backend
from patchcut_server.connections import patient_protocol
from patchcut_server.metrics import CONTENT_TYPE
from patchcut_server.mjpeg import Channels, mjpeg
from patchcut_server.model import Model
from patchcut_server.naming import add_concept, remove_concept
from patchcut_server.offers import model_offers
from patchcut_server.openapi import SEGMENT
from patchcut_server.options import ServeOptions
from patchcut_server.pages import index, page_file
from patchcut_server.refusals import Refusal, refusal_of
from patchcut_server.segmenting import segment
from patchcut_server.websocket import stream

# Headers of a request in bytes, and connections, those that are idle included.
_MOST_HEADER_BYTES = 16 << 10
_MOST_CONNECTIONS = 1000
_IDLE_S = 5

Handler = Callable[[Backend, Request], Awaitable[Response]]


class Service:
    """A model that answers over HTTP until it is stopped.

    Args:
        model: what answers.
        options: who may ask, and what a request may cost.
    Attributes:
        backend: what its routes share.
        app: the ASGI application, with its guards.
    """

    def __init__(self, model: Model, options: ServeOptions) -> None:
        self.backend = Backend(model, options)
        self.app: ASGIApp = _Guard(self.backend, _application(self.backend))
        self._server: uvicorn.Server | None = None
        self._reloading: asyncio.Future[None] | None = None

    async def run(self, listener: socket.socket, *, signals: bool = False) -> None:
        """Answers what comes to a socket that listens, until `stop`; then what was taken is answered.

        Args:
            listener: it is closed at the end.
            signals: whether SIGTERM and SIGINT stop it, and SIGHUP loads the bundle again.
        """
        options = self.backend.options
        config = uvicorn.Config(
            self.app,
            http=patient_protocol(options.slow_s),
            ws="websockets-sansio",
            ws_max_size=options.max_bytes,
            ws_per_message_deflate=False,  # pictures are packed already, and bombs are small
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            h11_max_incomplete_event_size=_MOST_HEADER_BYTES,
            timeout_keep_alive=_IDLE_S,
            timeout_graceful_shutdown=max(1, round(options.stop_s)),
        )
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # else a line for each stranger's mistake
        self._server = server = _Server(config)
        if signals:
            self._hear_signals()
        try:
            await server.serve(sockets=[listener])
        finally:
            self.backend.stopping.set()
            await asyncio.to_thread(self.backend.close)

    def stop(self) -> None:
        """Has `run` end: nothing new is taken, and what was is answered. The second time it ends at once."""
        server = self._server
        assert server is not None
        server.force_exit = server.should_exit
        server.should_exit = True
        self.backend.stopping.set()

    def _hear_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup wants it
            loop.add_signal_handler(signal.SIGHUP, self._reload_soon)

    def _reload_soon(self) -> None:
        async def reload() -> None:
            with contextlib.suppress(PatchcutError):  # it was told
                await self.backend.reload()

        self._reloading = asyncio.ensure_future(reload())


class _Server(uvicorn.Server):
    """Signals are the service's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class _Guard:
    """Asks the gate before anything else, times each request, and turns what is raised into an answer."""

    def __init__(self, backend: Backend, app: ASGIApp) -> None:
        self._backend, self._app = backend, app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return
        backend, begun_s, status = self._backend, time.perf_counter(), 0

        async def timed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            backend.gate.check(scope)
            await self._app(scope, receive, timed)
        except Refusal as refusal:
            backend.metrics.refused.labels(refusal.reason).inc()
            await _refuse(scope, receive, timed, refusal)
        finally:
            if scope["type"] == "http":
                route = getattr(scope.get("route"), "path", "other")
                took_s = time.perf_counter() - begun_s
                backend.metrics.requests.labels(route, str(status or 500)).observe(took_s)


async def _refuse(scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
    response = JSONResponse({"error": str(refusal)}, refusal.status, refusal.headers)
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(response)
    else:
        await response(scope, receive, send)


def _application(backend: Backend) -> FastAPI:
    app = FastAPI(
        title="patchcut", version=patchcut.__version__, docs_url=None, redoc_url=None, redirect_slashes=False
    )

    def add(method: str, path: str, handler: Handler, extra: dict[str, object] | None = None) -> None:
        async def endpoint(request: Request) -> Response:
            return await handler(backend, request)

        app.add_api_route(
            path,
            endpoint,
            methods=[method],
            name=handler.__name__,
            summary=(handler.__doc__ or "").partition("\n")[0],
            openapi_extra=extra,
            response_model=None,
        )

    channels = Channels(backend)

    async def show(backend: Backend, request: Request) -> Response:
        """Overlays of a source that the operator named, as JPEGs one after the other."""
        return await mjpeg(channels, request)

    async def live(socket: WebSocket) -> None:
        await stream(backend, socket)

    model = "/v2/models/{model:path}"
    add("GET", "/", index)
    add("GET", "/page/{name:path}", page_file)
    add("POST", "/v1/segment", segment, SEGMENT)
    add("GET", "/v1/model", model_offers)
    add("POST", "/v1/concepts", add_concept)
    add("DELETE", "/v1/concepts", remove_concept)
    add("GET", "/v1/mjpeg", show)
    app.add_api_websocket_route("/v1/stream", live)
    add("GET", "/metrics", _metrics)
    add("GET", "/v2", _server_metadata)
    add("GET", "/v2/health/live", _live)
    add("GET", "/v2/health/ready", _ready)
    add("POST", "/v2/repository/index", kserve.repository_index)
    add("POST", "/v2/repository/models/{model:path}/load", kserve.repository_load)
    for versioned in (f"{model}/versions/{{version}}", model):
        add("GET", f"{versioned}/ready", _model_ready)
        add("POST", f"{versioned}/infer", kserve.infer)
        add("GET", versioned, _model_metadata)
    for error in (PatchcutError, Refusal, MemoryError, HTTPException, Exception):
        app.add_exception_handler(error, partial(_answer_error, backend))
    return app


async def _answer_error(backend: Backend, request: Request, error: Exception) -> Response:
    """One line in JSON for whatever a handler raises; a client that has left gets nothing."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": f"[{request.url.path[:200]}] {error.detail}"}, error.status_code)
    refusal = refusal_of(error)
    if refusal is None:
        return JSONResponse({"error": "[server] failed; its log says why"}, 500)
    backend.metrics.refused.labels(refusal.reason).inc()
    return JSONResponse({"error": str(refusal)}, refusal.status, refusal.headers)


async def _metrics(backend: Backend, request: Request) -> Response:
    """Counts and times, as Prometheus reads them."""
    return Response(backend.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


async def _server_metadata(backend: Backend, request: Request) -> Response:
    """What this server is."""
    return JSONResponse(kserve.server_metadata())


async def _live(backend: Backend, request: Request) -> Response:
    """Whether the server runs."""
    return JSONResponse({"live": True})


async def _ready(backend: Backend, request: Request) -> Response:
    """Whether the server takes requests; 503 while it stops."""
    ready = backend.pipeline.is_alive and not backend.stopping.is_set()
    return JSONResponse({"ready": ready}, 200 if ready else 503)


async def _model_ready(backend: Backend, request: Request) -> Response:
    """Whether a model takes requests; 404 for one that is not served."""
    kserve.check_model(backend, request.path_params["model"], request.path_params.get("version"))
    return JSONResponse({"name": backend.model.name, "ready": True})


async def _model_metadata(backend: Backend, request: Request) -> Response:
    """The inputs and outputs of a model."""
    kserve.check_model(backend, request.path_params["model"], request.path_params.get("version"))
    return JSONResponse(kserve.model_metadata(backend))
