"""A bundle that is loaded again while it answers, and the command from its start to its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs patchcut[server]")

from patchcut import Settings
from patchcut.errors import BundleError, OptionError
from patchcut_server import Model

from .conftest import Reply, Served, wait_for

TOKEN = "correct-horse-battery-staple"


@pytest.fixture
def mine(bundle_path: Path, tmp_path: Path) -> Path:
    path = tmp_path / "mine.patchcut"
    path.write_bytes(bundle_path.read_bytes())
    return path


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def test_it_is_loaded_again_and_a_damaged_one_is_not(mine: Path, image: np.ndarray) -> None:
    model = Model(Settings(bundle=mine, threads=1))
    assert (model.name, model.version) == ("mine", 1)
    before, whole = model.now, mine.read_bytes()
    assert model.reload() == 2 and model.now is not before
    for spoil in (lambda: damage(mine), lambda: mine.write_bytes(whole[:5000]), mine.unlink):
        kept = model.now
        spoil()
        with pytest.raises(BundleError, match=r"\[bundle\]"):
            model.reload()
        assert model.now is kept and model.version == 2
        np.testing.assert_array_equal(model.now(image).label_map, before(image).label_map)
        if not mine.exists():
            mine.write_bytes(whole)


def test_other_settings_share_the_engine_and_go_with_it(mine: Path) -> None:
    model = Model(Settings(bundle=mine, threads=1))
    changes = (("head", "kmeans"), ("single", True))
    one = model.segmenter(changes)
    assert one.extractor is model.now.extractor and one.settings.single
    assert model.segmenter(changes).head is one.head, "it is opened once"
    assert model.segmenter(()) is model.now
    with pytest.raises(OptionError, match=r"\[head\]"):
        model.segmenter((("head", "levels"),))
    model.reload()
    assert model.segmenter(changes).extractor is model.now.extractor is not one.extractor


def test_no_request_is_lost_while_it_is_loaded(mine: Path, serve: Callable[..., Served], jpeg: bytes) -> None:
    one = serve(model=Model(Settings(bundle=mine, threads=1)), deadline_s=60.0)
    replies: list[Reply] = []
    stop = threading.Event()

    def client() -> None:
        while not stop.is_set():
            replies.append(one.segment(jpeg))

    threads = [threading.Thread(target=client) for _ in range(3)]
    for thread in threads:
        thread.start()
    for version in ("2", "3"):
        told = one.ask("POST", "/v2/repository/models/mine/load")
        assert (told.status, told.said) == (200, {"version": version})
    damage(mine)
    refused = one.ask("POST", "/v2/repository/models/mine/load")
    assert refused.status == 503 and refused.said["error"].startswith("[bundle] ")
    assert one.segment(jpeg, "?mode=scene").status == 503, "of a file that is damaged no other head is read"
    stop.set()
    for thread in threads:
        thread.join(60)
    assert len(replies) >= 3 and Counter(reply.status for reply in replies) == {200: len(replies)}
    assert len({str(reply.said["regions"]) for reply in replies}) == 1
    assert one.metric('patchcut_loads_total{outcome="good"}') == 2
    assert one.metric('patchcut_loads_total{outcome="failed"}') == 1
    assert one.ask("POST", "/v2/repository/models/other/load").status == 404


class Command:
    """`patchcut serve` in a process of its own."""

    def __init__(self, *words: object, **environment: str) -> None:
        code = "from patchcut.__main__ import main; main()"
        command = [sys.executable, "-c", code, "serve", "--port", "0", "--threads", "1", *map(str, words)]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    def served(self) -> Served:
        self.wait_for("answers on")
        line = next(line for line in self.lines if "answers on" in line)
        return Served(None, int(line.rpartition(":")[2]), None, None)  # type: ignore[arg-type]

    def wait_for(self, words: str) -> None:
        ended = self.process.poll
        wait_for(lambda: any(words in line for line in self.lines) or ended() is not None, 120)
        assert any(words in line for line in self.lines), self.lines

    def end(self, timeout: float = 60) -> int:
        status = self.process.wait(timeout)
        self._reader.join(5)
        return status


@pytest.fixture
def command() -> Iterator[Callable[..., Command]]:
    started: list[Command] = []

    def start(*words: object, **environment: str) -> Command:
        started.append(Command(*words, **environment))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
        assert one.process.stderr is not None
        one.process.stderr.close()


def test_the_command_loads_again_and_ends_with_its_last_answer(
    command: Callable[..., Command], mine: Path, jpeg: bytes
) -> None:
    pytest.importorskip("onnx", reason="the toy bundle is made with onnx")
    one = command("--bundle", mine, PATCHCUT_TOKEN=TOKEN)
    served = one.served()
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert served.segment(jpeg).status == 401
    assert served.segment(jpeg, **bearer).status == 200
    one.process.send_signal(signal.SIGHUP)
    one.wait_for("loaded mine again")
    damage(mine)
    one.process.send_signal(signal.SIGHUP)
    one.wait_for("goes on answering")
    assert served.segment(jpeg, **bearer).status == 200
    with served.connect() as wire:
        head = f"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        wire.sendall(f"{head}Content-Length: {len(jpeg)}\r\n\r\n".encode() + jpeg[:-1000])
        wait_for(lambda: b"patchcut_queue 1.0" in served.ask("GET", "/metrics", headers=bearer).body)
        one.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        wire.sendall(jpeg[-1000:])
        wire.settimeout(60)
        assert wire.recv(4096).startswith(b"HTTP/1.1 200 "), "what was taken is answered"
    assert one.end() == 0 and one.lines[-1] == "patchcut: stopped"
    assert "Traceback" not in "\n".join(one.lines)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--host", "0.0.0.0"), 2, "patchcut: [host] 0.0.0.0 can be reached from other machines"),
        (("--token", "short"), 2, "patchcut: [token] must have 16 to 512 signs"),
        (("--source", "door"), 2, "patchcut: [source] must be NAME=SOURCE"),
        (
            ("--host", "no.such.invalid", "--no-token"),
            2,
            "patchcut: [host] no.such.invalid is no address",
        ),
        (("--bundle", "missing.patchcut"), 1, "patchcut: [bundle] cannot open missing.patchcut"),
    ],
)
def test_a_command_line_that_is_wrong(
    run_cli: Callable[..., int],
    capfd: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    status: int,
    said: str,
) -> None:
    assert run_cli("serve", "--port", 0, *words) == status
    line = capfd.readouterr().err.strip()
    assert line.startswith(said) and "\n" not in line


def test_a_port_that_is_in_use(
    served: Served, run_cli: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("serve", "--port", served.port) == 1
    assert capfd.readouterr().err.startswith(
        f"patchcut: [port] cannot listen on 127.0.0.1 port {served.port}"
    )
