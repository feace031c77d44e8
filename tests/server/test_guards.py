"""Strangers: tokens, hosts, sizes, bombs, and clients that take their time."""

from __future__ import annotations

import http.client
import json
import re
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs patchcut[server]")

from patchcut.errors import OptionError
from patchcut_server import ServeOptions
from patchcut_server.options import parse_sources, read_token

from .conftest import Served, wait_for

TOKEN = "correct-horse-battery-staple"
POST = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: %s\r\n\r\n"


def png(width: int, height: int, data: bytes = b"", *more: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    chunks = [chunk(kind, body) for kind, body in more]
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bombs() -> dict[str, bytes]:
    """Small files that claim more pixels than they may."""
    side = 100_000
    jpeg = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    at = jpeg.index(b"\xff\xc0")
    screen = struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
    gif = b"GIF89a" + screen + b"\x2c" + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x00\x3b"
    webp = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (16_777_215).to_bytes(3, "little") * 2
    tags = [(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (279, 4, 8)]
    tiff = b"II*\0" + struct.pack("<IH", 8, len(tags))
    for tag, kind, value in tags:
        tiff += struct.pack("<HHII", tag, kind, 1, value)
    bmp = struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, side, -side, 1, 24, 0, 0, 0, 0, 0, 0)
    return {
        "png": png(side, side, PACKED),
        "jpeg": jpeg[: at + 5] + struct.pack(">HH", 65500, 65500) + jpeg[at + 9 :],
        "gif": gif,
        "webp": b"RIFF" + struct.pack("<I", len(webp) + 4) + b"WEBP" + webp,
        "tiff": tiff + struct.pack("<I", 0) + bytes(16),
        "bmp": b"BM" + bmp,
        "ppm": b"P6 100000 100000 255\n",
        "pam": b"P7\nWIDTH 100000\nHEIGHT 100000\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n",
    }


# What 32 MiB of zeros are packed into.
PACKED = zlib.compress(bytes(32 << 20), 1)
BOMBS = bombs()


@pytest.mark.parametrize("kind", sorted(BOMBS))
def test_pictures_that_claim_billions_of_pixels(served: Served, kind: str) -> None:
    assert len(BOMBS[kind]) < 200_000
    reply = served.segment(BOMBS[kind])
    assert reply.status == 413, reply.said
    what = r"\[image\] has \d+x\d+ pixels, more than max_pixels allows \(4194304\); scale it down"
    assert re.fullmatch(what, reply.said["error"])


def test_small_pictures_that_hold_too_much(served: Served) -> None:
    before = served.metric("process_resident_memory_bytes")
    pixels = zlib.compress(bytes(13 * 4))
    text, profile = (b"zTXt", b"Comment\0\0" + PACKED), (b"iCCP", b"x\0\0" + PACKED)
    for data in (png(4, 4, PACKED), png(4, 4, pixels, text), png(4, 4, pixels, profile)):
        reply = served.segment(data)
        assert reply.status in (200, 400), reply.said
    assert served.metric("process_resident_memory_bytes") < before + (24 << 20)


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"", 415, "[image] is no picture of a kind that is known here; send JPEG"),
        (b"hello", 415, "[image] is no picture"),
        (b"PK\x03\x04" + bytes(100), 415, "[image] is no picture"),
        (b"\xff\xd8\xff\xe0" + bytes(50), 400, "[image] is "),
        (b"\x89PNG\r\n\x1a\n", 400, "[image] is damaged or cut short"),
        (png(4, 4, b"no zlib"), 400, "[image] is damaged"),
        (b"BM" + bytes(60), 400, "[image] "),
    ],
)
def test_what_is_no_picture(served: Served, data: bytes, status: int, words: str) -> None:
    reply = served.segment(data)
    assert reply.status == status and reply.said["error"].startswith(words), reply.said
    assert "\n" not in reply.said["error"]


def test_bodies_that_are_too_large(serve: Callable[..., Served], jpeg: bytes) -> None:
    small = serve(max_bytes=4096)
    assert small.segment(jpeg).status == 413
    with small.connect() as wire:  # in chunks, whose sum nobody says beforehand
        wire.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(5):
            wire.sendall(b"3e8\r\n" + bytes(1000) + b"\r\n")
        assert wire.recv(4096).startswith(b"HTTP/1.1 413 ")
    for told in (b"999999999999999999999999", b"5000"):
        with small.connect() as wire:
            wire.sendall(
                b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + told + b"\r\n\r\n"
            )
            assert re.match(rb"HTTP/1.1 4(13|00) ", wire.recv(4096))
    assert small.ask("GET", "/v2/health/live").status == 200


def test_headers_of_a_megabyte(served: Served) -> None:
    with served.connect() as wire:
        wire.settimeout(5)
        try:
            wire.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n")
            said = wire.recv(4096)
        except (ConnectionResetError, BrokenPipeError):
            said = b""
    assert said == b"" or said.startswith(b"HTTP/1.1 400 ")
    assert served.ask("GET", "/v2/health/live").status == 200


def large_answer() -> bytes:
    """A request whose answer has 16 MB, more than the system's buffers take."""
    picture = cv2.imencode(".png", np.zeros((2000, 2000, 3), np.uint8))[1].tobytes()
    tail = struct.pack("<I", len(picture)) + picture
    size = {"binary_data_size": len(tail)}
    tensor = {"name": "encoded", "datatype": "BYTES", "shape": [1], "parameters": size}
    wanted = {"name": "label_map", "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [tensor], "outputs": [wanted]}).encode()
    start = "POST /v2/models/toy/infer HTTP/1.1\r\nHost: localhost\r\n"
    lengths = (
        f"Inference-Header-Content-Length: {len(head)}\r\nContent-Length: {len(head) + len(tail)}\r\n\r\n"
    )
    return (start + lengths).encode() + head + tail


@pytest.mark.parametrize("what", ["headers", "body", "nothing", "reading"])
def test_a_client_that_takes_its_time_is_left(serve: Callable[..., Served], what: str) -> None:
    slow = serve(slow_s=0.8)
    with slow.connect() as wire:
        wire.settimeout(10)
        begun_s = time.monotonic()
        if what == "body":
            wire.sendall(POST % b"100" + b"x")
            assert wire.recv(4096).startswith(b"HTTP/1.1 408 ")
        elif what == "reading":
            wire.sendall(large_answer())
            server = slow.service._server
            assert server is not None
            wait_for(lambda: any(one.flow.write_paused for one in server.server_state.connections))
            wait_for(lambda: not server.server_state.connections, 14)
            begun_s = time.monotonic()
        else:
            text = b"" if what == "nothing" else b"GET /v2 HTTP/1.1\r\nX-Slow: "
            ended = False
            while not ended and time.monotonic() - begun_s < 14:
                try:
                    wire.sendall(text[:1])
                    text = text[1:] or b"x"[: bool(text)]
                    wire.settimeout(0.1)
                    ended = wire.recv(10) == b""
                except TimeoutError:
                    continue
                except OSError:
                    ended = True
            assert ended
        assert time.monotonic() - begun_s < 14
    assert slow.ask("GET", "/v2/health/live").status == 200


def test_a_connection_that_is_used_stays(serve: Callable[..., Served]) -> None:
    served = serve(slow_s=0.8)
    wire = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    wire.connect()
    own, begun_s = wire.sock, time.monotonic()
    while time.monotonic() - begun_s < 2.5:
        wire.request("GET", "/v2/health/live")
        reply = wire.getresponse()
        reply.read()
        assert reply.status == 200 and wire.sock is own, "each is answered between two looks"
        time.sleep(0.03)
    wire.close()


def test_a_token_is_asked_for_everywhere(serve: Callable[..., Served], jpeg: bytes) -> None:
    guarded = serve(token=TOKEN)
    for path in ("/v2", "/metrics", "/openapi.json", "/v1/mjpeg", "/nothing", "/v2/models/toy"):
        assert guarded.ask("GET", path).status == 401
    for wrong in (
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        "Bearer \u00e9",
    ):
        reply = guarded.segment(jpeg, Authorization=wrong)
        assert reply.status == 401 and reply.headers["www-authenticate"] == "Bearer"
        assert re.fullmatch(
            r"\[token\] is (missing|wrong); send the header Authorization: Bearer TOKEN", reply.said["error"]
        )
    assert guarded.segment(jpeg, f"?token={TOKEN}").status == 401, "addresses are written into logs"
    assert guarded.segment(jpeg, Authorization=f"Bearer {TOKEN}").status == 200
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert guarded.ask("GET", path).status == 200
    assert guarded.ask("GET", f"/v1/mjpeg?source=x&token={TOKEN}").status == 404


def test_pages_of_other_sites_are_refused(served: Served, jpeg: bytes) -> None:
    assert served.segment(jpeg, Host="evil.example").status == 421
    assert served.segment(jpeg, Host="[::1").status == 421
    for origin, status in (
        ("http://evil.example", 403),
        ("null", 403),
        ("http://[", 403),
        (f"http://{served.url}", 200),
    ):
        assert served.segment(jpeg, Origin=origin).status == status
    assert served.segment(jpeg, Host=f"localhost:{served.port}").status == 200


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"host": "0.0.0.0"}, r"\[host\] 0.0.0.0 can be reached from other machines, and there is no token"),
        ({"host": "::"}, r"\[host\]"),
        ({"host": "example.org"}, r"\[host\]"),
        ({"token": "short"}, r"\[token\] must have 16 to 512 signs, got 5; make one"),
        ({"token": "with space and more"}, r"\[token\] must be of ASCII"),
        ({"port": 70000}, r"\[port\] must be a whole number from 0 to 65535"),
        ({"queue": 0}, r"\[queue\]"),
        ({"slow_s": 0}, r"\[slow_s\]"),
    ],
)
def test_options_that_are_not_allowed(chosen: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        ServeOptions(**chosen)  # type: ignore[arg-type]


def test_who_may_listen_elsewhere() -> None:
    assert ServeOptions(host="0.0.0.0", token=TOKEN).host == ServeOptions(host="0.0.0.0", no_token=True).host
    assert TOKEN not in repr(ServeOptions(token=TOKEN))


def test_a_token_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    assert read_token(None, path) == TOKEN
    with pytest.raises(OptionError, match="given twice"):
        read_token(TOKEN, path)
    path.chmod(0o644)
    with pytest.raises(OptionError, match="every user may read"):
        read_token(None, path)
    with pytest.raises(OptionError, match="cannot read"):
        read_token(None, tmp_path / "none")


def test_sources_have_names() -> None:
    assert parse_sources(["door=0", "yard=rtsp://h/a=b"]) == {"door": "0", "yard": "rtsp://h/a=b"}
    for wrong in (["door"], ["=0"], ["a b=0"], ["door="], ["a=0", "a=1"]):
        with pytest.raises(OptionError, match=r"\[source\]"):
            parse_sources(wrong)
