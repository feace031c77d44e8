from __future__ import annotations

import fcntl
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import patchcut
import pytest
from patchcut import batch
from patchcut.batch import local
from patchcut.batch.records import DONE, FAILURES
from patchcut.errors import EngineError, OptionError, OutputError, SourceError
from patchcut.sources.photos import read_frame

from tests.runtime import toy_bundle as toy
from tests.runtime.batch.made_sources import write_photos, write_video

pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

Make = Callable[..., batch.Outcome]
RowOf = Callable[[patchcut.Frame], batch.FrameRow]


class Stop(batch.Watch):
    """Ctrl-C after some frames."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, frames: int) -> None:
        self.left -= frames
        if self.left <= 0:
            raise KeyboardInterrupt


class KillWorker(batch.Watch):
    """kill -9 of the worker after the first frames."""

    killed = 0

    def advance(self, frames: int) -> None:
        if not self.killed:
            for pid in workers():
                os.kill(pid, signal.SIGKILL)
                self.killed += 1


def workers() -> list[int]:
    """Ids of this process's children that are a batch's workers: tests before may have left a cluster's."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [
        int(pid) for pid in children if b"patchcut.batch.local" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def shards_in(dst: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in sorted((dst / "shards").iterdir()) if path.name[0] != "."
    }


def failures_in(dst: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (dst / FAILURES).read_text().splitlines()]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_photos(tmp_path / "photos", 10)
    return tmp_path / "photos"


def test_rows_are_what_a_segmenter_finds(tmp_path: Path, photos: Path, make: Make, row_of: RowOf) -> None:
    video = write_video(photos / "walk.mp4", 20, options={"bf": "2"})
    animation = write_video(photos / "walk.avi", 6, codec="mpeg4")
    outcome = make([photos], tmp_path / "out")
    expected = [row_of(read_frame(photos / f"{i:04d}.png", f"{i:04d}.png")) for i in range(10)]
    for path in (animation, video):
        with patchcut.open_source(path) as source:
            expected += [row_of(frame) for frame in source]
    found = list(batch.rows(tmp_path / "out"))
    assert found == expected and (outcome.rows, outcome.failures, outcome.made) == (36, 0, 36)
    assert len({region.label for row in found for region in row.regions}) > 1, "all frames look the same"
    assert len({row.time_s for row in found}) > 15
    assert outcome.shards == len(shards_in(tmp_path / "out")) == 7
    again = make([photos], tmp_path / "out")
    assert (again.rows, again.made) == (36, 0), "all of it was there"


def test_stopped_and_started_it_is_the_same(tmp_path: Path, photos: Path, make: Make) -> None:
    whole = make([photos], tmp_path / "whole")
    for after in (1, 5):
        with pytest.raises(KeyboardInterrupt):
            make([photos], tmp_path / "out", watch=Stop(after))
    assert not workers(), "its workers end with it"
    outcome = make([photos], tmp_path / "out", workers=2)
    assert 0 < outcome.made < 10 and outcome.rows == whole.rows == 10
    assert shards_in(tmp_path / "out") == shards_in(tmp_path / "whole")
    (tmp_path / "out/shards/000001.tar").write_bytes(b"torn by a power cut")
    (tmp_path / "out/shards/000002.tar").unlink()
    with (tmp_path / "out" / DONE).open("ab") as journal:
        journal.write(b"[0, 4, 12")
    assert make([photos], tmp_path / "out").made == 6
    assert shards_in(tmp_path / "out") == shards_in(tmp_path / "whole")


def test_a_worker_that_is_killed_is_replaced(tmp_path: Path, photos: Path, make: Make) -> None:
    watch = KillWorker()
    outcome = make([photos], tmp_path / "out", watch=watch)
    assert watch.killed == 1 and (outcome.rows, outcome.failures, outcome.made) == (10, 0, 10)
    make([photos], tmp_path / "whole")
    assert shards_in(tmp_path / "out") == shards_in(tmp_path / "whole")


def deadly(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Workers die where they read a file."""
    code = f"""
import os
from patchcut.batch import frames, local
own = frames.open_file
frames.open_file = lambda path, **how: os.kill(os.getpid(), 9) if path.name == {name!r} else own(path, **how)
"""
    monkeypatch.setattr(local, "_START", code + "local.serve({}, {})")


def test_a_photo_that_kills_its_workers_is_one_failure(
    tmp_path: Path, photos: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly(monkeypatch, "0005.png")
    outcome = make([photos], tmp_path / "out")
    assert (outcome.rows, outcome.failures, outcome.made) == (9, 1, 10)
    (failure,) = failures_in(tmp_path / "out")
    assert (failure["name"], failure["index"], failure["shard"]) == ("0005.png", None, 1)
    assert failure["why"] == "[0005.png] ended its worker 3 times; look at it with `patchcut run`"
    names = [row.name for row in batch.rows(tmp_path / "out")]
    assert names == sorted(set(names)) and len(names) == 9


def test_workers_that_cannot_start_are_told(
    tmp_path: Path, photos: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_START", "{}, {}")
    with pytest.raises(EngineError, match=r"\[worker\] 6 workers died one after the other before a frame"):
        make([photos], tmp_path / "out")
    monkeypatch.setattr(
        local,
        "_START",
        "import os, time; from patchcut.batch import local; local.Worker = None\nlocal.serve({}, {})",
    )
    with pytest.raises(EngineError, match=r"\[worker\] failed: TypeError: 'NoneType' .*; report this"):
        make([photos], tmp_path / "out")


def test_what_cannot_be_read_is_listed_and_tried_again(tmp_path: Path, photos: Path, make: Make) -> None:
    good = (photos / "0003.png").read_bytes()
    (photos / "0003.png").write_bytes(good[:100])
    (photos / "0007.png").write_bytes(b"")
    (photos / "broken.mp4").write_bytes(b"no video")
    outcome = make([photos], tmp_path / "out")
    assert (outcome.rows, outcome.failures) == (8, 3)
    told = failures_in(tmp_path / "out")
    assert [one["name"] for one in told] == ["0003.png", "0007.png", "broken.mp4"]
    assert told[1]["why"].startswith("[0007.png] is empty (0 bytes); copy or download it again")
    (photos / "0003.png").write_bytes(good)
    assert make([photos], tmp_path / "out").made == 0, "nobody asked for it"
    outcome = make([photos], tmp_path / "out", retry=True)
    assert (outcome.rows, outcome.failures) == (9, 2) and len(failures_in(tmp_path / "out")) == 2
    names = [row.name for row in batch.rows(tmp_path / "out")]
    assert names == [f"{i:04d}.png" for i in range(10) if i != 7]


def test_frames_that_cannot_be_decoded_are_listed(tmp_path: Path, make: Make) -> None:
    video = write_video(tmp_path / "x.mp4", 24, codec="mpeg4")
    data = bytearray(video.read_bytes())
    with patchcut.open_source(video) as source:
        assert sum(1 for _ in source) == 24
    begin = data.index(b"mdat") + len(data) // 3
    data[begin : begin + 400] = bytes(400)
    video.write_bytes(data)
    outcome = make([video], tmp_path / "out")
    failed = [one["index"] for one in failures_in(tmp_path / "out")] if outcome.failures else []
    rows = [row.index for row in batch.rows(tmp_path / "out")]
    assert sorted(rows + failed) == list(range(24)) and rows


def test_every_and_limit(tmp_path: Path, photos: Path, make: Make) -> None:
    write_video(photos / "x.mp4", 20)
    make([photos], tmp_path / "out", every=3, limit=6)
    found = [(row.name, row.index) for row in batch.rows(tmp_path / "out")]
    assert found == [
        ("0000.png", 0),
        ("0003.png", 0),
        ("0006.png", 0),
        ("0009.png", 0),
        ("x.mp4", 0),
        ("x.mp4", 3),
    ]


def test_a_folder_of_another_batch_is_refused(
    tmp_path: Path, photos: Path, make: Make, toy_bundle: Path
) -> None:
    make([photos], tmp_path / "out", limit=2)
    before = shards_in(tmp_path / "out")
    settings = patchcut.Settings(bundle=toy_bundle, device="cpu", min_score=0.5)
    files = toy.members()
    other = toy.write(
        tmp_path / "other.patchcut", files, toy.manifest(files, tokens=False) | {"name": "other"}
    )
    for how, told in (
        ({"settings": settings, "limit": 2}, "min_score was 0.0, not 0.5"),
        ({"settings": patchcut.Settings(bundle=other, device="cpu"), "limit": 2}, "another bundle"),
        ({"limit": 3}, "limit was 2, not 3"),
        ({"limit": 2, "shard_size": 9}, "shard_size was 4, not 9"),
    ):
        with pytest.raises(OptionError, match=rf"\[dst\] .*out holds results of another run: .*{told}"):
            make([photos], tmp_path / "out", **how)
    with pytest.raises(OptionError, match="another source; choose another folder"):
        make([photos / "0000.png"], tmp_path / "out", limit=2)
    assert shards_in(tmp_path / "out") == before
    (tmp_path / "out" / DONE).write_bytes(b"")
    assert make([photos], tmp_path / "out", limit=3, shard_size=9).rows == 3, "no shard was on record"
    assert list(shards_in(tmp_path / "out")) == ["000000.tar"]
    with pytest.raises(OptionError, match=r"\[dst\] .*photos holds 0000.png, which is none of a batch's"):
        make([photos], photos)


def test_two_at_once_are_refused(tmp_path: Path, photos: Path, make: Make) -> None:
    make([photos], tmp_path / "out")
    with (tmp_path / "out" / DONE).open("rb") as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match=r"out is worked on by another process; wait until it ends"):
            make([photos], tmp_path / "out")


def test_a_source_that_is_gone_stops_it(tmp_path: Path, photos: Path, make: Make) -> None:
    class Unmount(batch.Watch):
        def begin(self, done: int, total: int) -> None:
            photos.rename(tmp_path / "elsewhere")

    with pytest.raises(
        SourceError, match=r"\[.*photos\] is gone, with all that is left to do; bring it back"
    ):
        make([photos], tmp_path / "out", watch=Unmount())
    with pytest.raises(SourceError, match=r"photos\] does not exist"):
        make([photos], tmp_path / "out")
    (tmp_path / "elsewhere").rename(photos)
    assert make([photos], tmp_path / "out").rows == 10


def test_sources_without_a_picture_leave_room_for_another_try(tmp_path: Path, make: Make) -> None:
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        with pytest.raises(SourceError, match=r"empty\] hold no photos and no videos"):
            make([tmp_path / "empty"], tmp_path / "out")
    write_photos(tmp_path / "empty", 1)
    assert make([tmp_path / "empty"], tmp_path / "out").rows == 1


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"engine": "spark"}, r'\[engine\] must be one of "local", "ray"'),
        ({"format": "csv"}, r'\[format\] must be one of "parquet", "webdataset"'),
        ({"shard_size": 0}, r"\[shard_size\] must be a whole number from 1"),
        ({"workers": 0}, r"\[workers\] must be a whole number from 1"),
        ({"every": 0}, r"\[every\] must be a whole number from 1"),
        ({"limit": 0}, r"\[limit\] must be a whole number from 1"),
    ],
)
def test_options_out_of_range(
    tmp_path: Path, photos: Path, make: Make, how: dict[str, Any], told: str
) -> None:
    with pytest.raises(OptionError, match=told):
        make([photos], tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()


def test_another_bundle_in_a_worker_is_told(
    tmp_path: Path, photos: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "from patchcut.batch import local, worker; worker.settings_recipe = lambda _: dict(bundle='x')"
    monkeypatch.setattr(local, "_START", own + "; local.serve({}, {})")
    with pytest.raises(patchcut.BundleError, match="is another bundle here; put the same on every machine"):
        make([photos], tmp_path / "out")
