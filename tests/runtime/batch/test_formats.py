from __future__ import annotations

import errno
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patchcut import batch
from patchcut.batch import folder as batch_folder
from patchcut.batch.formats import FORMATS, open_shard, read_shard
from patchcut.batch.records import ABOUT, DONE
from patchcut.errors import OptionError, OutputError, SourceError

from tests.runtime.batch.made_sources import write_photos

Make = Callable[..., batch.Outcome]


def a_row(number: int) -> dict[str, Any]:
    """A row as a shard holds it; every third has no region, and one in two no time."""
    rng = np.random.default_rng(number)
    regions = [
        {
            "label": f"caf\N{LATIN SMALL LETTER E WITH ACUTE} {i}",
            "background": bool(i % 2),
            "score": round(float(rng.random()), 4),
            "bbox": [float(side) for side in rng.integers(0, 999, 4)],
            "area": int(rng.integers(1, 2**40)),
            "segmentation": {"size": [48, 64], "counts": "abc\\`0" * (1 + i)},
        }
        for i in range(number % 3)
    ]
    time_s = number / 7 if number % 2 else None
    return {
        "name": f"a/{number}.png",
        "index": number,
        "time_s": time_s,
        "size_hw": [48, 64],
        "regions": regions,
    }


@pytest.fixture(params=sorted(FORMATS))
def format(request: pytest.FixtureRequest) -> str:
    if request.param == "parquet":
        pytest.importorskip("pyarrow", reason="needs patchcut[parquet]")
    return str(request.param)


@pytest.mark.parametrize("count", [0, 1, 257, 600])
def test_what_is_written_is_read(tmp_path: Path, format: str, count: int) -> None:
    rows = [a_row(number) for number in range(count)]
    for name in ("a", "b"):
        with open_shard(tmp_path / f"{name}/000007.x", format) as add:
            for row in rows:
                add(row)
    path = tmp_path / "a/000007.x"
    assert list(read_shard(path, format)) == rows
    assert [batch.FrameRow.from_dict(row).to_dict() for row in rows] == rows
    assert path.read_bytes() == (tmp_path / "b/000007.x").read_bytes(), "the same rows are the same bytes"


def test_strangers_read_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs patchcut[parquet]")
    from pyarrow import dataset

    for number in range(2):
        with open_shard(tmp_path / f"{number}.parquet", "parquet") as add:
            for row in range(5):
                add(a_row(10 * number + row))
    table = dataset.dataset(tmp_path).to_table(filter=dataset.field("index") >= 10)
    assert table.column("name").to_pylist() == [f"a/{10 + row}.png" for row in range(5)]
    assert table.schema.field("regions").type.value_type.field("segmentation") is not None


def test_strangers_read_tar(tmp_path: Path) -> None:
    """WebDataset's rule: files whose names are the same up to the first dot are one sample."""
    with open_shard(tmp_path / "000012.tar", "webdataset") as add:
        for row in range(3):
            add(a_row(row))
    with tarfile.open(tmp_path / "000012.tar") as tar:
        samples = {one.name.split(".", 1)[0]: json.load(tar.extractfile(one)) for one in tar.getmembers()}
    assert list(samples) == ["000012-000000", "000012-000001", "000012-000002"]
    assert list(samples.values()) == [a_row(row) for row in range(3)]


def test_a_full_disk_leaves_no_shard(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def full(self: Path, *args: Any, **how: Any) -> Any:
        if args[:1] == ("wb",):
            return opened(Path("/dev/full"), "wb", buffering=0)
        return opened(self, *args, **how)

    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    monkeypatch.setattr(Path, "open", full)
    with (
        pytest.raises(OutputError, match=r"cannot write .*0.x: No space left on device; free some space"),
        open_shard(tmp_path / "0.x", format) as add,
    ):
        for row in range(600):
            add(a_row(row))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_tears_no_record(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")
    write_photos(tmp_path / "in", 10)
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if data.startswith(b"[1, 4, "):
            write(descriptor, data[:5])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(batch_folder.os, "write", full)
    with pytest.raises(OutputError, match=r"cannot write .*done.jsonl: No space left on device; free some"):
        make([tmp_path / "in"], tmp_path / "out")
    assert (tmp_path / "out" / DONE).read_bytes().count(b"\n") == 1
    monkeypatch.undo()
    assert make([tmp_path / "in"], tmp_path / "out").made == 6
    assert [row.name for row in batch.rows(tmp_path / "out")] == [f"{i:04d}.png" for i in range(10)]


def test_what_is_damaged_is_told(tmp_path: Path, make: Make) -> None:
    pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")
    with pytest.raises(SourceError, match=r"out\] holds no batch.json; name a folder that `patchcut batch`"):
        list(batch.rows(tmp_path / "out"))
    write_photos(tmp_path / "in", 8)
    make([tmp_path / "in"], tmp_path / "out")
    shard = tmp_path / "out/shards/000001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(SourceError, match=r"000001.tar\] has \d+ bytes and not \d+, as it was left; run the"):
        list(batch.rows(tmp_path / "out"))
    shard.write_bytes(b"x" * len(whole))
    with pytest.raises(SourceError, match=r"000001.tar\] cannot be read: .*; remove it, and run the same"):
        list(batch.rows(tmp_path / "out"))
    with pytest.raises(SourceError, match=r"000001.tar\] cannot be read"):
        batch.write_coco(tmp_path / "out")
    assert not (tmp_path / "out/coco.json").exists()
    shard.unlink()
    with pytest.raises(SourceError, match=r"000001.tar\] cannot be read: .*No such file"):
        list(batch.rows(tmp_path / "out"))
    about = json.loads((tmp_path / "out" / ABOUT).read_text())
    for wrong, told in (
        (
            {**about, "version": 2},
            "is of version 2, this patchcut reads 1; install the patchcut that made it",
        ),
        ({**about, "made_by": "x"}, "is damaged or foreign: it was not made by patchcut batch"),
        ({**about, "format": "csv"}, "is damaged or foreign: there is no format csv"),
        ([], "is damaged or foreign"),
        ({"made_by": "patchcut batch", "version": 1}, "is damaged or foreign"),
    ):
        (tmp_path / "out" / ABOUT).write_text(json.dumps(wrong))
        with pytest.raises(SourceError, match=told):
            make([tmp_path / "in"], tmp_path / "out")


def test_pyarrow_that_is_missing_is_told(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    write_photos(tmp_path / "in", 1)
    with pytest.raises(
        OptionError, match=r"\[format\] parquet needs pyarrow: .*\[parquet\]', or choose --format"
    ):
        make([tmp_path / "in"], tmp_path / "out", format="parquet")
    assert not (tmp_path / "out").exists()
