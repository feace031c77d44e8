from __future__ import annotations

import os
from pathlib import PurePosixPath

import pytest
from patchcut.output.names import OutputNames
from patchcut.texts import name_text, one_line


@pytest.mark.parametrize(
    ("name", "results"),
    [
        ("a/x.jpg", "a/x"),
        ("...jpg", "__"),
        ("..jpg", "_"),
        (".jpg", "_jpg"),
        ("..", "000007"),
        ("", "000007"),
        (".hidden.jpg", "_hidden"),
        ("../.../x.jpg", "___/x"),
        ("~backup.jpg", "~backup"),
        ("-x.jpg", "-x"),
        ("a:b.jpg", "a:b"),
        ("CON.jpg", "CON"),
        ("a\nb.jpg", "a%0Ab"),
        ("a\x1b[31m.jpg", "a%1B[31m"),
        ("a\\b.jpg", "a%5Cb"),
        ("caf\udce9.jpg", "caf%E9"),
        ("01.png.jpg", "01-png"),
        ("a.jpg/b.jpg", "a-jpg/b"),
        ("scan.tif#2", "scan#2"),
        ("a#2.jpg", "a#2"),
        ("no suffix", "no suffix"),
        ("/etc/x.jpg", "etc/x"),
        ("👩\u200d🚀 ü.jpg", "👩\u200d🚀 ü"),
    ],
)
def test_names_of_photos(name: str, results: str) -> None:
    assert OutputNames().photo(name, 7) == results


@pytest.mark.parametrize("letter", ["x", "ü", "👩"])
@pytest.mark.parametrize("length", [200, 247, 251, 252, 255])
def test_long_names_are_cut_and_stay_apart(letter: str, length: int) -> None:
    stem = (letter * length).encode()[: length - 4].decode(errors="ignore")
    names = OutputNames()
    made = [names.photo(f"{stem[:-1]}{last}.jpg", 0) for last in "abcabc"]
    assert len({name.casefold() for name in made}) == 6
    assert all(len(f"{name}.json".encode()) <= 255 for name in made)
    assert OutputNames().photo(f"{stem[:-1]}a.jpg", 0) == made[0]  # the same in every run


def test_equal_names_get_numbers() -> None:
    names = OutputNames()
    made = [names.photo("x.jpg", 0) for _ in range(2000)]
    assert made[:3] == ["x", "x-jpg", "x-jpg-2"] and len(set(made)) == 2000
    assert [names.photo("y", 0) for _ in range(3)] == ["y", "y-1", "y-2"]


def test_disks_that_know_no_case() -> None:
    names = OutputNames()
    made = [names.photo(name, 0) for name in ("É.jpg", "é.jpg", "e\u0301.jpg", "STRASSE.jpg", "straße.jpg")]
    assert made == ["É", "é-jpg", "e\u0301-jpg-2", "STRASSE", "straße-jpg"]


def test_videos_and_photos_stay_apart() -> None:
    names = OutputNames()
    assert names.photo("a/000001.jpg", 0) == "a/000001"
    assert names.video("a.mp4") == "a-mp4"  # frames of it would lie among the photos of a
    assert names.video("b/c d.mp4") == "b/c-d"
    assert names.photo("b/c-d.jpg", 0) == "b/c-d-jpg"
    assert names.photo("b/c-d/000003.jpg", 0) == "b/c-d/000003-jpg"
    assert names.video("b/c-d.avi") == "b/c-d-avi"
    assert names.video("rtsp://me@host:554/a?b") == "rtsp-me-host-554-a-b"
    assert names.video("...") == "video"
    assert names.video("../../x.gif") == "x"


def test_no_name_leads_out_or_hides() -> None:
    for name in ("../../../etc/passwd", "a/../../b.jpg", "./.ssh/x.jpg", "//x//y.jpg", "..../x", "a/\0.jpg"):
        for made in (OutputNames().photo(name, 0), OutputNames().video(name)):
            assert not {"", ".", ".."} & set(made.split("/"))
            assert not any(part.startswith(".") for part in PurePosixPath(made).parts)
            assert "\0" not in made


def test_name_text() -> None:
    assert name_text(os.fsdecode(b"caf\xe9/\xff.jpg")) == "caf%E9/%FF.jpg"
    assert name_text("ü\n.jpg") == "ü\n.jpg"
    assert name_text("\ud800") == "%ED%A0%80"


def test_one_line() -> None:
    assert one_line("a\nb\tc\x1b[0m\x9b\u202e\udce9") == "a\\nb\\tc\\x1b[0m\\x9b\\u202e%E9"
    assert one_line("\udcc3\udca9\udcc3") == "é%C3"
    assert one_line("ü 日本 👩") == "ü 日本 👩"


def test_a_long_suffix_of_any_script_fits_beside_the_longest_name() -> None:
    names = OutputNames()
    for suffix in (".jpg", "." + 8 * "\U0001f600"):  # a photo's by what it holds
        assert len(names.photo("n" * 220 + suffix, 0).encode()) <= 255 - len("-99.json")
