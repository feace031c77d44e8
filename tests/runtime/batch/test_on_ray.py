"""A batch on a Ray cluster of two CPUs on this machine, whose workers are killed half-way."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import patchcut
import pytest
from patchcut import batch
from patchcut.batch import on_ray, ray_cluster
from patchcut.batch.worker import Task
from patchcut.errors import EngineError, OutputError, SourceError

from tests.runtime.batch.made_sources import write_photos, write_video
from tests.small_cluster import small_cluster

pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")
cluster_module = pytest.importorskip("ray", reason="needs patchcut[scale]")

Make = Callable[..., batch.Outcome]


class DeadlyWorker(on_ray._RayWorker):
    """Dies as soon as it has told something, as long as a file is there, which it removes."""

    def work(self, task: Task) -> Any:
        for told in super().work(task):
            yield told
            flag = task.path.parents[2] / "deadly"
            if flag.is_file():
                flag.unlink()
                time.sleep(0.5)  # what it told is on its way
                os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    cluster_module.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    if cluster_module.is_initialized():
        yield cluster_module
        return
    with small_cluster() as one:
        yield one


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    write_photos(tmp_path / "in", 13)
    write_video(tmp_path / "in/x.mp4", 20)
    (tmp_path / "in/0005b.png").write_bytes(b"no picture")
    return tmp_path / "in"


def shards_in(dst: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in sorted((dst / "shards").iterdir()) if path.name[0] != "."
    }


def test_the_shards_are_those_of_one_machine(
    ray: Any, sources: Path, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = make([sources], tmp_path / "alone")
    made = make([sources], tmp_path / "ray", engine="ray", workers=None)
    assert (made.rows, made.failures, made.shards) == (alone.rows, alone.failures, alone.shards) == (33, 1, 7)
    assert shards_in(tmp_path / "ray") == shards_in(tmp_path / "alone")
    assert (tmp_path / "ray/failures.jsonl").read_text() == (tmp_path / "alone/failures.jsonl").read_text()
    assert ray.is_initialized(), "the cluster was there before"

    monkeypatch.setattr(on_ray, "_RayWorker", DeadlyWorker)
    (tmp_path / "deadly").touch()
    made = make([sources], tmp_path / "killed", engine="ray", workers=2)
    assert not (tmp_path / "deadly").exists(), "no worker was killed"
    assert (made.rows, made.failures, made.made) == (33, 1, 34)
    assert shards_in(tmp_path / "killed") == shards_in(tmp_path / "alone")


def test_what_a_worker_raises_is_told(
    ray: Any, sources: Path, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Elsewhere(on_ray._RayWorker):
        def work(self, task: Task) -> Any:
            yield batch.making.ShardReport(task.shard.number, 4, 10_000)

    class Gone(on_ray._RayWorker):
        def work(self, task: Task) -> Any:
            yield 1
            raise SourceError("in", "is gone", "bring it back")

    monkeypatch.setattr(on_ray, "_RayWorker", Elsewhere)
    with pytest.raises(
        OutputError, match=r"000000.tar is not here as a worker wrote it; choose a folder that"
    ):
        make([sources], tmp_path / "out", engine="ray")
    monkeypatch.setattr(on_ray, "_RayWorker", Gone)
    with pytest.raises(SourceError, match=r"\[in\] is gone; bring it back"):
        make([sources], tmp_path / "out", engine="ray")
    settings = patchcut.Settings(device="cuda")
    with pytest.raises(
        EngineError, match=r"\[engine\] the Ray cluster has no GPU; add a machine that has one"
    ):
        make([sources], tmp_path / "gpu", engine="ray", settings=settings)
    assert not (tmp_path / "gpu").exists()


def test_an_address_that_does_not_answer_is_given_up(
    sources: Path, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "is_initialized", lambda: False)  # as another test may have left it
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(
        EngineError, match=r"\[engine\] no Ray cluster at 127.0.0.1:1: .*refused; start one with"
    ):
        make([sources], tmp_path / "out", engine="ray")
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:10001")
    with pytest.raises(EngineError, match=r"ray://127.0.0.1:10001 is for Ray's client, which cannot run a"):
        make([sources], tmp_path / "out", engine="ray")
    monkeypatch.setattr(ray_cluster, "ANSWER_S", 3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{silent.getsockname()[1]}")
        begun_s = time.monotonic()
        with pytest.raises(
            EngineError, match=r"no Ray cluster at 127.0.0.1:\d+: it does not answer within 3 s"
        ):
            make([sources], tmp_path / "out", engine="ray")
        assert time.monotonic() - begun_s < 20
    assert not (tmp_path / "out").exists()
