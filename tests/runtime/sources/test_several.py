from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from patchcut.errors import SourceError
from patchcut.sources import open_source

from tests.runtime.sources.files import names


def test_folder_in_natural_order_with_a_line_for_each_bad_file(folder: Path) -> None:
    source = open_source(str(folder))
    assert source.total == 6
    assert names(source) == ["b/übung [1].png", "img2.JPG", "img10.jpg"]
    assert source.problems == [
        "[cut.jpg] is cut short: its end is missing; copy or download it again",
        "[empty.png] is empty (0 bytes); copy or download it again",
        "[text.jpg] is not an image that OpenCV reads; convert it to JPEG or PNG",
    ]


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


def test_globs_among_several_paths_are_opened(folder: Path) -> None:
    source = open_source([str(folder / "b" / "*.png"), str(folder / "img*"), str(folder / "*.gif")])
    assert names(source) == ["b/übung [1].png", "img2.JPG", "img10.jpg"]
    assert [problem.partition("] ")[2] for problem in source.problems] == [
        "matches no file; check the pattern; ** walks through folders"
    ]
    address = "rtsp://me:secret@host/x"
    assert open_source([str(folder / "img2.JPG"), address]).problems == [
        "[rtsp://me@host/x] is an address among photos; run it by itself"
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
