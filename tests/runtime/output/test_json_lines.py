from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import patchcut
import pytest
from patchcut import OutputError, Result, Segmenter
from patchcut.output.folder import OutputFolder
from pycocotools import mask as coco_masks

from tests.runtime.output.test_coco import add_photos, resume
from tests.runtime.output.test_folder import Video, files, frame, result, started


def check(path: Path, results: list[Result]) -> list[dict[str, Any]]:
    """Checks that there is a line for each result, whose masks pycocotools reads."""
    text = path.read_text("ascii")
    assert text.endswith("\n")
    told = [json.loads(line) for line in text.splitlines()]
    assert len(told) == len(results)
    for line, one in zip(told, results, strict=True):
        assert line == json.loads(json.dumps(one.to_dict(masks="rle")))
        for region, mask in zip(line["regions"], one.masks, strict=True):
            np.testing.assert_array_equal(coco_masks.decode(region["mask"]).astype(bool), mask)
    return told


def test_photos_are_one_file_and_each_video_is_one(tmp_path: Path) -> None:
    photos = [result(frame(name), regions=count) for name, count in (("a/x.jpg", 2), ("new\nline.png", 0))]
    frames = [result(frame("cars 1.mp4", 3 * i), regions=i) for i in range(3)]
    with OutputFolder(tmp_path, ["jsonl"]) as folder:
        for one in photos:
            folder.write(one)
        folder.start(Video("cars 1.mp4"))
        for one in frames:
            folder.write(one)
        folder.finish_part(0.5)
        folder.start(Video("empty.mp4"))
    assert files(tmp_path) == ["jsonl/cars-1.jsonl", "results.jsonl"]
    check(tmp_path / "results.jsonl", photos)
    told = check(tmp_path / "jsonl/cars-1.jsonl", frames)
    assert [(line["name"], line["index"]) for line in told] == [("cars 1.mp4", i) for i in (0, 3, 6)]
    assert folder.written() == ("jsonl",)


@pytest.mark.parametrize("of_video", [False, True])
def test_ctrl_c_leaves_a_whole_file(tmp_path: Path, of_video: bool) -> None:
    results = [result(frame("x.mp4" if of_video else f"{i}.jpg", i)) for i in range(3)]
    with pytest.raises(KeyboardInterrupt), OutputFolder(tmp_path, ["jsonl"]) as folder:
        if of_video:
            folder.start(Video("x.mp4"))
        for one in results:
            folder.write(one)
        raise KeyboardInterrupt
    check(tmp_path / ("jsonl/x.jsonl" if of_video else "results.jsonl"), results)


def test_a_resumed_run_has_the_lines_of_all_photos(tmp_path: Path, toy_segmenter: Segmenter) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    add_photos(photos, "m.jpg")
    results = resume(toy_segmenter, photos, out, word="jsonl")
    add_photos(photos, "b.jpg")
    results = [*resume(toy_segmenter, photos, out, word="jsonl"), *results]
    assert [one.name for one in results] == ["b.jpg", "m.jpg"]
    check(out / "results.jsonl", results)


def test_another_run_does_not_write_over_it_unasked(tmp_path: Path) -> None:
    for how in ({}, {"overwrite": True}):
        with OutputFolder(tmp_path, ["jsonl"], **how) as folder:
            folder.write(result(frame("x.jpg")))
        with pytest.raises(OutputError, match="holds results already"):
            OutputFolder(tmp_path, ["jsonl"])
    with OutputFolder(tmp_path, ["labels"]) as folder:
        folder.write(result(frame("y.jpg")))
    assert "results.jsonl" in files(tmp_path)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with OutputFolder(tmp_path, ["jsonl"]) as folder:
        folder.write(result(frame("good.jpg")))
    before = (tmp_path / "results.jsonl").read_bytes()

    def fill_up(*args: object, **kwargs: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", fill_up)
    with (
        pytest.raises(OutputError, match="No space left on device; free some space"),
        OutputFolder(tmp_path, ["jsonl"], overwrite=True) as folder,
    ):
        folder.write(result(frame("good.jpg")))
    assert (tmp_path / "results.jsonl").read_bytes() == before


def test_tracks_are_in_the_lines(tmp_path: Path) -> None:
    one = result(frame("x.mp4"))
    tracked = patchcut.Result(**{**vars(one), "track_ids": np.array([5, 2], np.int32)})
    with started(tmp_path, ["jsonl"], "x.mp4") as folder:
        folder.write(tracked)
    (told,) = check(tmp_path / "jsonl/x.jsonl", [tracked])
    assert [region["track_id"] for region in told["regions"]] == [5, 2]
