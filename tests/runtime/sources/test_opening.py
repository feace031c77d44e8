from __future__ import annotations

import io
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from patchcut.errors import OptionError, SourceError
from patchcut.frames import Frame
from patchcut.pixels import PixelRule
from patchcut.sources import open_source

from tests.runtime.sources.files import encoded, names, picture, write_video


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("missing.jpg", r"\[missing.jpg\] does not exist; check the name"),
        ("", r"\[source\] is an empty text"),
        ("*.gif", r"\[\*.gif\] matches no file"),
        ("*.txt", r"\[notes.txt\] is neither an image nor a video that can be read"),
        ("notes.txt", r"\[notes.txt\] is neither an image nor a video that can be read"),
        ("text.jpg", r"\[text.jpg\] is not an image"),
        ("cut.jpg", r"\[cut.jpg\] is cut short"),
        ("cut", r"\[cut\] is cut short"),
        ("empty.mp4", r"\[empty.mp4\] is empty"),
        ("broken.mp4", r"\[broken.mp4\] cannot be opened as a video"),
        ("bare", r"\[bare\] holds no photos and no videos; photos end in .apng"),
        ("pipe", r"\[pipe\] is neither a file nor a folder, but a pipe, a socket or a device; .* - reads"),
        ("/dev/zero", r"\[/dev/zero\] is neither"),
        ("/dev/full", r"\[/dev/full\] is neither"),
        ("link.jpg", r"\[link.jpg\] is a link that leads nowhere"),
        ("loop", r"\[loop\] .*"),
        ("~nobody-of-that-name/x.jpg", r"\[~nobody-of-that-name/x.jpg\] does not exist"),
        ("~backup.jpg", r"\[~backup.jpg\] does not exist"),
        ("a\0b.jpg", r"does not exist|is no name that a file can have"),
        ("\ud800.jpg", r"does not exist|is no name that a file can have"),
        ("\udce9.jpg", r"\[%E9.jpg\] does not exist"),
        ("9" * 5000, "File name too long"),
        ("997", r"\[camera 997\] cannot be opened"),
        ("/dev/null", r"\[/dev/null\] is neither a file nor a folder"),
        ("x" * 5000, "File name too long"),
        ("rtsp://127.0.0.1:1/\udce9", r"%E9\] holds bytes that are no UTF-8"),
        ("rtsp://me:secret@127.0.0.1:1/x", r"\[rtsp://me@127.0.0.1:1/x\] cannot be opened"),
    ],
)
def test_hopeless_source_is_refused_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(folder)
    Path("bare").mkdir()
    Path("link.jpg").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    os.mkfifo("pipe")
    Path("empty.mp4").write_bytes(b"")
    Path("cut").write_bytes(encoded(".jpg")[:-200])
    Path("broken.mp4").write_bytes(os.urandom(1000))
    with pytest.raises(SourceError, match=message) as raised:
        open_source(text)
    assert str(raised.value).isprintable() and str(raised.value).encode()


@pytest.mark.parametrize(
    "name", ["~backup.jpg", "~", "-x.jpg", "a:b.jpg", "...jpg", "..jpg", "*.jpg", "0", "CON"]
)
def test_odd_names_are_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(encoded(".png"))
    assert names(open_source(name)) == [name]
    assert names(open_source([name, name])) == [name, name]


def test_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.png").write_bytes(encoded(".png"))
    assert names(open_source("~/x.png")) == names(open_source("~/*.png")) == ["x.png"]


def test_a_name_of_digits_is_a_path_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2024").mkdir()
    (tmp_path / "2024" / "x.png").write_bytes(encoded(".png"))
    assert names(open_source("2024")) == ["x.png"]
    with pytest.raises(SourceError, match=r"\[camera 2025\]"):
        open_source("2025")


@pytest.mark.parametrize(("every", "indices"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (9, [0])])
def test_every(tmp_path: Path, every: int, indices: list[int]) -> None:
    video = open_source(write_video(tmp_path / "x.avi", frames=5), every=every)
    assert [frame.index for frame in video] == indices
    assert video.total == len(indices)
    arrays = open_source([picture(seed=seed) for seed in range(5)], every=every)
    assert [frame.index for frame in arrays] == indices
    assert arrays.total == len(indices)


@pytest.mark.parametrize("every", [0, -1, True, 1.5])
def test_every_must_be_a_count(every: object) -> None:
    with pytest.raises(OptionError, match=r"\[every\] must be a whole number from 1"):
        open_source([], every=every)


@pytest.mark.parametrize(
    "source", [None, 1.5, b"photo.jpg", True, memoryview(b"x"), io.BytesIO(b"x"), io.StringIO("x")]
)
def test_what_is_no_source(source: object) -> None:
    with pytest.raises(SourceError, match="cannot read frames from"):
        open_source(source)


def test_open_source_is_handed_through(folder: Path) -> None:
    source = open_source(folder)
    assert open_source(source) is source
    with pytest.raises(OptionError, match=r"\[every\] must be given where .* is opened, got 2 afterwards"):
        open_source(source, every=2)


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    assert len(names(open_source([picture()] * 4, every=np.int64(2)))) == 2
    with pytest.raises(SourceError, match=r"\[camera 997\] cannot be opened"):
        open_source(np.int16(997))


def test_a_pipe_among_paths_of_a_program_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    source = open_source(iter([tmp_path / "pipe", Path("/dev/zero")]))
    assert names(source) == []
    assert [problem.partition("] ")[2] for problem in source.problems] == ["is no file; name a photo"] * 2


def test_one_file_is_known_by_its_stamp(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(encoded(".png"))
    video = write_video(tmp_path / "x.avi", frames=2)
    for path in (tmp_path / "x.png", video):
        with open_source(path) as source:
            assert source.stamp == f"{path.stat().st_size}-{path.stat().st_mtime_ns}"
    assert open_source([picture()]).stamp is None


def test_a_single_photo_is_read_and_checked_by_the_rule_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((4, 5, 3), np.uint8))
    rule, rules = PixelRule(max_pixels=2**30), []

    def check(frame: Frame, color: str, rule: PixelRule) -> Frame:
        rules.append(rule)
        return frame

    monkeypatch.setattr("patchcut.sources.arrays.as_frame", check)
    assert len(list(open_source(tmp_path / "x.png", rule=rule))) == 1
    assert rules == [rule]
