"""The command `patchcut serve`. FastAPI and what runs it are imported when it runs."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Annotated

import typer
from patchcut.cli.options import EXIT_GOOD, command, with_settings
from patchcut.cli.streams import say
from patchcut.errors import OptionError, PatchcutError
from patchcut.settings import Settings

from patchcut_server.options import ServeOptions, parse_sources, read_token

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

# Pictures of more are refused before they are decoded: a decoded one has three bytes a pixel, or more.
MAX_PIXELS = 2**25
_BACKLOG = 512


@command(app, "serve")
@with_settings(max_pixels=MAX_PIXELS)
def serve(
    *,
    host: Annotated[
        str, typer.Option(help="Address to listen on; other machines reach 0.0.0.0, which needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 is one that is free.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="PATCHCUT_TOKEN",
            help="What requests must bring as Authorization: Bearer TOKEN; others see it in the list of "
            "processes, so better set PATCHCUT_TOKEN or --token-file.",
            show_default=False,
            show_envvar=False,
        ),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="A file that holds the token.", show_default=False)
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Let everybody who reaches --host ask.")
    ] = False,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SOURCE",
            help="A camera, address or video that /v1/mjpeg?source=NAME shows; again for another.",
        ),
    ] = None,
    queue: Annotated[int, typer.Option(help="Requests in hand; more get status 429, with Retry-After.")] = 32,
    per_client: Annotated[int, typer.Option(help="The same of one address.")] = 16,
    streams: Annotated[int, typer.Option(help="WebSockets and viewers at the same time.")] = 8,
    deadline: Annotated[
        float, typer.Option(help="Seconds within which a request must begin, or it gets 429.")
    ] = 5.0,
    batch_wait: Annotated[
        float,
        typer.Option(help="Milliseconds that a frame waits for others, where the engine gains by it."),
    ] = 2.0,
    max_bytes: Annotated[int, typer.Option(help="Refuse bodies of more bytes.")] = 16 << 20,
    slow: Annotated[
        float, typer.Option(help="Seconds for a client's headers, its body, and what it is sent.")
    ] = 15.0,
    stop_after: Annotated[
        float, typer.Option(help="Seconds that requests in hand have after a signal to stop.")
    ] = 30.0,
    settings: Settings,
) -> int:
    """Answer over HTTP and WebSocket: pictures in, masks and boxes out.

    / is a page for a browser; POST /v1/segment takes a picture; WS /v1/stream takes frames and tells
    tracks; GET /v1/mjpeg shows a --source; /v2 is the Open Inference
    Protocol, which tritonclient speaks; /metrics is for Prometheus.

    SIGTERM and Ctrl-C answer what was taken, and end with 0. SIGHUP, or
    POST /v2/repository/models/NAME/load, loads the bundle again.
    """
    options = ServeOptions(
        host=host,
        port=port,
        token=read_token(token, token_file),
        no_token=no_token,
        queue=queue,
        per_client=per_client,
        streams=streams,
        deadline_s=deadline,
        batch_wait_ms=batch_wait,
        max_bytes=max_bytes,
        slow_s=slow,
        stop_s=stop_after,
        sources=parse_sources(source or ()),
    )
    from patchcut_server.model import Model
    from patchcut_server.service import Service

    with listen(options) as listener:
        model = Model(settings)
        service = Service(model, options)
        say(f"patchcut: {model.name} answers on {address_of(listener)}")
        asyncio.run(service.run(listener, signals=True))
    say("patchcut: stopped")
    return EXIT_GOOD


def listen(options: ServeOptions) -> socket.socket:
    """A socket that listens where the options say; connections wait in it until a service takes them.

    Raises:
        OptionError: the host is no address of this machine.
        PatchcutError: the port is in use, or may not be used.
    """
    try:
        found = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        what = f"{options.host[:100]} is no address: {error}"
        raise OptionError("host", what, "name one of this machine, such as 127.0.0.1") from error
    family, _, _, _, address = found[0]
    try:
        listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        what = f"cannot listen on {options.host} port {options.port}: {error.strerror or error}"
        raise PatchcutError("port", what, "choose another with --port") from error
    # Connections have it from here. asyncio sets it on sockets of its own alone; without it the body of an
    # answer waits 40 ms for the client to acknowledge the head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def address_of(listener: socket.socket) -> str:
    """The address of a socket that listens, as a browser takes it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
