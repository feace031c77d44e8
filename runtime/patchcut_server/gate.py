"""Who may ask: the token, the host that is asked for, and how much each client has in hand."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import parse_qs, urlsplit

from patchcut.errors import PatchcutError
from starlette.datastructures import Headers
from starlette.types import Scope

from patchcut_server.options import ServeOptions, is_loopback
from patchcut_server.refusals import Refusal, try_later

# What needs no token: whether it lives is what those ask who start and stop it.
_OPEN = ("/v2/health/live", "/v2/health/ready", "/")
# The page's own files hold nothing of anybody's; it asks for the token before it asks the server.
_OPEN_BELOW = "/page/"
# Browsers let pages set no header here.
_TOKEN_IN_QUERY = ("/v1/stream", "/v1/mjpeg")


class Gate:
    """Decides who is let in, and counts who is.

    Args:
        options: token, host, and the most that may be in hand.
    Examples:
        >>> gate = Gate(ServeOptions(queue=1))
        >>> with gate.place("127.0.0.1", 1):
        ...     gate.taken
        1
    """

    def __init__(self, options: ServeOptions) -> None:
        self._options = options
        self._token = None if options.token is None else _digest(options.token)
        self._by_client: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """Requests that are in hand."""
        return self._by_client.total()

    def check(self, scope: Scope) -> None:
        """Checks the token and the headers Host and Origin of a request.

        Without a token a page of another site must not reach a server on loopback: neither as itself (its
        Origin tells) nor under a name of its own that leads here (its Host does).

        Raises:
            Refusal: 401, 403 or 421.
        """
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if origin is not None and not _is_same(origin, host):
            error = PatchcutError("Origin", "is another site", "open the page from this server")
            raise Refusal(403, error, "origin")
        if self._token is None and is_loopback(self._options.host) and not _is_here(host):
            error = PatchcutError("Host", f"must name this machine, got {host[:60]!r}", "ask 127.0.0.1")
            raise Refusal(421, error, "origin")
        if self._token is not None and not _needs_none(scope["path"]):
            given = _given_token(scope, headers)
            if given is None or not hmac.compare_digest(_digest(given), self._token):
                what = "is missing" if given is None else "is wrong"
                error = PatchcutError("token", what, "send the header Authorization: Bearer TOKEN")
                raise Refusal(401, error, "token")

    @contextmanager
    def place(self, client: str, wait_s: int) -> Iterator[None]:
        """A place for one request of a client, until the block ends.

        Raises:
            Refusal: 429, the server or the client has as many as are allowed.
        """
        if self.taken >= self._options.queue:
            raise try_later("queue", f"is full: {self.taken} requests are in hand", "queue full", wait_s)
        if self._by_client[client] >= self._options.per_client:
            what = f"has {self._options.per_client} requests in hand"
            raise try_later("client", what, "client limit", wait_s)
        self._by_client[client] += 1
        try:
            yield
        finally:
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]


def client_of(scope: Scope) -> str:
    """The address that a request comes from; "" where there is none.

    Examples:
        >>> client_of({"client": ("10.0.0.7", 4711)})
        '10.0.0.7'
    """
    client = scope.get("client")
    return str(client[0]) if client else ""


def _is_same(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc == host
    except ValueError:
        return False


def _needs_none(path: str) -> bool:
    return path in _OPEN or path.startswith(_OPEN_BELOW)


def _given_token(scope: Scope, headers: Headers) -> str | None:
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and token:
        return token.strip()
    if scope["path"] in _TOKEN_IN_QUERY:
        with suppress(ValueError):
            words = parse_qs(scope.get("query_string", b"").decode("latin-1"), max_num_fields=64)
            return words["token"][0] if "token" in words else None
    return None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()  # of one length, whatever was sent


def _is_here(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return is_loopback(name)
