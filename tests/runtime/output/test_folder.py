from __future__ import annotations

import errno
import json
import os
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
from patchcut.sources import open_source
from PIL import Image

from tests.runtime.output.made_folders import Video, files, frame, frames_in, photos_in, result, run, started

FULL = OSError(errno.ENOSPC, "No space left on device")


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
