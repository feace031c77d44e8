"""Frames in, tracks out; and a source that is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs patchcut[server]")


from .conftest import Served, wait_for

websockets = pytest.importorskip("websockets.sync.client", reason="needs patchcut[server]")

if TYPE_CHECKING:
    pass

TOKEN = "correct-horse-battery-staple"


def connect(served: Served, query: str = "", **chosen: Any) -> Any:
    return websockets.connect(f"ws://{served.url}/v1/stream{query}", open_timeout=30, **chosen)


def moved(image: np.ndarray, x: int) -> bytes:
    data: bytes = cv2.imencode(".png", np.roll(image, x, axis=1)[:256, :256])[1].tobytes()
    return data


def test_frames_get_tracks_that_last(served: Served, image: np.ndarray) -> None:
    with connect(served) as wire:
        told = []
        for i in range(6):
            wire.send(moved(image, 2 * i))
            told.append(json.loads(wire.recv(timeout=30)))
    assert [one["index"] for one in told] == list(range(6))
    assert all(one["dropped"] == 0 and one["size_hw"] == [256, 256] for one in told)
    ids = [{region["track_id"] for region in one["regions"]} for one in told]
    assert set.intersection(*ids) - {0}, ids
    assert all("counts" in region["mask"] for region in told[0]["regions"])
    wait_for(lambda: served.service.backend.streams.open_now == 0)


def test_the_newest_frame_wins(served: Served, image: np.ndarray) -> None:
    frames = 40
    with connect(served, "?masks=none") as wire:
        for i in range(frames):
            wire.send(moved(image, i))
        told = [json.loads(wire.recv(timeout=30))]
        while told[-1]["index"] < frames - 1:
            told.append(json.loads(wire.recv(timeout=30)))
    indices = [one["index"] for one in told]
    assert indices == sorted(set(indices)) and indices[-1] == frames - 1
    assert sum(one["dropped"] for one in told) + len(told) == frames or len(told) < frames
    assert len(told) < frames, "a client that sends faster than can be answered loses frames, and is told"
    assert "mask" not in told[-1]["regions"][0]


def test_a_frame_that_is_none_is_told_and_the_stream_goes_on(served: Served, image: np.ndarray) -> None:
    with connect(served) as wire:
        wire.send(b"no picture")
        said = json.loads(wire.recv(timeout=30))
        assert said["index"] == 0 and said["error"].startswith("[frame] is no picture")
        wire.send(b"P6 100000 100000 255\n")
        assert "more than max_pixels" in json.loads(wire.recv(timeout=30))["error"]
        wire.send(moved(image, 0))
        assert json.loads(wire.recv(timeout=30))["index"] == 2


def test_settings_of_a_stream(served: Served, image: np.ndarray) -> None:
    with connect(served, "?single=1&mode=parts") as wire:
        wire.send(moved(image, 0))
        told = json.loads(wire.recv(timeout=30))
    assert "background" in told["labels"][0] and len(told["labels"]) > 3


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [("?masks=png", 400, "[masks]"), ("?fps=3", 400, "[query]"), ("?refine=no", 400, "[refine]")],
)
def test_a_stream_that_is_asked_for_wrongly(served: Served, query: str, status: int, words: str) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        connect(served, query)
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body)["error"].startswith(words)


def test_who_may_stream(serve: Callable[..., Served], image: np.ndarray) -> None:
    guarded = serve(token=TOKEN, streams=1)
    for query, headers in (("", {}), ("?token=wrong", {}), ("", {"Authorization": "Bearer no"})):
        with pytest.raises(websockets.InvalidStatus) as refused:
            connect(guarded, query, additional_headers=headers)
        assert refused.value.response.status_code == 401
    with pytest.raises(websockets.InvalidStatus) as refused:
        connect(guarded, f"?token={TOKEN}", origin="http://evil.example")
    assert refused.value.response.status_code == 403
    with connect(guarded, f"?token={TOKEN}") as wire:
        with pytest.raises(websockets.InvalidStatus) as refused:
            connect(guarded, additional_headers={"Authorization": f"Bearer {TOKEN}"})
        assert refused.value.response.status_code == 429 and "Retry-After" in refused.value.response.headers
        wire.send(moved(image, 0))
        assert json.loads(wire.recv(timeout=30))["index"] == 0
    wait_for(lambda: guarded.service.backend.streams.open_now == 0)
    with connect(guarded, f"?token={TOKEN}"):
        pass


def test_messages_that_are_too_large_or_text_end_the_stream(serve: Callable[..., Served]) -> None:
    from websockets.exceptions import ConnectionClosed

    small = serve(max_bytes=4096)
    for message, code in ((bytes(5000), 1009), ("text", 1003)):
        with connect(small) as wire, pytest.raises(ConnectionClosed) as closed:
            wire.send(message)
            wire.recv(timeout=30)
        assert closed.value.rcvd.code == code  # type: ignore[union-attr]
    wait_for(lambda: small.service.backend.streams.open_now == 0)


def test_several_streams_take_turns_and_one_that_ends_holds_none(served: Served, image: np.ndarray) -> None:
    with connect(served) as first, connect(served) as second:
        with connect(served) as third:
            for i in range(3):
                for wire in (first, second, third):
                    wire.send(moved(image, i))
                for wire in (first, second, third):
                    assert json.loads(wire.recv(timeout=30))["index"] == i
        for wire in (first, second):
            wire.send(moved(image, 3))
            assert json.loads(wire.recv(timeout=30))["index"] == 3
    wait_for(lambda: served.service.backend.streams.open_now == 0)


def test_a_stop_ends_streams(serve: Callable[..., Served], image: np.ndarray) -> None:
    from websockets.exceptions import ConnectionClosed

    one = serve()
    with connect(one) as wire:
        wire.send(moved(image, 0))
        wire.recv(timeout=30)
        one.stop()
        with pytest.raises(ConnectionClosed) as closed:
            wire.recv(timeout=10)
    assert closed.value.rcvd.code in (1001, 1012)  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, image: np.ndarray) -> Path:
    path = tmp_path_factory.mktemp("video") / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (128, 128))
    for i in range(30):
        writer.write(np.ascontiguousarray(np.roll(image, 4 * i, axis=1)[:128, :128]))
    writer.release()
    return path


def test_a_source_is_shown_to_several(serve: Callable[..., Served], video: Path) -> None:
    shown = serve(sources={"walk": str(video), "gone": str(video) + ".not"})
    wires = [shown.connect() for _ in range(2)]
    for wire in wires:
        wire.settimeout(30)
        wire.sendall(b"GET /v1/mjpeg?source=walk HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for wire in wires:
        got = b""
        while got.count(b"\xff\xd9\r\n") < 2:
            data = wire.recv(1 << 16)
            assert data
            got += data
        assert b"multipart/x-mixed-replace; boundary=frame" in got
        begin = got.index(b"\xff\xd8")
        picture = cv2.imdecode(
            np.frombuffer(got[begin : got.index(b"\r\n", got.index(b"\xff\xd9"))], np.uint8), 1
        )
        assert picture.shape == (128, 128, 3)
    assert shown.service.backend.streams.open_now == 1, "it is read once for both"
    for wire in wires:
        wire.close()
    wait_for(lambda: shown.service.backend.streams.open_now == 0)


def test_a_source_that_ends_ends_its_answer(serve: Callable[..., Served], video: Path) -> None:
    shown = serve(sources={"walk": str(video)})
    reply = shown.ask("GET", "/v1/mjpeg?source=walk&refine=none", timeout=60)
    assert reply.status == 200 and reply.body.endswith(b"--frame--\r\n")
    assert 1 <= reply.body.count(b"Content-Type: image/jpeg") <= 30
    wait_for(lambda: shown.service.backend.streams.open_now == 0)


def test_only_what_the_operator_named_is_shown(serve: Callable[..., Served], video: Path) -> None:
    shown = serve(sources={"gone": str(video) + ".not"})
    for source in ("", "walk", str(video), "0", "http://127.0.0.1/x", "../walk"):
        reply = shown.ask("GET", f"/v1/mjpeg?source={source}")
        assert reply.status == 404 and reply.said["error"].startswith("[source] is none of those")
    reply = shown.ask("GET", "/v1/mjpeg?source=gone")
    assert reply.status == 503
    assert reply.said["error"] == "[source] gone cannot be opened; the server's log says why"
    assert shown.ask("GET", "/v1/mjpeg?source=gone&fps=2").status == 400
    assert shown.service.backend.streams.open_now == 0
