"""Addresses: recordings behind them, and live streams."""

from __future__ import annotations

import contextlib
from base64 import b64encode
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from patchcut.errors import SourceError
from patchcut.pixels import AS_IT_COMES, PixelRule
from patchcut.pyav import load_av
from patchcut.sources import containers
from patchcut.sources.base import Source
from patchcut.sources.cameras import LiveVideo, without_password
from patchcut.sources.pipes import index_comes_late, open_stream
from patchcut.sources.videos import frames_of

# Over these an address may be that of a file; rtsp, udp and the like are always live.
_RECORDING_SCHEMES = frozenset({"http", "https", "ftp", "ftps", "sftp"})

_HEAD_BYTES = 1 << 12


def open_address(url: str, *, every: int = 1, rule: PixelRule = AS_IT_COMES) -> Source:
    """The frames behind a URL: a recording, read to its end by its own clock, or a live stream.

    A file served over http:// or ftp:// is a recording, known by its length or its size; what has neither,
    and every other scheme, is live. An MP4 from a server that sends files only from their begin is copied
    first where its index stands at its end. A `file://` URL is a path: see `path_of_url`.

    Raises:
        SourceError: "[http://host/x.mp4] cannot be opened: Server returned 404 Not Found; ...".
    """
    scheme = url.partition("://")[0].lower()
    av = load_av() if scheme in _RECORDING_SCHEMES else None
    if av is None:
        return LiveVideo(url, every=every)
    name = without_password(url)
    container = containers.open_url(av, url, name)
    if _is_recording(container):
        response = _whole_response(container, url)
        if response is None:
            return frames_of(av, container, name, every=every, rule=rule)
        container.close()
        return _open_response(response, name, every, rule)
    container.close()
    return LiveVideo(url, every=every)


def _is_recording(container: Any) -> bool:
    """Whether a container at an address has an end: a playlist has only if it says how long it plays."""
    if container.duration is not None and container.duration > 0:
        return True
    return bool(container.format.name != "hls" and container.size > 0)


def _whole_response(container: Any, url: str) -> Any:
    """The whole file of a server that sends it only from its begin, where FFmpeg has to jump; else None."""
    if "mov" not in container.format.name.split(",") or not url.lower().startswith("http"):
        return None
    from http.client import HTTPException  # 30 ms that few runs need
    from urllib.request import Request, urlopen

    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        request = Request(urlunsplit((parts.scheme, host, parts.path, parts.query, "")))
        request.add_header("Range", "bytes=0-")
        if parts.username:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            request.add_unredirected_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
        response = urlopen(request, timeout=containers.NETWORK_TIMEOUT_S)
    except (OSError, ValueError, HTTPException):
        return None  # FFmpeg has opened it, and says what else is wrong
    if response.status == 200 and index_comes_late(response.peek(_HEAD_BYTES)):
        return response
    response.close()
    return None


def _open_response(response: Any, name: str, every: int, rule: PixelRule) -> Source:
    from http.client import HTTPException

    try:
        return open_stream(response, name, every=every, rule=rule)
    except (OSError, HTTPException):
        with contextlib.suppress(OSError):
            response.close()
        what = "stopped sending"
    raise SourceError(name, what, containers.CHECK_ADDRESS)  # not from it: it may hold the password
