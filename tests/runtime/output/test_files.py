"""The files of an output folder: what is written where, what is on record, and what is never touched."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest
from patchcut.errors import OutputError
from patchcut.output.files import OutputFiles
from patchcut.output.manifest import Done, recorded_files
from patchcut.output.whole_files import check_writable, remove_empty, stops_all, whole_file, write_whole


def below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def results(folder: Path) -> list[str]:
    return [name for name in below(folder) if not name.startswith(".patchcut")]


def wrote(root: Path, *names: str, **options: Any) -> None:
    files = OutputFiles(root, **options)
    for name in names:
        files.write(name, b"data of " + name.encode())
    files.close()


def test_what_was_written_is_on_record(tmp_path: Path) -> None:
    wrote(tmp_path, "json/a.json", "masks/a/01.png")
    wrote(tmp_path, "json/ü.json")
    assert recorded_files(tmp_path) == {"json/a.json", "masks/a/01.png", "json/ü.json"}
    assert len(list((tmp_path / ".patchcut").iterdir())) == 1  # the second run took the first's over
    assert (tmp_path / "json/ü.json").read_text() == "data of json/ü.json"


def test_a_run_that_writes_nothing_leaves_nothing(tmp_path: Path) -> None:
    wrote(tmp_path / "out")
    assert below(tmp_path) == [] and not (tmp_path / "out" / ".patchcut").exists()
    assert recorded_files(tmp_path / "out") == recorded_files(tmp_path / "none") == frozenset()


def test_folders_made_for_a_run_that_wrote_nothing_can_be_removed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for root in (tmp_path / "new/deep/out", tmp_path / "there"):
        files = OutputFiles(root)
        files.close(keep_empty=False)
        files.close(keep_empty=False)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    for kept in (True, False):
        files = OutputFiles(tmp_path / "out")
        if not kept:
            files.write("json/a.json", b"a")
        files.close(keep_empty=kept)
        assert (tmp_path / "out").is_dir()


def test_a_folder_is_not_taken_from_a_run_that_has_written_nothing_yet(tmp_path: Path) -> None:
    first, second = OutputFiles(tmp_path / "out"), OutputFiles(tmp_path / "out")
    first.close(keep_empty=False)
    second.write("json/a.json", b"a")
    second.close()
    assert results(tmp_path / "out") == ["json/a.json"]


def test_files_of_others_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "json/mine.json").write_text("mine")
    files = OutputFiles(tmp_path, redo=["json"])
    with pytest.raises(OutputError, match=r"json/mine.json is there already, and no run .*; move it away"):
        files.write("json/mine.json", b"theirs")
    (tmp_path / "json/folder.json").mkdir()
    (tmp_path / "json/link.json").symlink_to("mine.json")
    for name in ("json/folder.json", "json/link.json"):
        with pytest.raises(OutputError, match="is there already"):
            files.write(name, b"theirs")
    files.write("json/new.json", b"new")
    files.remove_stale(["json"])
    files.close()
    assert results(tmp_path) == ["json/link.json", "json/mine.json", "json/new.json"]
    assert (tmp_path / "json/mine.json").read_text() == "mine"


def test_only_what_is_on_record_is_removed(tmp_path: Path) -> None:
    wrote(tmp_path, *(f"masks/x/0{i}.png" for i in (1, 2, 3)), "masks/gone/01.png", "json/gone.json")
    (tmp_path / "masks/x/2024-holiday.png").write_text("mine")
    (tmp_path / "masks/x/07.png").write_text("mine")
    (tmp_path / "masks/gone/01.png").write_text("changed since")
    files = OutputFiles(tmp_path, redo=["masks"])
    files.write("masks/x/01.png", b"new")
    files.remove_others("masks/x", ["01.png"])
    assert results(tmp_path / "masks/x") == ["01.png", "07.png", "2024-holiday.png"]
    files.remove_stale(["masks"])
    files.close()
    kept = ["json/gone.json", "masks/gone/01.png", "masks/x/01.png"]
    assert results(tmp_path) == [*kept, "masks/x/07.png", "masks/x/2024-holiday.png"]
    assert recorded_files(tmp_path) == set(kept)


def test_folders_that_are_empty_then_go_too(tmp_path: Path) -> None:
    wrote(tmp_path, "masks/a/b/01.png", "masks/c/01.png")
    files = OutputFiles(tmp_path, redo=["masks"])
    files.write("masks/c/01.png", b"new")
    files.remove_stale(["masks"])
    files.close()
    assert not (tmp_path / "masks/a").exists()


def test_a_run_of_which_nothing_came_removes_nothing(tmp_path: Path) -> None:
    wrote(tmp_path, "json/a.json")
    files = OutputFiles(tmp_path, redo=["json"])
    files.remove_stale(["json"])
    files.close()
    assert results(tmp_path) == ["json/a.json"]


def test_nothing_is_written_or_removed_through_a_linked_folder(tmp_path: Path) -> None:
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    wrote(out, "masks/a/01.png", "masks/b/01.png")
    for name in ("masks/a", "masks/b"):
        for path in (out / name).iterdir():
            path.rename(elsewhere / path.name)
        (out / name).rmdir()
        (out / name).symlink_to(elsewhere)
    files = OutputFiles(out, redo=["masks"])
    with pytest.raises(OutputError, match="leads through a file or a link"):
        files.write("masks/a/01.png", b"new")
    files.write("masks/c/01.png", b"new")
    files.remove_others("masks/b", [])
    files.remove_stale(["masks"])
    files.close()
    assert (elsewhere / "01.png").read_text().startswith("data of")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "json").symlink_to(elsewhere)
    with pytest.raises(OutputError, match="leads through a file or a link"):
        OutputFiles(tmp_path / "two").holds("json")
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / ".patchcut").symlink_to(elsewhere)
    with pytest.raises(OutputError, match="leads through a file or a link"):
        OutputFiles(tmp_path / "three")


def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    wrote(tmp_path / "link", "json/a.json")
    assert results(tmp_path / "real") == ["json/a.json"]


@pytest.mark.parametrize(
    "line",
    [
        '["file", "../victim", 6]',
        '["file", "/etc/passwd", 6]',
        '["file", "masks/../../victim", 6]',
        '["file", ".patchcut/../../victim", 6]',
        '["file", "masks//x", 6]',
        '["file", "a\\u0000b", 6]',
        '["file", 7, 6]',
        '["file"]',
        '["done", "a", {"name": 1}]',
        '["done", ["a"], {}]',
        '["done", "a", {"name": "a", "stamp": "1", "words": ["json"], "recipe": "r", "files": ["x"]}]',
        '["done", "a", {"name": "a", "stamp": "1", "words": 7, "recipe": "r", "files": {}}]',
        '["done", "a", {"name": "a", "stamp": "1", "words": [], "recipe": "r", "files": {"../victim": 6}}]',
        '["note"]',
        "[" * 100_000,
        "{}",
        "null",
        "\\x00\\xff",
    ],
)
def test_a_planted_record_does_no_harm(tmp_path: Path, line: str) -> None:
    (tmp_path / "victim").write_text("victim")
    own = tmp_path / "out" / ".patchcut"
    own.mkdir(parents=True)
    (own / "run-0123.jsonl").write_text(f'{line}\n["file", "masks/true.png", 3]\n{line}')
    (own / "run-link.jsonl").symlink_to(tmp_path / "victim")
    os.mkfifo(own / "run-pipe.jsonl")
    assert recorded_files(tmp_path / "out") == {"masks/true.png"}
    files = OutputFiles(tmp_path / "out", redo=["masks", "..", "victim", "/"])
    assert files.manifest.over.done == {}
    files.write("masks/new.png", b"new")
    files.remove_stale(["masks", "..", "victim", "/", ""])
    files.close()
    assert (tmp_path / "victim").read_text() == "victim"


def test_a_planted_record_without_an_end_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".patchcut").mkdir()
    with (tmp_path / ".patchcut" / "run-0123.jsonl").open("wb") as file:
        file.write(b'["file", "json/a.json", 1]\n')
        file.truncate(2**40)
    assert recorded_files(tmp_path) == {"json/a.json"}


def test_what_killed_runs_left_is_removed(tmp_path: Path) -> None:
    code = f"""
import os, pathlib
from patchcut.output.files import OutputFiles
files = OutputFiles(pathlib.Path({str(tmp_path)!r}))
files.write("json/a.json", b"a")
with files.whole_file("overlay/x.mp4") as partial:
    partial.write_bytes(b"half of it")
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == -9
    assert any("partial" in name for name in below(tmp_path))
    assert recorded_files(tmp_path) == {"json/a.json"}
    wrote(tmp_path, "json/a.json")
    assert not any("partial" in name for name in below(tmp_path))
    assert (tmp_path / "json/a.json").read_text() == "data of json/a.json"


def test_two_runs_at_once_leave_whole_files_of_one_or_the_other(tmp_path: Path) -> None:
    one, two = OutputFiles(tmp_path), OutputFiles(tmp_path)
    with one.whole_file("overlay/x.mp4") as first, two.whole_file("overlay/x.mp4") as second:
        assert first.name != second.name
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    one.write("json/a.json", b"one")
    two.write("json/a.json", b"two")
    two.remove_stale(["json"])
    one.close()
    third = OutputFiles(tmp_path)  # while the second one runs
    third.write("json/a.json", b"three")
    third.close()
    two.write("json/b.json", b"two")
    two.close()
    assert (tmp_path / "json/a.json").read_bytes() == b"three"
    assert (tmp_path / "overlay/x.mp4").read_bytes() in (b"first", b"second")
    wrote(tmp_path, "json/c.json")
    assert recorded_files(tmp_path) == {f"json/{name}.json" for name in "abc"} | {"overlay/x.mp4"}
    assert results(tmp_path) == sorted(recorded_files(tmp_path))


def test_many_processes_into_one_folder(tmp_path: Path) -> None:
    code = f"""
import pathlib, sys
from patchcut.output.files import OutputFiles
for turn in range(5):
    files = OutputFiles(pathlib.Path({str(tmp_path)!r}))
    for index in range(8):
        files.write(f"json/{{index}}.json", sys.argv[1].encode() * 10_000)
    files.close()
"""
    runs = [subprocess.Popen([sys.executable, "-c", code, letter]) for letter in "ab"]
    assert [run.wait(timeout=60) for run in runs] == [0, 0]
    assert results(tmp_path) == [f"json/{index}.json" for index in range(8)]
    assert all(set((tmp_path / name).read_text()) in ({"a"}, {"b"}) for name in results(tmp_path))
    wrote(tmp_path, "json/last.json")
    assert recorded_files(tmp_path) == set(results(tmp_path))


def test_an_unfinished_file_is_a_new_one(tmp_path: Path) -> None:
    files = OutputFiles(tmp_path)
    seen = set()
    for _ in range(20):
        with files.whole_file("overlay/x.mp4") as partial:
            assert partial.stat().st_size == 0 and partial.suffix == ".mp4" and not partial.is_symlink()
            seen.add(partial.name)
    assert len(seen) == 20
    with pytest.raises(OutputError, match="was replaced"), files.whole_file("overlay/y.mp4") as partial:
        partial.unlink()
        partial.symlink_to(tmp_path / "victim")
    files.close()
    assert results(tmp_path) == ["overlay/x.mp4"]


@pytest.mark.parametrize("name", [b"caf\xe9", "ü".encode(), b"a\nb\x1b", b"x" * 255])
def test_a_root_of_any_name(tmp_path: Path, name: bytes) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    files = OutputFiles(root)
    with files.whole_file("overlay/ü.mp4") as partial:
        str(partial).encode("ascii")
        partial.write_bytes(b"x")
    files.close()
    assert (root / "overlay/ü.mp4").read_bytes() == b"x"
    (root / "overlay/ü.mp4").unlink()
    (root / "overlay/ü.mp4").mkdir()
    with pytest.raises(OutputError) as raised:
        OutputFiles(root).write("overlay/ü.mp4", b"x")
    assert str(raised.value).isprintable() and str(raised.value).encode()


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "\ud800", "file", "file/out", "gone/out", "loop/out"])
def test_a_root_that_cannot_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OutputError):
        OutputFiles(tmp_path / name)


def test_a_long_path_is_written(tmp_path: Path) -> None:
    name = "/".join(["masks", *(["d" * 200] * 40), "x.png"])
    files = OutputFiles(tmp_path)
    files.write(name, b"x")
    files.close()
    assert recorded_files(tmp_path) == {name}


def test_a_full_disk_while_it_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = OutputFiles(tmp_path)
    files.write("json/a.json", b"a")
    real = os.write

    def full(descriptor: int, data: Any) -> int:
        if len(data) > 20:
            return real(descriptor, data[:20])  # and the rest fails
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match="No space left") as raised:
        files.write("json/b.json", b"b")
    assert stops_all(raised.value)
    monkeypatch.undo()
    files.write("json/c.json", b"c")
    files.close()
    assert recorded_files(tmp_path) == {"json/a.json", "json/c.json"} == set(results(tmp_path))


def test_done_is_what_is_whole(tmp_path: Path) -> None:
    files = OutputFiles(tmp_path)
    files.begin_item()
    files.write("json/a.json", b"a")
    done = Done("a", "1-2", ["json"], "r", files.item)
    files.done("a.jpg", done, {"head": "cc"})
    files.note("coco", "a", {"id": 1})
    files.close()
    again = OutputFiles(tmp_path)
    assert again.notes("coco") == {"a": {"id": 1}} and again.notes("index") == {}
    assert again.manifest.over.recipes == {"r": {"head": "cc"}}
    assert again.is_done("a.jpg", done)
    for other in (
        Done("b", "1-2", ["json"], "r", {}),
        Done("a", "1-3", ["json"], "r", {}),
        Done("a", "1-2", ["json", "masks"], "r", {}),
        Done("a", "1-2", ["json"], "other", {}),
    ):
        assert not again.is_done("a.jpg", other)
    assert not again.is_done("b.jpg", done)
    (tmp_path / "json/a.json").write_text("longer")
    assert not again.is_done("a.jpg", done)
    (tmp_path / "json/a.json").unlink()
    assert not again.is_done("a.jpg", done)
    again.close()


def test_the_record_tells_what_sort_of_error_stops_a_run() -> None:
    for code, stops in ((errno.ENOSPC, True), (errno.EIO, True), (errno.ENAMETOOLONG, False), (0, False)):
        error = OutputError("output", "x")
        error.__cause__ = OSError(code, "x")
        assert stops_all(error) is stops
    assert not stops_all(OutputError("output", "x"))


def test_whole_file_takes_no_name_that_could_be_guessed(tmp_path: Path) -> None:
    seen = []
    for _ in range(3):
        with whole_file(tmp_path / "x.npz") as partial:
            seen.append(partial.name)
            assert partial.suffix == ".npz"
    assert len(set(seen)) == 3 and str(os.getpid()) not in seen[0]
    assert below(tmp_path) == ["x.npz"]


def test_check_writable_removes_what_killed_runs_left(tmp_path: Path) -> None:
    old = time.time() - 60
    for name in (".partial-0123.bin", ".partial-held.bin", ".partial-link"):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (old, old))
    (tmp_path / ".partial-fresh").write_text("x")
    (tmp_path / ".partial-pipe").unlink(missing_ok=True)
    os.mkfifo(tmp_path / ".partial-pipe")
    with whole_file(tmp_path / "mine.bin") as partial:
        os.utime(partial, (old, old))
        check_writable(tmp_path)
        assert partial.exists()
        partial.write_text("whole")
    assert not (tmp_path / ".partial-0123.bin").exists()
    assert (tmp_path / ".partial-fresh").exists()
    assert (tmp_path / "mine.bin").read_text() == "whole"


def test_check_writable_says_what_it_made(tmp_path: Path) -> None:
    made = check_writable(tmp_path / "a/b")
    assert made == [tmp_path / "a/b", tmp_path / "a"] and check_writable(tmp_path / "a/b") == []
    (tmp_path / "a/mine").write_text("")
    remove_empty(made)
    assert below(tmp_path) == ["a/mine"] and not (tmp_path / "a/b").exists()


def test_a_name_of_255_letters_is_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "x" * 251 + ".npz", "x." + "y" * 253):
        write_whole(tmp_path / name, b"x")
        assert (tmp_path / name).read_bytes() == b"x"


def test_json_of_the_record_is_plain(tmp_path: Path) -> None:
    wrote(tmp_path, "json/ü\u2028.json")
    (journal,) = (tmp_path / ".patchcut").iterdir()
    assert [json.loads(line)[0] for line in journal.read_text("ascii").splitlines()] == ["file"]


def refuse(*args: Any, **options: Any) -> NoReturn:
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")


def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    monkeypatch.setattr(fcntl, "flock", refuse)
    wrote(tmp_path, "json/a.json")
    wrote(tmp_path, "json/a.json", "json/b.json")
    assert recorded_files(tmp_path) == {"json/a.json", "json/b.json"}


def test_a_device_or_pipe_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "null")
    with pytest.raises(OutputError, match=r"null is a device, pipe or socket; name a file"):
        write_whole(tmp_path / "null", b"x")
    assert stat.S_ISFIFO((tmp_path / "null").lstat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["null"]
