from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest
from patchcut.errors import OptionError, OutputError
from patchcut.frames import Frame
from patchcut.output import opencv_encoder, overlay_video, read_label_map
from patchcut.output.folder import OutputFolder
from patchcut.output.sinks import SINKS
from patchcut.output.whole_files import whole_file
from patchcut.result import Result
from patchcut.sources import Source, open_source
from patchcut.sources.arrays import FrameSource
from PIL import Image

FULL = OSError(errno.ENOSPC, "No space left on device")


def frame(name: str = "x.jpg", index: int = 0, size_hw: tuple[int, int] = (48, 64)) -> Frame:
    image = np.full((*size_hw, 3), 90, np.uint8)
    image[:, : size_hw[1] // 2] = (200, 60, 20)
    return Frame(image, "bgr", name, index)


def result(of: Frame, regions: int = 2, labels: int = 3) -> Result:
    """Regions are columns of pixels, four wide; region i has label 1 + i % (labels - 1)."""
    height, width = of.image.shape[:2]
    region_ids = np.zeros((height, width), np.int32)
    for i in range(regions):
        region_ids[:, 5 * i + 1 : 5 * i + 5] = i + 1
    region_labels = np.array([1 + i % (labels - 1) for i in range(regions)], np.int32)
    return Result(
        label_map=np.concatenate([[0], region_labels]).astype(np.int32)[region_ids],
        region_ids=region_ids,
        confidence=np.full((height, width), 0.75, np.float32),
        boxes=np.array([[5 * i + 1, 0, 5 * i + 5, height] for i in range(regions)], np.float32).reshape(
            -1, 4
        ),
        scores=np.linspace(0.9, 0.1, regions).astype(np.float32),
        areas=np.full(regions, 4 * height, np.int64),
        region_labels=region_labels,
        labels=tuple(f"label {i}" for i in range(labels)),
        assignment=np.full((4, labels), 1 / labels, np.float32),
        grid_hw=(2, 2),
        timings_ms={"backbone": 1.0},
        frame=of.image,
        color=of.color,
        name=of.name,
        index=of.index,
        time_s=of.time_s,
    )


class Video(FrameSource):
    """A source of no frames that says it is a video."""

    def __init__(self, name: str, fps: float | None = 10.0) -> None:
        super().__init__([], kind="video", name=name)
        self.fps = fps


def started(path: Path, save: Sequence[str], name: str, **options: Any) -> OutputFolder:
    """A folder to which the results of a video of that name go."""
    folder = OutputFolder(path, save, **options)
    folder.start(Video(name))
    return folder


def files(folder: Path) -> list[str]:
    """Every file below `folder`, also hidden ones, but for the record of runs that are over."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if not re.search(r"\.patchcut/run-\w+\.jsonl$", name))


def frames_in(path: Path) -> int:
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    capture.release()
    return count


def test_everything_of_a_photo(tmp_path: Path) -> None:
    photo = frame("a/ü.jpg")
    found = result(photo)
    with OutputFolder(tmp_path / "deep" / "out", ["overlay", "masks", "labels", "json"]) as folder:
        folder.write(found)
    out = tmp_path / "deep" / "out"
    assert files(out) == [
        "json/a/ü.json",
        "labels/a/ü.png",
        "masks/a/ü/01.png",
        "masks/a/ü/02.png",
        "overlay/a/ü.jpg",
    ]
    told, masks = json.loads((out / "json/a/ü.json").read_text()), ["masks/a/ü/01.png", "masks/a/ü/02.png"]
    files_told = {"overlay": ["overlay/a/ü.jpg"], "masks": masks, "labels": ["labels/a/ü.png"]}
    assert told.pop("files") == files_told
    assert [region.pop("mask_file") for region in told["regions"]] == masks
    assert told == found.to_dict()
    assert np.array_equal(read_label_map(out / "labels/a/ü.png"), found.label_map)
    for region in (1, 2):
        mask = cv2.imread(str(out / f"masks/a/ü/0{region}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(mask, np.where(found.masks[region - 1], 255, 0))
    overlay = cv2.imread(str(out / "overlay/a/ü.jpg"))
    assert np.abs(overlay.astype(int) - found.overlay(photo)).mean() < 12  # what JPEG changes
    assert np.abs(overlay.astype(int) - photo.image).mean() > 16  # OpenCV 4 draws smaller captions


def test_only_what_was_asked_for(tmp_path: Path) -> None:
    with OutputFolder(tmp_path, ["json"]) as folder:
        folder.write(result(frame()))
    assert files(tmp_path) == ["json/x.json"]


def test_rgb_frames_are_saved_in_their_colours(tmp_path: Path) -> None:
    rgb = Frame(np.ascontiguousarray(frame().image[..., ::-1]), "rgb", "x")
    with OutputFolder(tmp_path, ["overlay"]) as folder:
        folder.write(result(rgb, regions=0))
    assert np.abs(cv2.imread(str(tmp_path / "overlay/x.jpg")).astype(int) - frame().image).mean() < 5


def test_many_labels_take_16_bits(tmp_path: Path) -> None:
    found = result(frame(), regions=3, labels=400)
    found.label_map[found.label_map == 3] = 399
    with OutputFolder(tmp_path, ["labels"]) as folder:
        folder.write(found)
    read = cv2.imread(str(tmp_path / "labels/x.png"), cv2.IMREAD_UNCHANGED)
    assert read.dtype == np.uint16
    assert np.array_equal(read, found.label_map)


def test_same_names_in_one_tree_stay_apart(tmp_path: Path) -> None:
    names = [
        "a/x.jpg",
        "b/x.jpg",
        "a/x.png",
        "a/X.jpg",
        "a/x-png.jpg",
        "../../x.jpg",
        "/etc/x.jpg",
        "",
        "a.b.jpg",
    ]
    with OutputFolder(tmp_path / "out", ["json"]) as folder:
        for index, name in enumerate(names):
            folder.write(result(frame(name, index)))
    wanted = ["a/x", "b/x", "a/x-png", "a/X-jpg", "a/x-png-jpg", "x", "etc/x", "000007", "a.b"]
    assert files(tmp_path) == sorted(f"out/json/{name}.json" for name in wanted)
    for index, name in enumerate(wanted):
        assert json.loads((tmp_path / f"out/json/{name}.json").read_text())["index"] == index


def test_overlay_video_keeps_its_size_when_a_stream_changes_it(tmp_path: Path) -> None:
    with started(tmp_path, ["overlay", "labels"], "cars 1.mp4") as folder:
        for index in range(5):
            image = frame("cars 1.mp4", index, (48, 64) if index < 4 else (96, 128))
            folder.write(result(image))
        assert not (tmp_path / "overlay/cars-1.mp4").exists()
    assert files(tmp_path) == [f"labels/cars-1/00000{i}.png" for i in range(5)] + ["overlay/cars-1.mp4"]
    assert frames_in(tmp_path / "overlay/cars-1.mp4") == 5


def test_overlay_video_without_mpeg4_is_motion_jpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay_video, "load_av", lambda: None)
    monkeypatch.setattr(overlay_video, "_FORMATS", (("none", ".mp4"), ("MJPG", ".avi")))
    with started(tmp_path, ["overlay"], "x.mp4") as folder:
        folder.write(result(frame("x.mp4")))
    assert files(tmp_path) == ["overlay/x.avi"]
    assert frames_in(tmp_path / "overlay/x.avi") == 1


def test_overlay_video_without_any_encoder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay_video, "load_av", lambda: None)
    monkeypatch.setattr(overlay_video, "_FORMATS", (("none", ".mp4"),))
    with started(tmp_path, ["overlay", "json"], "x.mp4") as folder:
        for index in range(2):
            folder.write(result(frame("x.mp4", index)))
    (problem,) = folder.problems
    assert problem.startswith("[x.mp4] is not saved as overlay: there is no encoder that writes ")
    assert " at 64x48; " in problem
    assert files(tmp_path) == ["json/x/000000.json", "json/x/000001.json"]


def test_overlay_video_that_lost_frames_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay_video, "load_av", lambda: None)
    monkeypatch.setattr(
        opencv_encoder, "frame_count", lambda path: 1
    )  # as where the disk filled up unnoticed
    folder = started(tmp_path, ["overlay"], "x.mp4")
    for index in range(3):
        folder.write(result(frame("x.mp4", index)))
    folder.finish_part()
    folder.close()
    (problem,) = folder.problems
    assert "would hold 1 of 3 frames and was removed; check that the disk has space" in problem
    assert files(tmp_path) == []
    assert folder.written() == ()


def test_overlay_video_of_a_live_source_keeps_its_pace(tmp_path: Path) -> None:
    times_s = (7.0, 7.11, 7.52, 7.58, 8.0)  # frames between them were dropped
    with started(tmp_path, ["overlay"], "camera 0") as folder:
        for index, time_s in enumerate(times_s):
            live = replace(frame("camera 0", index), time_s=time_s)
            folder.write(result(live))
    shown_s = [one.time_s for one in open_source(tmp_path / "overlay/camera-0.mp4")]
    assert np.allclose(shown_s, np.array(times_s) - 7.0, atol=1e-4)


def test_overlay_video_is_finished_when_a_run_is_stopped(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        started(tmp_path, ["overlay"], "x.mp4") as folder,
    ):
        for index in range(3):
            folder.write(result(frame("x.mp4", index)))
        raise KeyboardInterrupt
    assert files(tmp_path) == ["overlay/x.mp4"]
    assert frames_in(tmp_path / "overlay/x.mp4") == 3


def test_names_of_live_sources_become_files(tmp_path: Path) -> None:
    with OutputFolder(tmp_path, ["json"]) as folder:
        for name in ("camera 0", "rtsp://me@host:554/a?b", "..."):
            folder.start(Video(name))
            folder.write(result(frame(name)))
    stems = ["camera-0", "rtsp-me-host-554-a-b", "video"]
    assert files(tmp_path) == [f"json/{stem}/000000.json" for stem in stems]


@pytest.mark.parametrize("where", ["write_bytes", "rename"])
def test_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    folder = OutputFolder(tmp_path, ["labels", "json"])
    folder.write(result(frame("good.jpg")))
    real_write = Path.write_bytes

    def fill_up(path: Path, data: object = b"", **options: Any) -> NoReturn:
        if where == "write_bytes":
            real_write(path, bytes(data)[:10])
        raise FULL

    monkeypatch.setattr(Path if where == "write_bytes" else os, where, fill_up)
    with pytest.raises(
        OutputError, match=r"cannot write .*bad.png: No space left on device; free some space"
    ):
        folder.write(result(frame("bad.jpg")))
    assert files(tmp_path) == ["json/good.json", "labels/good.png"]


def test_ctrl_c_inside_a_write_leaves_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any, **options: Any) -> NoReturn:
        raise KeyboardInterrupt

    folder = OutputFolder(tmp_path, ["json"])
    monkeypatch.setattr(os, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        folder.write(result(frame()))
    monkeypatch.undo()
    assert files(tmp_path) == []


def test_whole_file_takes_its_place_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.bin"
    with whole_file(path) as partial:
        partial.write_bytes(b"first")
        assert partial.suffix == ".bin" and not path.exists()
    assert path.read_bytes() == b"first"
    with pytest.raises(ValueError, match="stop"), whole_file(path) as partial:
        partial.write_bytes(b"sec")
        raise ValueError("stop")
    with (
        pytest.raises(OutputError, match=r"cannot write .*x.bin: No space left on device; free some space"),
        whole_file(path) as partial,
    ):
        partial.write_bytes(b"thi")
        raise FULL
    assert path.read_bytes() == b"first"
    assert files(tmp_path) == ["new/x.bin"]


def test_error_on_the_way_is_not_hidden_by_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay_video, "load_av", lambda: None)
    monkeypatch.setattr(opencv_encoder, "frame_count", lambda path: 0)
    with (
        pytest.raises(OutputError, match="first"),
        started(tmp_path, ["overlay"], "x.mp4") as folder,
    ):
        folder.write(result(frame("x.mp4")))
        raise OutputError("output", "first")


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file is a file; choose a folder"):
        OutputFolder(tmp_path / "file")
    with pytest.raises(
        OutputError, match=r"out: .*; that path leads through a file or a link: choose another folder"
    ):
        OutputFolder(tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(errno.EACCES, "choose a folder that you may write"), (errno.EROFS, "on a disk that can be written")],
)
def test_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str
) -> None:
    def refuse(*args: Any, **options: Any) -> NoReturn:
        raise OSError(code, "refused")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OutputError, match=rf"cannot write {tmp_path}/out: refused; .*{remedy}"):
        OutputFolder(tmp_path / "out")


def test_results_of_an_earlier_run_are_kept(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with OutputFolder(tmp_path, ["masks"]) as folder:
        folder.write(result(frame(), regions=3))
    with pytest.raises(
        OutputError, match=r"masks holds results already; choose another folder, or add --overwrite"
    ):
        OutputFolder(tmp_path, ["masks"])
    OutputFolder(tmp_path, ["labels"])
    with OutputFolder(tmp_path, ["masks"], overwrite=True) as folder:
        folder.write(result(frame(), regions=1))
    assert files(tmp_path) == ["masks/x/01.png", "notes.txt"]


@pytest.mark.parametrize(("save", "got"), [([], "''"), (["mask"], "'mask'"), (["json", "all"], "'all'")])
def test_save_is_checked(tmp_path: Path, save: list[str], got: str) -> None:
    with pytest.raises(OptionError, match=rf"\[save\] must be among {', '.join(SINKS)}, got {got}"):
        OutputFolder(tmp_path, save)


def photos_in(folder: Path, *names: str) -> Source:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), frame().image)
    return open_source(folder)


def run(out: OutputFolder, source: Source, regions: int = 2, stop_after: int = 10**6) -> list[str]:
    """Saves made-up results of a source's frames, as the command line does; the names of what was read."""
    read = []
    with out:
        for part in source.parts():
            if not out.start(part):
                continue
            for one in part:
                read.append(one.name)
                out.write(result(one, regions))
                if len(read) == stop_after:
                    raise KeyboardInterrupt
            out.finish_part(part.end_s)
    return read


def test_overwriting_removes_results_of_photos_that_are_gone(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    run(OutputFolder(out, ["masks", "json"]), photos_in(photos, "a.png", "b/c.png", "d.png"), regions=3)
    (out / "masks/b/c/mine.png").write_text("mine")
    (photos / "b/c.png").unlink()
    run(OutputFolder(out, ["masks"], overwrite=True), open_source(photos), regions=1)
    assert [name for name in files(out) if name.startswith("masks")] == [
        "masks/a/01.png",
        "masks/b/c/mine.png",
        "masks/d/01.png",
    ]
    assert len([name for name in files(out) if name.startswith("json")]) == 3  # not asked for again
    with pytest.raises(KeyboardInterrupt):
        run(OutputFolder(out, ["json"], overwrite=True), open_source(photos), stop_after=1)
    with OutputFolder(out, ["json"], overwrite=True) as folder:
        for part in open_source(photos).parts():
            folder.start(part)
            folder.write(result(next(iter(part))))  # and no more, as with --limit
    assert len([name for name in files(out) if name.startswith("json")]) == 3  # only a whole run removes


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_resuming_does_what_is_missing(tmp_path: Path, stop_after: int) -> None:
    photos, out, recipe = tmp_path / "photos", tmp_path / "out", {"head": "cc"}
    names = ["a.png", "b/c.png", "b.png", "d.png"]
    source = photos_in(photos, *names)
    with pytest.raises(KeyboardInterrupt):
        run(OutputFolder(out, ["masks", "json"], recipe=recipe), source, stop_after=stop_after)
    before = {name: (out / name).stat().st_mtime_ns for name in files(out)}
    folder = OutputFolder(out, ["masks", "json"], resume=True, recipe=recipe)
    assert run(folder, open_source(photos)) == names[stop_after:]
    assert folder.skipped == stop_after
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    again = OutputFolder(out, ["masks", "json"], resume=True, recipe=recipe)
    assert run(again, open_source(photos)) == []
    assert again.skipped == 4
    assert len(files(out)) == 4 * 3


def test_resuming_does_again_what_has_changed(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    names = ["a.png", "b.png", "c.png", "d.png", "e.png"]
    run(OutputFolder(out, ["masks", "json"]), photos_in(photos, *names))
    cv2.imwrite(str(photos / "a.png"), frame().image[:20])  # another photo
    (out / "json/b.json").write_text("cut sh")
    (out / "masks/c/02.png").unlink()
    folder = OutputFolder(out, ["masks", "json"], resume=True)
    assert run(folder, open_source(photos), regions=1) == names[:3]
    assert folder.skipped == 2
    masks = [name for name in files(out) if name.startswith("masks")]
    assert masks == [f"masks/{name}/01.png" for name in "abcd"][:3] + [
        f"masks/{name}/0{i}.png" for name in "de" for i in (1, 2)
    ]
    assert json.loads((out / "json/b.json").read_text())["name"] == "b.png"


def test_resuming_skips_what_is_named_twice(tmp_path: Path) -> None:
    photos_in(tmp_path / "photos", "a.png", "b.png")
    named = [str(tmp_path / "photos" / name) for name in ("a.png", "b.png", "a.png")]
    run(OutputFolder(tmp_path / "out", ["masks"]), open_source(named))
    again = OutputFolder(tmp_path / "out", ["masks"], resume=True)
    assert run(again, open_source(named)) == [] and again.skipped == 3


def test_resuming_does_not_take_anothers_results_for_those_of_a_photo(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    run(OutputFolder(out, ["masks"]), photos_in(photos, "a.png"))
    cv2.imwrite(str(photos / "a.jpg"), frame().image)
    first = run(OutputFolder(out, ["masks"], resume=True), open_source(photos))
    assert first == ["a.jpg", "a.png"]  # which are a and a-png now
    (photos / "a.jpg").unlink()
    last = OutputFolder(out, ["masks"], resume=True)
    assert run(last, open_source(photos)) == ["a.png"]  # a again, where the masks of a.jpg are


def test_resuming_with_more_words_does_everything(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    run(OutputFolder(out, ["json"]), photos_in(photos, "a.png", "b.png"))
    assert run(OutputFolder(out, ["masks"], resume=True), open_source(photos)) == ["a.png", "b.png"]
    both = OutputFolder(out, ["json", "masks"], resume=True)
    assert run(both, open_source(photos)) == [] and both.skipped == 2


def test_resuming_with_another_recipe_is_refused(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    run(OutputFolder(out, ["json"], recipe={"head": "cc", "every": 1}), photos_in(photos, "a.png"))
    with pytest.raises(
        OutputError, match=r"\[resume\] .*out was made with head cc, not ncut; repeat the options"
    ):
        OutputFolder(out, ["json"], resume=True, recipe={"head": "ncut", "every": 1})
    with pytest.raises(OutputError, match="was made with every 1, not 2"):
        OutputFolder(out, ["json"], resume=True, recipe={"head": "cc", "every": 2})
    run(OutputFolder(out, ["json"], overwrite=True, recipe={"head": "ncut"}), open_source(photos))
    assert run(OutputFolder(out, ["json"], resume=True, recipe={"head": "ncut"}), open_source(photos)) == []
    with pytest.raises(OptionError, match=r"\[resume\] keeps what is there"):
        OutputFolder(out, ["json"], resume=True, overwrite=True)


def test_overwriting_that_was_stopped_is_resumed(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    run(OutputFolder(out, ["json"], recipe={"head": "cc"}), photos_in(photos, "a.png", "b.png", "c.png"))
    with pytest.raises(KeyboardInterrupt):
        run(
            OutputFolder(out, ["json"], recipe={"head": "ncut"}, overwrite=True),
            open_source(photos),
            stop_after=1,
        )
    folder = OutputFolder(out, ["json"], recipe={"head": "ncut"}, resume=True)
    assert run(folder, open_source(photos)) == ["b.png", "c.png"]


def test_resuming_a_folder_of_which_nothing_is_on_record(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    assert run(OutputFolder(out, ["json"], resume=True), photos_in(photos, "a.png")) == ["a.png"]
    (tmp_path / "theirs" / "json").mkdir(parents=True)
    (tmp_path / "theirs" / "json" / "a.json").write_text("mine")
    folder = OutputFolder(tmp_path / "theirs", ["json"], resume=True)
    assert run(folder, open_source(photos)) == ["a.png"]
    (problem,) = folder.problems
    assert problem.startswith("[a.png] is not saved as json: ") and "is there already" in problem
    assert (tmp_path / "theirs" / "json" / "a.json").read_text() == "mine"


def video_file(path: Path, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    for _ in range(frames):
        writer.write(frame().image)
    writer.release()


def test_videos_of_one_run_have_their_own_results_and_are_resumed_whole(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos_in(photos, "x.png")
    (photos / "x").mkdir()
    video_file(photos / "x.avi", 3)
    video_file(photos / "x" / "y.avi", 2)
    save = ["overlay", "labels"]
    with pytest.raises(KeyboardInterrupt):
        run(OutputFolder(out, save), open_source(photos), stop_after=5)  # within the second video
    wanted = {
        "overlay/x.jpg",
        "overlay/x/y.mp4",
        "labels/x.png",
        "labels/x/y/000000.png",
        "labels/x/y/000001.png",
        "overlay/x-avi.mp4",
        *(f"labels/x-avi/00000{i}.png" for i in range(3)),
    }
    folder = OutputFolder(out, save, resume=True)
    read = run(folder, open_source(photos))
    assert folder.skipped == 2 and len(set(read)) == 1
    assert set(files(out)) == wanted
    assert frames_in(out / "overlay/x-avi.mp4") == 3 and frames_in(out / "overlay/x/y.mp4") == 2
    again = OutputFolder(out, save, resume=True)
    assert run(again, open_source(photos)) == [] and again.skipped == 3
    (out / "labels/x-avi/000001.png").unlink()
    again = OutputFolder(out, save, resume=True)
    assert run(again, open_source(photos)) == ["x.avi"] * 3 and again.skipped == 2
    assert set(files(out)) == wanted


def test_a_single_file_is_resumed(tmp_path: Path) -> None:
    photos_in(tmp_path, "x.png")
    video_file(tmp_path / "x.avi", 2)
    for name in ("x.png", "x.avi"):
        out = tmp_path / name.replace(".", "-")
        assert run(OutputFolder(out, ["json"]), open_source(tmp_path / name)) != []
        again = OutputFolder(out, ["json"], resume=True)
        assert run(again, open_source(tmp_path / name)) == [] and again.skipped == 1


def test_a_folder_that_was_emptied_holds_nothing(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    run(OutputFolder(out, ["json"], recipe={"head": "cc"}), photos_in(photos, "a.png"))
    shutil.rmtree(out / "json")  # and not the record, which is hidden
    again = OutputFolder(out, ["json"], resume=True, recipe={"head": "ncut"})
    assert run(again, open_source(photos)) == ["a.png"]
    shutil.rmtree(out / "json")
    assert run(OutputFolder(out, ["json"]), open_source(photos)) == ["a.png"]
    assert files(out) == ["json/a.json"]


def test_one_photo_that_cannot_be_saved_ends_nothing(tmp_path: Path) -> None:
    wide = Frame(np.zeros((2, 70_000, 3), np.uint8), "bgr", "wide.png")
    with OutputFolder(tmp_path, ["overlay", "json"]) as folder:
        for one in (frame("a.png"), wide, frame("caf\udce9.png"), frame(f"{'x' * 251}.jpg")):
            folder.write(result(one))
    (problem,) = folder.problems
    assert problem.startswith("[wide.png] is not saved as overlay: cannot encode 70000x2 pixels as ")
    assert len(files(tmp_path)) == 3 + 4
    assert "json/wide.json" in files(tmp_path) and "json/caf%E9.json" in files(tmp_path)
    for name in files(tmp_path):
        if name.startswith("json"):
            json.loads((tmp_path / name).read_bytes().decode())
    assert json.loads((tmp_path / "json/wide.json").read_text())["files"] == {}


def test_names_that_once_deleted_files_of_others(tmp_path: Path) -> None:
    (tmp_path / "07.png").write_text("mine")
    for overwrite in (False, True):
        with OutputFolder(tmp_path, ["masks"], overwrite=overwrite) as folder:
            for name in ("...jpg", "..jpg", "../../x.jpg", "....", ".jpg"):
                folder.write(result(frame(name)))
    assert (tmp_path / "07.png").read_text() == "mine"
    assert all(name.startswith("masks/") or name == "07.png" for name in files(tmp_path))


def test_an_empty_text_is_no_folder() -> None:
    with pytest.raises(OptionError, match=r"\[out\] is an empty text; name a folder, or \. for this one"):
        OutputFolder("")


def test_the_current_folder_and_a_source_in_its_own_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos_in(tmp_path, "a.png", "b.png")
    for overwrite in (False, True, True):
        with OutputFolder(".", ["overlay", "masks"], overwrite=overwrite) as folder:
            assert run(folder, open_source(".")) == ["a.png", "b.png"]
    assert len(files(tmp_path)) == 2 + 2 * 3


def test_animations_and_pages_in_a_folder(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos_in(photos, "x.png")
    pages = [Image.fromarray(np.full((48, 64, 3), value, np.uint8)) for value in (10, 90, 200)]
    pages[0].save(photos / "x.gif", save_all=True, append_images=pages[1:], duration=100)
    pages[0].save(photos / "pages.tif", save_all=True, append_images=pages[1:])
    pages[0].save(photos / "one.gif")
    read = run(OutputFolder(out, ["json"]), open_source(photos))
    assert read == ["one.gif", *(f"pages.tif#{i}" for i in (1, 2, 3)), "x.png", *["x.gif"] * 3]
    wanted = ["one", "pages#1", "pages#2", "pages#3", *(f"x-gif/00000{i}" for i in range(3)), "x"]
    assert files(out) == [f"json/{name}.json" for name in wanted]
    again = OutputFolder(out, ["json"], resume=True)
    assert run(again, open_source(photos)) == [] and again.skipped == 6


def test_a_result_that_takes_too_much_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> NoReturn:
        raise MemoryError

    monkeypatch.setattr(SINKS["labels"], "write", fail)
    with OutputFolder(tmp_path, ["labels", "json"]) as folder:
        folder.write(result(frame()))
    (problem,) = folder.problems
    assert problem == "[x.jpg] is not saved as labels: there is not enough memory; scale the frame down"
    assert files(tmp_path) == ["json/x.json"]


@pytest.mark.parametrize("name", ["json", "overlay", ".", "json/json"])
def test_an_output_folder_called_as_a_sink(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with OutputFolder(name, ["overlay", "json"]) as folder:
        folder.write(result(frame()))
        folder.start(Video("y.mp4"))
        folder.write(result(frame("y.mp4")))
    assert files(tmp_path / name) == [
        "json/x.json",
        "json/y/000000.json",
        "overlay/x.jpg",
        "overlay/y.mp4",
    ]
