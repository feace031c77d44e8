from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patchcut import batch

from tests.runtime.batch.made_sources import write_photos, write_video

pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")


@pytest.fixture
def run(
    toy_bundle: Path, run_cli: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """`patchcut batch ARGS...` in a folder of its own, with the toy bundle and one worker."""
    monkeypatch.chdir(tmp_path)
    own = [
        "--bundle",
        toy_bundle,
        "--device",
        "cpu",
        "--threads",
        1,
        "--workers",
        1,
        "--format",
        "webdataset",
    ]
    return lambda *args: run_cli("batch", *args, *own)


def test_a_batch_is_made_and_merged(run: Callable[..., int], tmp_path: Path, capfd: Any) -> None:
    names = write_photos(tmp_path / "in", 6)
    write_video(tmp_path / "in/x.mp4", 4)
    assert run("in", "out", "--shard-size", 3, "--save", "coco") == 0
    told = capfd.readouterr()
    assert "10 frames in 3 shards: out" in told.out and "all of it: out/coco.json" in told.out
    assert "this run: 10 frames in" in told.out and told.err == ""
    coco = json.loads((tmp_path / "out/coco.json").read_text())
    files = [one["file_name"] for one in coco["images"]]
    assert files == [*names, *(f"x.mp4/{i:06d}" for i in range(4))]
    assert coco["images"][-1]["video"] == "x.mp4" and coco["images"][-1]["frame_index"] == 3
    assert run("in", "out", "--shard-size", 3) == 0
    assert "this run: 0 frames" in capfd.readouterr().out


def test_the_merge_is_read_by_pycocotools(run: Callable[..., int], tmp_path: Path) -> None:
    coco_api = pytest.importorskip("pycocotools.coco", reason="needs patchcut[test]")
    write_photos(tmp_path / "in", 5)
    assert run("in", "out", "--save", "coco", "--quiet") == 0
    read = coco_api.COCO(str(tmp_path / "out/coco.json"))
    rows = list(batch.rows("out"))
    assert len(read.anns) == sum(len(row.regions) for row in rows) > 0
    for number, row in enumerate(rows, 1):
        anns = read.imgToAnns[number]
        assert [read.cats[one["category_id"]]["name"] for one in anns] == [one.label for one in row.regions]
        for ann, region in zip(anns, row.regions, strict=True):
            mask = read.annToMask(ann)
            assert mask.sum() == region.area and mask.shape == row.size_hw
            x, y, width, height = (round(side) for side in region.bbox)
            assert mask[y : y + height, x : x + width].sum() == region.area
            assert np.any(mask[y]) and np.any(mask[:, x])


def test_failures_are_one_line_and_a_file(run: Callable[..., int], tmp_path: Path, capfd: Any) -> None:
    write_photos(tmp_path / "in", 3)
    (tmp_path / "in/0001.png").write_bytes(b"no picture")
    assert run("in", "out", "--quiet") == 1
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err == "patchcut: [batch] 1 frame or file failed; out/failures.jsonl names them\n"
    (line,) = (tmp_path / "out/failures.jsonl").read_text().splitlines()
    assert json.loads(line)["name"] == "0001.png"


@pytest.mark.parametrize(
    ("args", "status", "told"),
    [
        (("in",), 2, "[dst] is missing: the last path is the folder of results; name it"),
        (("gone", "out"), 1, "gone] does not exist"),
        (("in", "out", "--save", "overlay"), 2, '[save] must be "coco", got "overlay"'),
        (("in", "in"), 2, "[dst] "),
        (("in", "out", "--engine", "spark"), 2, '[engine] must be one of "local", "ray"'),
        (("in", "in/0000.png"), 1, "0000.png is a file; choose a folder"),
        (("in", "out", "--head", "made-up"), 2, "[head] "),
    ],
)
def test_what_cannot_be_done_is_one_line(
    run: Callable[..., int], tmp_path: Path, capfd: Any, args: tuple[str, ...], status: int, told: str
) -> None:
    write_photos(tmp_path / "in", 1)
    assert run(*args) == status
    err = capfd.readouterr().err
    assert told in err and err.count("\n") == 1 and err.startswith("patchcut: [")


def test_without_ray_or_pyarrow_the_extra_is_named(
    run: Callable[..., int], tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "in", 1)
    for name in ("ray", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)
    assert run("in", "out", "--engine", "ray") == 1
    err = capfd.readouterr().err
    assert err.startswith("patchcut: [engine] Ray is not installed") and "[scale]" in err
    assert run("in", "out", "--format", "parquet") == 0, "the last --format counts"


def test_a_disk_that_is_full_stops_it(toy_bundle: Path, tmp_path: Path) -> None:
    """A limit of 4 KB a file stands for the disk."""
    write_photos(tmp_path / "in", 30)
    words = [sys.executable, "-m", "patchcut", "batch", "in", "out", "--bundle", str(toy_bundle)]
    words += ["--device", "cpu", "--workers", "1", "--format", "webdataset", "--shard-size", "25"]
    limited = ["bash", "-c", 'ulimit -f 4; exec "$@"', "bash", *words]
    done = subprocess.run(limited, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert "[output] cannot write " in line and "000000.tar: File too large; the disk or a limit" in line
    assert [path.name for path in (tmp_path / "out/shards").iterdir()] == []
    again = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "30 frames in 2 shards" in again.stdout
