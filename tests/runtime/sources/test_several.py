from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from patchcut.errors import SourceError
from patchcut.output.files import OutputFiles
from patchcut.sources import open_source

from tests.runtime.sources.files import encoded, names, write_video


def test_folder_in_natural_order_with_a_line_for_each_bad_file(folder: Path) -> None:
    source = open_source(str(folder))
    assert source.total == 6
    assert names(source) == ["b/übung [1].png", "img2.JPG", "img10.jpg"]
    assert source.problems == [
        "[cut.jpg] is cut short: its end is missing; copy or download it again",
        "[empty.png] is empty (0 bytes); copy or download it again",
        source.problems[2],
    ]
    assert source.problems[2].startswith("[text.jpg] is not an image that OpenCV reads; convert it")


def test_glob(folder: Path) -> None:
    assert names(open_source(str(folder / "img*"))) == ["img2.JPG", "img10.jpg"]
    assert names(open_source(str(folder / "**" / "*.png"))) == ["b/übung [1].png"]
    assert names(open_source(str(folder / "b" / "übung [1].png"))) == [
        "übung [1].png"
    ]  # a name, not a pattern


def test_list_of_photos_and_folders(folder: Path) -> None:
    source = open_source([folder / "img2.JPG", str(folder / "missing.jpg"), folder / "b"])
    assert names(source) == ["img2.JPG", "b/übung [1].png"]
    assert len(source.problems) == 1
    assert "missing.jpg] does not exist" in source.problems[0]
    with pytest.raises(SourceError, match="does not exist"):
        open_source(["one.jpg", "two.jpg"])


def test_relative_and_absolute_paths_mix(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert names(open_source(["img2.JPG", str(folder / "img10.jpg")])) == ["img2.JPG", "img10.jpg"]
    assert names(open_source(["img2.JPG", "b"])) == ["img2.JPG", "b/übung [1].png"]
    monkeypatch.chdir(folder / "b")
    assert names(open_source("../img*")) == ["img2.JPG", "img10.jpg"]


def test_an_empty_text_among_several_is_not_the_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    source = open_source(["img2.JPG", ""])
    assert names(source) == ["img2.JPG"]
    assert source.problems == ["[source] is an empty text; name a photo, video or folder"]
    with pytest.raises(SourceError, match="is an empty text"):
        open_source(["", ""])


def test_globs_among_several_paths_are_opened(folder: Path) -> None:
    source = open_source([str(folder / "b" / "*.png"), str(folder / "img*"), str(folder / "*.gif")])
    assert names(source) == ["b/übung [1].png", "img2.JPG", "img10.jpg"]
    assert [problem.partition("] ")[2] for problem in source.problems] == [
        "matches no file; check the pattern; ** walks through folders"
    ]
    address = "rtsp://me:secret@host/x"
    assert open_source([str(folder / "img2.JPG"), address]).problems == [
        "[rtsp://me@host/x] is an address among files; run it by itself"
    ]


def test_folders_that_cannot_be_listed_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_scandir = os.scandir

    def scandir(path: str) -> Any:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    said = f"[{folder / 'b'}] cannot be listed: Permission denied; check the folder's rights"
    for source in (open_source(folder), open_source([folder, folder / "img2.JPG"])):
        assert said in source.problems and "img2.JPG" in names(source)
    with pytest.raises(SourceError, match="cannot be listed: Permission denied"):
        open_source(folder / "b")


def test_videos_are_parts_after_the_photos(folder: Path) -> None:
    (folder / "films").mkdir()
    write_video(folder / "films" / "2.avi", frames=2)
    write_video(folder / "10.avi", frames=3)
    (folder / "broken.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(100))
    source = open_source(folder)
    assert (source.kind, source.total) == ("images", None)
    parts = [(part.kind, part.name, names(part)) for part in source.parts()]
    assert [(kind, name) for kind, name, _ in parts[1:]] == [("video", "10.avi"), ("video", "films/2.avi")]
    assert parts[0][2] == ["b/übung [1].png", "img2.JPG", "img10.jpg"]
    assert [frames for _, _, frames in parts[1:]] == [["10.avi"] * 3, ["films/2.avi"] * 2]
    assert [problem.partition("]")[0] for problem in source.problems] == [
        "[cut.jpg",
        "[empty.png",
        "[text.jpg",
        "[broken.mp4",
    ]


def test_a_folder_of_videos_and_a_list_of_them(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    one = write_video(tmp_path / "a" / "x.avi", frames=2)
    two = write_video(tmp_path / "x.avi", frames=3)
    for source in (
        open_source(tmp_path),
        open_source([one, two]),
        open_source(str(tmp_path / "**" / "*.avi")),
    ):
        assert source.kind == "video" and source.is_video
        assert sorted(names(source)) == ["a/x.avi"] * 2 + ["x.avi"] * 3
        assert source.problems == []
    stamps = [part.stamp for part in open_source(tmp_path).parts()]
    assert None not in stamps and len(set(stamps)) == 2


@pytest.mark.parametrize(("every", "photos", "frames"), [(1, 5, 4), (2, 3, 2), (9, 1, 1)])
def test_every_is_of_the_photos_and_of_each_video(
    tmp_path: Path, every: int, photos: int, frames: int
) -> None:
    for index in range(5):
        (tmp_path / f"{index}.png").write_bytes(encoded(".png"))
    write_video(tmp_path / "x.avi", frames=4)
    counts = [len(names(part)) for part in open_source(tmp_path, every=every).parts()]
    assert counts == [photos, frames]


def test_linked_folders_are_walked_once(folder: Path) -> None:
    (folder / "z").mkdir()
    (folder / "z" / "z.png").write_bytes(encoded(".png"))
    (folder / "a-link").symlink_to(folder / "z")
    (folder / "b" / "up").symlink_to("..")
    (folder / "z" / "self").symlink_to(".")
    outside = folder.parent / f"{folder.name}-outside"
    outside.mkdir()
    (outside / "o.jpg").write_bytes(encoded(".jpg"))
    (outside / "back").symlink_to(folder)
    (folder / "out").symlink_to(outside)
    wanted = ["b/übung [1].png", "img2.JPG", "img10.jpg", "out/o.jpg", "z/z.png"]
    assert names(open_source(folder)) == wanted
    assert sorted(names(open_source(str(folder / "**" / "*.[jp]*g")))) == sorted(wanted[:1] + wanted[2:])
    assert len(names(open_source(str(folder / "**")))) == len(wanted)


def test_globs_with_stars_for_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "b" / "c").mkdir()
    for name in ("b/c/1.jpg", "b/2.jpg"):
        (folder / name).write_bytes(encoded(".jpg"))
    monkeypatch.chdir(folder)
    assert names(open_source("**/c/*.jpg")) == ["1.jpg"]
    assert names(open_source("b/**/*.jpg")) == ["2.jpg", "c/1.jpg"]
    assert names(open_source("b/**/**/?.jpg")) == ["2.jpg", "c/1.jpg"]
    assert names(open_source("*/**/*.jpg")) == ["2.jpg", "c/1.jpg"]
    assert names(open_source("**/c/**")) == ["1.jpg"]
    with pytest.raises(SourceError, match="matches no file"):
        open_source("**/nothing/*.jpg")


def test_what_is_left_out_of_a_folder_is_told_or_meant_so(tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(encoded(".jpg"))
    (tmp_path / "picture.dat").write_bytes(encoded(".png"))
    (tmp_path / "film").write_bytes(write_video(tmp_path / ".x.avi", frames=2).read_bytes())
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "app.ts").write_text("export const x = 1\n")
    (tmp_path / "song.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(99))
    (tmp_path / "x.nef").write_bytes(b"II*\0" + bytes(99))
    (tmp_path / "notes").write_text("hello")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x.jpg").write_bytes(encoded(".jpg"))
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "s.jpg"))
        source = open_source(tmp_path)
        assert names(source) == ["photo", "picture.dat", "film", "film"]
    assert [problem.partition("] ")[2] for problem in source.problems] == [
        "is a link that leads nowhere; remove it, or mend what it leads to",
        "is a camera's raw file, which is left out; develop it to JPEG or PNG",
    ]


def test_results_of_earlier_runs_are_no_photos(folder: Path) -> None:
    out = folder / "results"
    for root in (folder, out):
        files = OutputFiles(root)
        files.write("overlay/img2.jpg", encoded(".jpg"))
        files.close()
    (out / "overlay" / "mine.jpg").write_bytes(encoded(".jpg"))
    wanted = ["b/übung [1].png", "img2.JPG", "img10.jpg", "results/overlay/mine.jpg"]
    source = open_source(folder)
    assert names(source) == wanted
    assert source.notes == [f"[{folder}] 2 results of earlier runs left out; name their folder to take them"]
    found = names(open_source(str(folder / "**" / "*.jpg")))
    assert found == ["img10.jpg", "results/overlay/mine.jpg"]
    assert names(open_source(out / "overlay")) == ["img2.jpg", "mine.jpg"]


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"\xff\xfe/\xe9.jpg", "ü\n\x1b[31m.jpg".encode()])
def test_names_of_any_bytes(tmp_path: Path, name: bytes) -> None:
    path = os.fsencode(tmp_path) + b"/" + name
    Path(os.fsdecode(path)).parent.mkdir(exist_ok=True)
    Path(os.fsdecode(path)).write_bytes(encoded(".jpg"))
    for source in (
        open_source(tmp_path),
        open_source(os.fsdecode(path)),
        open_source([os.fsdecode(path)] * 2),
    ):
        for called in names(source):
            called.encode()
        assert source.problems == []
        source.name.encode()
    Path(os.fsdecode(path)).write_bytes(b"broken")
    source = open_source(tmp_path)
    assert names(source) == []
    assert source.problems[0].isprintable() and source.problems[0].encode()


def test_a_list_with_what_cannot_be_among_files(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    source = open_source([folder / "img2.JPG", "-", folder / "pipe", "/dev/zero", folder / "text.jpg"])
    assert names(source) == ["img2.JPG"]
    assert [problem.partition("] ")[2].partition(";")[0] for problem in source.problems] == [
        "is standard input among files",
        "is neither a file nor a folder, but a pipe, a socket or a device",
        "is neither a file nor a folder, but a pipe, a socket or a device",
        "is not an image that OpenCV reads",
    ]


def test_a_list_with_names_that_the_system_refuses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "secret").write_bytes(encoded(".jpg"))
    real_open = Path.open

    def deny(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == "secret":
            raise PermissionError(13, "Permission denied")
        return real_open(path, *args, **options)

    monkeypatch.setattr(Path, "open", deny)
    odd = ["x" * 5000, "a\0b", "\ud800", folder / "secret"]
    source = open_source([folder / "img2.JPG", *odd])
    assert names(source) == ["img2.JPG"]
    assert len(source.problems) == 4
    assert "cannot be opened: File name too long" in source.problems[0]
    assert "cannot be opened: Permission denied" in source.problems[3]
    with pytest.raises(SourceError):
        open_source(odd)
    source = open_source(folder)
    assert [problem for problem in source.problems if "secret" in problem] == [
        f"[{folder}/secret] cannot be read: Permission denied; check its rights"
    ]
