"""Bodies of requests: no more bytes than are allowed, in no more time than that, packed or not."""

from __future__ import annotations

import asyncio
import zlib

from patchcut.errors import PatchcutError
from starlette.requests import ClientDisconnect, Request

from patchcut_server.refusals import Refusal, bad_request, too_large

# What zlib is told: a header of gzip, or of zlib itself.
_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


async def read_body(request: Request, max_bytes: int, slow_s: float) -> bytes:
    """The body of a request, unpacked.

    Args:
        max_bytes: it may have, packed and unpacked.
        slow_s: seconds until it must be there.
    Raises:
        Refusal: 413 for more, 408 for later, 415 for a packing that is not known, 400 for a damaged one.
    """
    packing = request.headers.get("content-encoding", "identity").strip().lower()
    if packing not in (*_WINDOW_BITS, "identity", ""):
        error = PatchcutError("Content-Encoding", f"must be gzip, deflate or identity, got {packing[:60]!r}")
        raise Refusal(415, error)
    told = request.headers.get("content-length", "0")
    if told.isascii() and told.isdigit() and (len(told) > 18 or int(told) > max_bytes):
        raise _too_large(max_bytes)
    try:
        body = await asyncio.wait_for(_read(request, max_bytes), slow_s)
    except (asyncio.TimeoutError, TimeoutError):
        what = f"did not come within {slow_s:g} s"
        error = PatchcutError("body", what, "send less, or on a faster way")
        raise Refusal(408, error, "slow") from None
    except ClientDisconnect:
        raise Refusal(499, PatchcutError("client", "has left"), "left") from None
    return await asyncio.to_thread(unpacked, body, packing, max_bytes) if packing in _WINDOW_BITS else body


def unpacked(data: bytes, packing: str, max_bytes: int) -> bytes:
    """What gzip or deflate has packed; never more than `max_bytes` are made of it.

    Raises:
        Refusal: 413 where it would be more, 400 where it is damaged.
    Examples:
        >>> unpacked(zlib.compress(b"abc"), "deflate", 3)
        b'abc'
    """
    unpack = zlib.decompressobj(_WINDOW_BITS[packing])
    try:
        found = unpack.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise bad_request("body", f"is no {packing}: {error}") from error
    if len(found) > max_bytes:
        raise _too_large(max_bytes)
    if not unpack.eof:
        raise bad_request("body", f"is {packing} that is cut short")
    return found


async def _read(request: Request, max_bytes: int) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(max_bytes: int) -> Refusal:
    return too_large("body", f"has more than {max_bytes} bytes", "send a smaller picture")
