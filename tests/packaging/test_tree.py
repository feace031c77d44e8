"""What is tracked may leave this machine: it names none of its paths and is small."""

from __future__ import annotations

import re
from pathlib import Path

MAX_FILE_BYTES = 25_000_000
# Homes, mounts and workplaces; a letter before the slash makes it a relative path, such as build/root/x.
MACHINE_PATH = re.compile(rb"(?<![\w.~\-\]/])/(?:home|root|Users|mnt|work|tmp|srv)/\w")


def test_no_tracked_file_is_large(tracked: list[Path]) -> None:
    large = [path.name for path in tracked if path.stat().st_size > MAX_FILE_BYTES]
    assert large == []


def test_no_tracked_file_names_a_path_of_a_machine(tracked: list[Path]) -> None:
    assert MACHINE_PATH.search(b"see " + b"/" + b"home/me/x")
    assert not MACHINE_PATH.search(b"see build/" + b"home/me")
    found = {}
    for path in tracked:
        data = path.read_bytes()
        if b"\0" in data[:8192]:
            continue  # pictures, weights
        if match := MACHINE_PATH.search(data):
            found[path.name] = match[0]
    assert found == {}


def test_nothing_made_is_tracked(tracked: list[Path]) -> None:
    made = {".so", ".o", ".pyc", ".whl", ".onnx", ".pt", ".npy"}
    assert [path.name for path in tracked if path.suffix in made] == []


def test_text_ends_with_a_newline_and_has_no_carriage_returns(tracked: list[Path]) -> None:
    kinds = {".py", ".pyi", ".c", ".cpp", ".h", ".cu", ".cuh", ".cmake", ".md", ".toml", ".txt", ".jsonl"}
    texts = {path.name: path.read_bytes() for path in tracked if path.suffix in kinds}
    assert len(texts) > 20
    bad = [name for name, data in texts.items() if b"\r" in data or (data and not data.endswith(b"\n"))]
    assert bad == []
