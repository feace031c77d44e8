from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest
from patchcut import OutputError, PatchcutError, Segmenter
from patchcut.output.folder import OutputFolder, check_save
from patchcut.output.overlay import color_of

from tests.runtime.output.made_folders import files, frame, result, started


def rows_of(path: Path, entity: str) -> list[dict[str, Any]]:
    """What a recording tells of one entity in the order of its frames, by Rerun's own reader."""
    chunk = pytest.importorskip("rerun.chunk", reason="needs a Rerun that reads recordings: patchcut[rerun]")
    rows = []
    for one in chunk.RrdReader(str(path)).stream().to_chunks():
        if one.entity_path == entity:
            batch = one.to_record_batch()
            rows += batch.select([name for name in batch.schema.names if name != "log_time"]).to_pylist()
    by_frame: dict[int, dict[str, Any]] = {}
    for row in rows:
        there = {name.rpartition(":")[2]: value for name, value in row.items() if value is not None}
        by_frame.setdefault(row["frame"], {}).update(there)
    return [by_frame[index] for index in sorted(by_frame)]


@pytest.fixture
def installed() -> None:
    pytest.importorskip("rerun", reason="needs patchcut[rerun]")


@pytest.mark.usefixtures("installed")
def test_a_video_is_a_recording_on_its_own_timeline(tmp_path: Path) -> None:
    frames = []
    for i, ids in enumerate(([4, 9], [], [9, 4, 12])):
        one = result(frame("cars.mp4", 3 * i), regions=len(ids))
        frames.append(dataclasses.replace(one, time_s=5 + 0.12 * i, track_ids=np.array(ids, np.int32)))
    with started(tmp_path, ["rerun"], "cars.mp4") as folder:
        for one in frames:
            folder.write(one)
        folder.finish_part(6.0)
    assert folder.problems == [] and files(tmp_path) == ["rerun/cars.rrd"]
    path = tmp_path / "rerun/cars.rrd"

    pictures = rows_of(path, "/frame")
    assert [row["frame"] for row in pictures] == [0, 3, 6]
    seconds = [row["time"].total_seconds() for row in pictures]
    assert seconds == pytest.approx([5.0, 5.12, 5.24], abs=1e-6)
    (jpeg,) = pictures[1]["blob"]
    image = cv2.imdecode(np.frombuffer(bytes(jpeg), np.uint8), cv2.IMREAD_COLOR)
    assert frames[1].frame is not None
    assert np.abs(image.astype(int) - frames[1].frame).mean() < 4

    for row, one in zip(rows_of(path, "/frame/labels"), frames, strict=True):
        (data,) = row["buffer"]
        labels = np.frombuffer(bytes(data), np.uint8).reshape(one.label_map.shape)
        np.testing.assert_array_equal(labels, one.label_map)
    for row, one in zip(rows_of(path, "/frame/objects"), frames, strict=True):
        middles, halves = (np.array(row[name]).reshape(-1, 2) for name in ("centers", "half_sizes"))
        np.testing.assert_allclose(np.concatenate([middles - halves, middles + halves], axis=1), one.boxes)
        assert row["class_ids"] == one.region_labels.tolist()
        assert one.track_ids is not None
        called = [text.split()[0] for text in row["labels"]]
        assert called == [str(track_id) for track_id in one.track_ids]
        red = [color_of(int(track_id))[0] for track_id in one.track_ids]
        assert [color >> 24 for color in row["colors"]] == red
    scores = rows_of(path, "/scores/4")
    assert [row["frame"] for row in scores] == [0, 6]
    assert [row["scalars"][0] for row in scores] == pytest.approx([frames[0].scores[0], frames[2].scores[1]])


@pytest.mark.usefixtures("installed")
def test_each_photo_is_a_recording(tmp_path: Path, toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    one = toy_segmenter(patchcut.Frame(photo, name="a/x.jpg"))
    with OutputFolder(tmp_path, ["rerun"]) as folder:
        folder.write(one)
        folder.write(result(frame("nothing.png"), regions=0))
    assert files(tmp_path) == ["rerun/a/x.rrd", "rerun/nothing.rrd"]
    (scores,) = rows_of(tmp_path / "rerun/a/x.rrd", "/scores/best")
    assert scores["scalars"] == pytest.approx([one.scores[0]])
    (context,) = rows_of(tmp_path / "rerun/a/x.rrd", "/frame")[0]["context"]
    assert all(label in str(context) for label in one.labels)


@pytest.mark.usefixtures("installed")
def test_a_full_disk_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from patchcut.output.rerun_recording import RerunRecording

    said = "Failed to write: No space left on device (os error 28)"
    with pytest.raises(OutputError, match=r"cannot write .*x.rrd: No space left on device; free some space"):
        recording = RerunRecording(tmp_path / "x.rrd")
        recording.write(result(frame("x.jpg")))

        def fill_up() -> None:
            raise RuntimeError(said)

        monkeypatch.setattr(recording._stream, "flush", fill_up)
        recording.close()
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_nothing_begins(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_cli: Callable[..., int],
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(PatchcutError, match=r"^\[rerun\] cannot be imported .*; pip install .*\[rerun\]"):
        check_save(["masks", "rerun"])
    assert run_cli("run", "missing.jpg", "--out", tmp_path / "out", "--save", "rerun") in (1, 2)
    assert "[rerun] cannot be imported" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
