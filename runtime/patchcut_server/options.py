"""What an operator chooses of a server: where it listens, who may ask, and what one request may cost."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from patchcut.checks import check_flag, check_number, check_text, check_whole, use_plain_values
from patchcut.errors import OptionError

MIN_TOKEN, MAX_TOKEN = 16, 512
_MAX_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """How a server answers. A value that is not allowed is an OptionError that names it.

    Attributes:
        host: a name or address of this machine to listen on. Other than loopback it needs a token.
        port: 0 to 65535; 0 is one that is free.
        token: what each request must bring, 16 to 512 letters, digits and signs without spaces; None is none.
        no_token: True to listen on more than loopback without a token.
        queue: requests that are taken and not answered yet, from 1 to 4096; more get status 429.
        per_client: the same of one address, from 1 to 4096.
        streams: WebSockets and viewers of MJPEG at the same time, from 0 to 256.
        deadline_s: a request that cannot be begun within so many seconds gets 429; 0.01 to 600.
        batch_wait_ms: how long a frame waits for others to run with, where the engine gains by it; 0 to 1000.
        max_bytes: bodies and messages of more are refused, 1 KiB to 1 GiB.
        slow_s: how long a client may take for its headers, for its body, and to take what it is sent; 0.1 to
            600 seconds.
        stop_s: how long requests that were taken may go on after a signal to stop; 0 to 3600 seconds.
        sources: names of what `GET /v1/mjpeg` may show, and what `open_source` takes for each.
    Examples:
        >>> ServeOptions(port=0).host
        '127.0.0.1'
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    no_token: bool = False
    queue: int = 32
    per_client: int = 16
    streams: int = 8
    deadline_s: float = 5.0
    batch_wait_ms: float = 2.0
    max_bytes: int = 16 << 20
    slow_s: float = 15.0
    stop_s: float = 30.0
    sources: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        use_plain_values(self)
        check_text("host", self.host)
        check_whole("port", self.port, 0, 65535)
        check_flag("no_token", self.no_token)
        for name, least, largest in (("queue", 1, 4096), ("per_client", 1, 4096), ("streams", 0, 256)):
            check_whole(name, getattr(self, name), least, largest)
        check_whole("max_bytes", self.max_bytes, 1 << 10, _MAX_BYTES)
        check_number("deadline_s", self.deadline_s, 0.01, 600)
        check_number("batch_wait_ms", self.batch_wait_ms, 0, 1000)
        check_number("slow_s", self.slow_s, 0.1, 600)
        check_number("stop_s", self.stop_s, 0, 3600)
        if self.token is not None:
            _check_token(self.token)
        elif not (self.no_token or is_loopback(self.host)):
            what = f"{self.host} can be reached from other machines, and there is no token"
            raise OptionError("host", what, "give --token-file, or say --no-token if that is meant")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address or name.

    Examples:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(token: str | None, token_file: Path | None) -> str | None:
    """The token that was given, or that is the text of a file, without the space around it.

    Args:
        token: of the command line or of PATCHCUT_TOKEN.
        token_file: read where it is not None.
    Raises:
        OptionError: both are given, or the file cannot be read, or others may read it.
    Examples:
        >>> read_token("0123456789abcdef", None)
        '0123456789abcdef'
    """
    if token_file is None:
        return token
    if token is not None:
        raise OptionError(
            "token", "is given twice: by --token-file, and by --token or PATCHCUT_TOKEN", "give one"
        )
    try:
        with token_file.open("rb") as file:
            mode, data = os.fstat(file.fileno()).st_mode, file.read(MAX_TOKEN + 64)
    except OSError as error:
        what = f"cannot read {token_file}: {error.strerror or error}"
        raise OptionError("token-file", what, "check the path") from error
    if mode & 0o004:
        raise OptionError("token-file", f"every user may read {token_file}", "chmod 600 it")
    return data.decode("utf-8", "replace").strip()


def parse_sources(words: Sequence[str]) -> dict[str, str]:
    """Names and sources of words NAME=SOURCE.

    Raises:
        OptionError: "[source] must be NAME=SOURCE such as door=0, got 'door'", or a name comes twice.
    Examples:
        >>> parse_sources(["door=rtsp://camera/1"])
        {'door': 'rtsp://camera/1'}
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, source = word.partition("=")
        if not (equals and source and name.isidentifier() and len(name) <= 64):
            what = f"must be NAME=SOURCE such as door=0, its name of letters, digits and _, got {word!r}"
            raise OptionError("source", what)
        if name in found:
            raise OptionError("source", f"{name} is given twice", "choose another name")
        found[name] = source
    return found


def _check_token(token: object) -> None:
    remedy = "make one: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
    if not isinstance(token, str):
        raise OptionError("token", f"must be a text, got {type(token).__name__}", remedy)
    if not MIN_TOKEN <= len(token) <= MAX_TOKEN:
        raise OptionError("token", f"must have {MIN_TOKEN} to {MAX_TOKEN} signs, got {len(token)}", remedy)
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise OptionError("token", "must be of ASCII letters, digits and signs, without spaces", remedy)
