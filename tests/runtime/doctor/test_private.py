"""A report names no user: whatever text comes from the machine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from patchcut.doctor import private
from patchcut.doctor.private import without_users

HOME = "/" + "home"  # no tracked file names a path of a machine


@pytest.fixture(autouse=True)
def ann(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The user ann, at home in /data/people/ann."""
    monkeypatch.setenv("HOME", "/data/people/ann")
    monkeypatch.setenv("USER", "ann")
    monkeypatch.setenv("LOGNAME", "ann")
    monkeypatch.setattr(private, "_entries", list)
    private._homes.cache_clear()
    private._names.cache_clear()
    yield
    private._homes.cache_clear()
    private._names.cache_clear()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/data/people/ann/x and /data/people/ann", "~/x and ~"),
        ("/data/people/annex/x", "/data/people/annex/x"),
        (f"{HOME}/bob/.venv/lib: {HOME}/bob/x", "~/.venv/lib: ~/x"),
        ("/media/ann/disk/tmp", "~/disk/tmp"),
        ("/run/user/1000/x", "~/x"),
        ("/scratch/ann/x, annotations", "/scratch/~/x, annotations"),
        ("rtsp://ann:secret@10.0.0.2/live?token=abc&x=1", "rtsp://...@10.0.0.2/live?token=...&x=1"),
        ("/usr/lib/python3", "/usr/lib/python3"),
    ],
)
def test_texts(text: str, shown: str) -> None:
    assert without_users(text) == shown


def test_everything_that_a_report_may_hold() -> None:
    held = {f"{HOME}/ann/a": [1, None, (f"{HOME}/ann/b", {"c": f"{HOME}/ann"})], "d": 2.5, "e": True}
    assert without_users(held) == {"~/a": [1, None, ["~/b", {"c": "~"}]], "d": 2.5, "e": True}


def test_a_command_still_works_in_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "people/ann"
    (home / "my sources").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    private._homes.cache_clear()
    command = without_users(f"ls -d '{home}/my sources'")
    assert str(home) not in command
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == f"{home}/my sources\n"


@pytest.mark.parametrize("home", ["", "/", "relative"])
def test_a_home_that_is_none_changes_nothing(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("HOME", home)
    private._homes.cache_clear()
    assert without_users("/usr/x relative/y") == "/usr/x relative/y"
