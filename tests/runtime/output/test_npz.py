from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from patchcut import Result, Segmenter
from patchcut.output.folder import OutputFolder

from tests.runtime.output.test_folder import files, frame, result, started

ARRAYS = ("label_map", "region_ids", "boxes", "scores", "areas", "region_labels")


def check(path: Path, one: Result) -> None:
    with np.load(path, allow_pickle=False) as arrays:
        tracked = {"track_ids"} if one.track_ids is not None else set()
        assert set(arrays) == {*ARRAYS, "labels", *tracked}
        for name in (*ARRAYS, *tracked):
            np.testing.assert_array_equal(arrays[name], getattr(one, name))
            assert arrays[name].dtype == getattr(one, name).dtype
        assert tuple(arrays["labels"].tolist()) == one.labels


@pytest.mark.parametrize("regions", [0, 1, 3])
def test_arrays_come_back_as_they_were(tmp_path: Path, regions: int) -> None:
    one = result(frame("a/x.jpg"), regions=regions)
    with OutputFolder(tmp_path, ["npz"]) as folder:
        folder.write(one)
    assert files(tmp_path) == ["npz/a/x.npz"]
    check(tmp_path / "npz/a/x.npz", one)


def test_a_video_has_a_file_for_each_frame(tmp_path: Path) -> None:
    frames = [
        dataclasses.replace(result(frame("x.mp4", i)), track_ids=np.array([i + 1, 9], np.int32))
        for i in range(3)
    ]
    with started(tmp_path, ["npz"], "x.mp4") as folder:
        for one in frames:
            folder.write(one)
    assert files(tmp_path) == [f"npz/x/{i:06d}.npz" for i in range(3)]
    for i, one in enumerate(frames):
        check(tmp_path / f"npz/x/{i:06d}.npz", one)


def test_a_real_result_is_small(tmp_path: Path, toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    one = toy_segmenter(photo)
    with OutputFolder(tmp_path, ["npz"]) as folder:
        folder.write(one)
    check(tmp_path / "npz/000000.npz", one)
    assert (tmp_path / "npz/000000.npz").stat().st_size < one.label_map.nbytes / 20
