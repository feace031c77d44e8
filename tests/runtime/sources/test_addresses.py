from __future__ import annotations

import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from patchcut.errors import SourceError
from patchcut.sources import containers, open_source
from patchcut.sources.cameras import LiveVideo
from patchcut.sources.videos import path_of_url

from tests.runtime.sources.recordings import UNEVEN_S, own_times_s, record


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A server of files in `tmp_path`, with a login in its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://me:secret@127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "NETWORK_TIMEOUT_S", 0.5)


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.ts"])
def test_a_recording_at_an_address_has_its_own_times(tmp_path: Path, address: str, name: str) -> None:
    record(tmp_path / name, UNEVEN_S, options={"bf": "0"})
    with open_source(f"{address}/{name}") as source:
        frames = list(source)
    times_s = [frame.time_s for frame in frames]
    assert [time_s - times_s[0] for time_s in times_s] == pytest.approx(UNEVEN_S, abs=1e-3)
    assert (source.kind, source.live, source.problems) == ("video", False, [])
    assert source.end_s is not None
    assert "secret" not in source.name and source.name.endswith(name)


@pytest.mark.parametrize("mux", [{}, {"movflags": "faststart"}])
def test_an_mp4_from_a_server_that_cannot_jump(tmp_path: Path, address: str, mux: dict[str, str]) -> None:
    path = record(tmp_path / "x y.mp4", size_wh=(320, 240), options={"qp": "10"}, mux=mux, sound_s=1.0)
    assert path.stat().st_size > 2**17  # more than FFmpeg keeps of what came
    with open_source(f"{address}/x%20y.mp4") as source:
        frames = list(source)
    assert [frame.time_s for frame in frames] == own_times_s(path)
    assert (len(frames), source.problems) == (24, [])
    assert "secret" not in source.name


@pytest.mark.parametrize("name", ["missing.mp4", "text.mp4"])
def test_what_is_not_there_is_said_without_the_password(tmp_path: Path, address: str, name: str) -> None:
    (tmp_path / "text.mp4").write_text("hello" * 100)
    with pytest.raises(SourceError, match=r"cannot be opened: .*; check the address, the network") as raised:
        open_source(f"{address}/{name}")
    assert "secret" not in str(raised.value)
    cause: BaseException | None = raised.value
    while cause is not None:  # what a traceback would show
        assert "secret" not in str(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def test_nobody_answers() -> None:
    with pytest.raises(SourceError, match="cannot be opened: Connection refused"):
        open_source("http://127.0.0.1:1/x.mp4")


@pytest.mark.usefixtures("short_timeout")
def test_a_server_that_hangs_is_given_up() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        started = time.monotonic()
        with pytest.raises(SourceError, match=r"did not answer within 0.5 s; check the address"):
            open_source(f"http://127.0.0.1:{server.getsockname()[1]}/x.mp4")
        assert time.monotonic() - started < 5


@pytest.mark.usefixtures("short_timeout")
def test_a_server_that_hangs_in_the_middle_is_told(tmp_path: Path) -> None:
    path = record(tmp_path / "x.mp4", mux={"movflags": "faststart"})
    data = path.read_bytes()
    taken: list[socket.socket] = []

    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                taken.append(client)
                client.recv(4096)
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n"
                client.sendall(head.encode() + data[: len(data) * 2 // 3])

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        started = time.monotonic()
        source = open_source(f"http://127.0.0.1:{server.getsockname()[1]}/x.mp4")
        count = len(list(source))
        assert time.monotonic() - started < 10
        server.shutdown(socket.SHUT_RDWR)
    for client in taken:
        client.close()
    assert 0 < count < 24
    assert f"stopped sending after {count} frames; check the address" in source.problems[0]


def test_other_schemes_are_live(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    monkeypatch.setattr(LiveVideo, "__init__", lambda self, url, every: opened.append(url))
    open_source("rtsp://host/x")
    assert opened == ["rtsp://host/x"]


def test_file_urls_are_paths(tmp_path: Path) -> None:
    path = record(tmp_path / "a b#1.mp4", UNEVEN_S)
    url = path.as_uri()
    assert "%20" in url
    for text in (url, url.replace("file://", "file://localhost"), url.replace("file://", "FILE://")):
        source = open_source(text)
        assert [frame.time_s for frame in source] == pytest.approx(UNEVEN_S)
        assert source.name == "a b#1.mp4"
    assert path_of_url("file:///caf%e9") == "/caf\udce9"
    assert path_of_url("http://host/x") is path_of_url("file://other/x") is None
    with pytest.raises(SourceError, match="does not exist"):
        open_source((tmp_path / "missing.mp4").as_uri())
