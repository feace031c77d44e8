from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import patchcut
import pytest
from patchcut import OutputError, Segmenter
from patchcut.output.coco import CocoFile, found_in
from patchcut.output.files import OutputFiles
from patchcut.output.folder import OutputFolder
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from tests.runtime.output.test_folder import Video, files, frame, result, started
from tests.runtime.results import made_result

FULL = OSError(errno.ENOSPC, "No space left on device")


def read(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(path)


def check(path: Path, results: list[patchcut.Result]) -> COCO:
    """Checks that pycocotools reads the same masks, boxes, areas, scores and labels as results have."""
    told = read(path)
    assert sorted(told.imgs) == list(range(1, len(results) + 1))
    assert sorted(told.anns) == list(range(1, sum(map(len, results)) + 1))
    for image_id, one in enumerate(results, start=1):
        image = told.imgs[image_id]
        assert (image["height"], image["width"]) == one.label_map.shape
        annotations = told.loadAnns(told.getAnnIds(imgIds=[image_id]))
        assert len(annotations) == len(one)
        for i, annotation in enumerate(annotations):
            mask = told.annToMask(annotation)
            np.testing.assert_array_equal(mask.astype(bool), one.masks[i])
            assert coco_masks.toBbox(annotation["segmentation"]).tolist() == annotation["bbox"]
            assert annotation["area"] == one.areas[i]
            assert annotation["score"] == pytest.approx(one.scores[i], abs=1e-4)
            assert told.cats[annotation["category_id"]]["name"] == one.labels[one.region_labels[i]]
    return told


def test_a_folder_of_photos_is_one_file_that_pycocotools_reads(
    tmp_path: Path, toy_segmenter: Segmenter, photo: np.ndarray, second_photo: np.ndarray
) -> None:
    images = {"a/flower.jpg": photo, "temple.jpg": second_photo, "small.png": photo[::3, ::3]}
    results = [toy_segmenter(patchcut.Frame(image, name=name)) for name, image in images.items()]
    with OutputFolder(tmp_path, ["coco"]) as folder:
        for one in results:
            folder.write(one)
    assert files(tmp_path) == ["coco.json"]
    told = check(tmp_path / "coco.json", results)
    assert sum(map(len, results)) > 4
    assert [told.imgs[i]["file_name"] for i in (1, 2, 3)] == list(images)
    assert {one["supercategory"] for one in told.cats.values()} == {"foreground"}


def test_holes_and_several_pieces_are_kept(tmp_path: Path) -> None:
    ids = np.zeros((60, 80), np.int32)
    ids[5:30, 5:50], ids[10:20, 10:30], ids[50:55, 60:70] = 1, 0, 1
    boxes, areas = np.array([[5, 5, 70, 55]], np.float32), np.array([(ids == 1).sum()])
    one = made_result(1)
    one = patchcut.Result(
        **{**vars(one), "label_map": 2 * ids, "region_ids": ids, "boxes": boxes, "areas": areas}
    )
    with OutputFolder(tmp_path, ["coco"]) as folder:
        folder.write(one)
    check(tmp_path / "coco.json", [one])


def test_a_video_is_a_file_of_its_own(tmp_path: Path) -> None:
    frames = [result(frame("cars 1.mp4", index), regions=index % 3) for index in range(5)]
    with OutputFolder(tmp_path, ["coco"]) as folder:
        folder.write(result(frame("photo.jpg")))
        folder.start(Video("cars 1.mp4"))
        for one in frames:
            folder.write(one)
        folder.finish_part(0.5)
        folder.start(Video("empty.mp4"))
    assert files(tmp_path) == ["coco.json", "coco/cars-1.json"]
    told = check(tmp_path / "coco/cars-1.json", frames)
    image = told.imgs[3]
    assert (image["file_name"], image["video"], image["frame_index"]) == ("cars-1/000002", "cars 1.mp4", 2)


def test_a_video_tells_which_annotations_are_one_object(tmp_path: Path) -> None:
    ids = [[4, 9], [9, 4], [], [9, 12, 0]]
    frames = [
        dataclasses.replace(
            result(frame("cars.mp4", 3 * i), regions=len(one), labels=2), track_ids=np.array(one, np.int32)
        )
        for i, one in enumerate(ids)
    ]
    with started(tmp_path, ["coco"], "cars.mp4") as folder:
        for one in frames:
            folder.write(one)
        folder.finish_part(0.5)
    told = check(tmp_path / "coco/cars.json", frames)
    (video,) = told.dataset["videos"]
    height, width = frames[0].label_map.shape
    assert video == {"id": 1, "name": "cars.mp4", "width": width, "height": height}
    assert [told.imgs[i]["video_id"] for i in (1, 2, 3, 4)] == [1] * 4
    assert [(told.imgs[i]["frame_id"], told.imgs[i]["frame_index"]) for i in (1, 2, 4)] == [
        (0, 0),
        (1, 3),
        (3, 9),
    ]
    annotations = [told.anns[i] for i in sorted(told.anns)]
    flat = [track_id or None for one in ids for track_id in one]
    assert [one.get("track_id") for one in annotations] == flat
    assert [one.get("instance_id") for one in annotations] == flat
    assert [one.get("attributes", {}).get("track_id") for one in annotations] == flat
    assert {one["video_id"] for one in annotations} == {1}
    tracks = {track["id"]: track for track in told.dataset["tracks"]}
    assert sorted(tracks) == [4, 9, 12]
    for one in annotations:
        if (track_id := one.get("track_id")) is not None:
            assert tracks[track_id] == {"id": track_id, "category_id": one["category_id"], "video_id": 1}


def test_annotations_are_results_as_well(tmp_path: Path) -> None:
    """As where one's truth is in one file and what patchcut found in another."""
    results = [result(frame(f"{i}.jpg", i), regions=2) for i in range(3)]
    with OutputFolder(tmp_path, ["coco"]) as folder:
        for one in results:
            folder.write(one)
    path = tmp_path / "coco.json"
    with contextlib.redirect_stdout(io.StringIO()):
        found = read(path).loadRes(json.loads(path.read_text())["annotations"])
    assert len(found.anns) == 6
    for i, annotation in enumerate(found.loadAnns(sorted(found.anns))):
        np.testing.assert_array_equal(found.annToMask(annotation).astype(bool), results[i // 2].masks[i % 2])


def test_categories_are_labels_whatever_their_columns(tmp_path: Path) -> None:
    """The columns of a scene's background move with the number of parts."""
    of_two = result(frame("a.jpg"), regions=2, labels=3)
    of_two = patchcut.Result(
        **{**vars(of_two), "labels": ("background", "part 1", "background 1"), "background_columns": (0, 2)}
    )
    of_three = result(frame("b.jpg"), regions=3, labels=4)
    labels = ("background", "part 1", "part 2", "background 1")
    of_three = patchcut.Result(**{**vars(of_three), "labels": labels, "background_columns": (0, 3)})
    with OutputFolder(tmp_path, ["coco"]) as folder:
        folder.write(of_two)
        folder.write(of_three)
    told = check(tmp_path / "coco.json", [of_two, of_three])
    assert {one["name"]: (one["id"], one["supercategory"]) for one in told.cats.values()} == {
        "part 1": (1, "foreground"),
        "background 1": (2, "background"),
        "part 2": (3, "foreground"),
    }


def test_nothing_found_is_an_image_without_annotations(tmp_path: Path) -> None:
    with OutputFolder(tmp_path, ["coco"]) as folder:
        folder.write(result(frame("a.jpg"), regions=0))
        folder.write(result(frame("b.jpg"), regions=1))
        folder.write(result(frame("c.jpg"), regions=0))
    told = read(tmp_path / "coco.json")
    assert [len(told.getAnnIds(imgIds=[image])) for image in (1, 2, 3)] == [0, 1, 0]


def test_no_photo_is_no_file(tmp_path: Path) -> None:
    with OutputFolder(tmp_path, ["coco"]):
        pass
    assert files(tmp_path) == []


@pytest.mark.parametrize("of_video", [False, True])
def test_ctrl_c_leaves_a_whole_file(tmp_path: Path, of_video: bool) -> None:
    results = [result(frame("x.mp4" if of_video else f"{i}.jpg", i)) for i in range(4)]
    with pytest.raises(KeyboardInterrupt), OutputFolder(tmp_path, ["coco"]) as folder:
        if of_video:
            folder.start(Video("x.mp4"))
        for one in results:
            folder.write(one)
        raise KeyboardInterrupt
    check(tmp_path / ("coco/x.json" if of_video else "coco.json"), results)


def resume(
    segmenter: Segmenter, photos: Path, out: Path, *, limit: int = 10, word: str = "coco"
) -> list[patchcut.Result]:
    """What a resumed run makes before it is stopped."""
    made = []
    with (
        contextlib.suppress(KeyboardInterrupt),
        patchcut.open_source(photos) as source,
        OutputFolder(out, [word], resume=True) as folder,
    ):
        for part in source.parts():
            folder.start(part)
            for one in segmenter.results(part):
                folder.write(one)
                made.append(one)
                if len(made) == limit:
                    raise KeyboardInterrupt
            folder.finish_part()
    return made


def names_in(path: Path) -> list[str]:
    return sorted(image["file_name"] for image in read(path).imgs.values())


def add_photos(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    sample = Path(patchcut.__file__).parent / "samples/coffee.jpg"
    for name in names:
        (folder / name).write_bytes(sample.read_bytes())


def test_a_resumed_run_tells_of_all_photos(tmp_path: Path, toy_segmenter: Segmenter) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    add_photos(photos, "m.jpg")
    results = resume(toy_segmenter, photos, out)
    add_photos(photos, "b.jpg", "c.jpg")
    results = [*resume(toy_segmenter, photos, out), *results]
    assert [one.name for one in results] == ["b.jpg", "c.jpg", "m.jpg"]
    check(out / "coco.json", results)
    add_photos(photos, "a.jpg", "d.jpg")
    assert len(resume(toy_segmenter, photos, out, limit=1)) == 1, "stopped before it came to the others"
    assert names_in(out / "coco.json") == ["a.jpg", "b.jpg", "c.jpg", "m.jpg"]
    add_photos(tmp_path / "others", "z.jpg")
    resume(toy_segmenter, tmp_path / "others", out)
    assert names_in(out / "coco.json") == ["a.jpg", "b.jpg", "c.jpg", "m.jpg", "z.jpg"]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with OutputFolder(tmp_path, ["coco"]) as folder:
        folder.write(result(frame("good.jpg")))
    before = (tmp_path / "coco.json").read_bytes()

    def fill_up(*args: object, **kwargs: object) -> Any:
        raise FULL

    monkeypatch.setattr("tempfile.TemporaryFile", fill_up)
    with (
        pytest.raises(OutputError, match="No space left on device; free some space"),
        OutputFolder(tmp_path, ["coco"], overwrite=True) as folder,
    ):
        folder.write(result(frame("good.jpg")))
    assert (tmp_path / "coco.json").read_bytes() == before


def test_a_long_run_takes_no_memory(tmp_path: Path) -> None:
    output, one = OutputFiles(tmp_path), result(frame("x.mp4"))
    told = CocoFile(output, "coco.json")
    found = found_in(one, "x", of_video=True)
    told.add(found)
    tracemalloc.start()
    for _ in range(2000):
        told.add(found)
    told.close()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    output.close()
    size = (tmp_path / "coco.json").stat().st_size
    assert peak < 3_000_000 and size > 500_000, (peak, size)
    assert len(read(tmp_path / "coco.json").imgs) == 2001


def test_names_of_any_letters(tmp_path: Path) -> None:
    names = ['quo"te.jpg', "ü\n日本.jpg", "back\\slash.jpg"]
    with OutputFolder(tmp_path, ["coco"]) as folder:
        for name in names:
            folder.write(result(frame(name)))
    told = read(tmp_path / "coco.json")
    assert [told.imgs[i]["file_name"] for i in (1, 2, 3)] == names


def test_a_video_is_not_mixed_with_the_next(tmp_path: Path) -> None:
    folder = started(tmp_path, ["coco"], "a.mp4")
    folder.write(result(frame("a.mp4")))
    folder.start(Video("b.mp4"))
    folder.write(result(frame("b.mp4")))
    folder.close()
    for name in ("a", "b"):
        (image,) = read(tmp_path / f"coco/{name}.json").imgs.values()
        assert image["video"] == f"{name}.mp4"
