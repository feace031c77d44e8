from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from patchcut.errors import SourceError
from patchcut.sources import Source, pipes
from patchcut.sources.pipes import open_stream

from tests.runtime.sources.files import encoded, picture
from tests.runtime.sources.recordings import UNEVEN_S, record


class Pipe(io.RawIOBase):
    """Bytes that come in pieces and cannot be sought, as from another program."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = self._data.read(min(len(buffer), 1000))
        buffer[: len(piece)] = piece
        return len(piece)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def piped(data: bytes) -> Source:
    return open_stream(Pipe(data), "stdin")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "mux", "copied"),
    [
        ("x.mkv", {}, False),
        ("x.ts", {}, False),
        ("x.mp4", {"movflags": "frag_keyframe+empty_moov"}, False),
        ("x.mp4", {"movflags": "faststart"}, False),
        ("x.mp4", {}, True),
    ],
)
def test_a_video_in_a_pipe(
    tmp_path: Path, temporary: Path, name: str, mux: dict[str, str], copied: bool
) -> None:
    data = record(tmp_path / name, UNEVEN_S, options={"bf": "0"}, mux=mux).read_bytes()
    with piped(data) as source:
        assert any(temporary.iterdir()) == copied
        times_s = [frame.time_s for frame in source]
    assert np.allclose(np.array(times_s) - times_s[0], UNEVEN_S, atol=1e-3)
    assert (source.kind, source.name, source.problems) == ("video", "stdin", [])
    del source
    assert not any(temporary.iterdir())


def test_a_video_so_short_that_its_late_index_comes_with_the_first_bytes(tmp_path: Path) -> None:
    data = record(tmp_path / "x.mp4", np.arange(3) / 25, size_wh=(16, 16)).read_bytes()
    assert data.index(b"mdat") < data.index(b"moov") < 4096
    with piped(data) as source:
        assert len(list(source)) == 3 and source.problems == []


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tiff", ".webp", ".ppm", ".pam"])
def test_a_photo_in_a_pipe(temporary: Path, suffix: str) -> None:
    source = piped(encoded(suffix))
    (frame,) = source
    assert (source.kind, source.name) == ("images", "stdin")
    assert np.abs(frame.image.astype(int) - picture()).mean() < 12
    del source
    assert not any(temporary.iterdir())


def test_more_than_8_bits_in_a_pipe() -> None:
    values = picture().astype(np.float32) / 255
    for suffix in (".pfm", ".hdr"):
        (frame,) = piped(encoded(suffix, values))
        assert np.abs(frame.image.astype(int) - picture()).mean() < 12, suffix


def test_motion_jpeg_in_a_pipe_is_a_video() -> None:
    source = piped(b"".join(encoded(".jpg", picture(seed=seed)) for seed in range(20)))
    assert len(list(source)) == 20
    assert source.kind == "video"
    (frame,) = piped(encoded(".jpg") * 2)  # a photo and its depth
    assert frame.time_s is None


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: b"", r"is empty \(0 bytes\)"),
        (lambda: b"hello" * 1000, "cannot be opened as a video"),
        (lambda: encoded(".jpg")[:-200], "is cut short"),
        (
            lambda: b"\0\0\0\x18ftypisom" + bytes(3000),
            r"cannot be opened as a video: its index of frames \(moov\)",
        ),
    ],
)
def test_what_is_neither(temporary: Path, make: Callable[[], bytes], what: str) -> None:
    with pytest.raises(SourceError, match=rf"^\[stdin\] {what}"):
        list(piped(make()))
    assert not any(temporary.iterdir())


def test_a_video_that_is_cut_short_in_a_pipe(tmp_path: Path) -> None:
    data = record(tmp_path / "x.mp4", np.arange(60) / 25, mux={"movflags": "faststart"}).read_bytes()
    source = piped(data[: len(data) * 2 // 3])
    count = len(list(source))
    assert 0 < count < 60
    assert source.problems == [
        f"[stdin] decoded {count} of 60 frames: the file is damaged or cut short; copy or download it again"
    ]


def test_without_pyav_everything_is_copied(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipes, "load_av", lambda: None)
    monkeypatch.setattr("patchcut.sources.videos.load_av", lambda: None)
    with piped(record(tmp_path / "x.mkv").read_bytes()) as source:
        assert any(temporary.iterdir())
        assert len(list(source)) == 24


def test_a_real_pipe(tmp_path: Path) -> None:
    path = record(tmp_path / "x.ts")
    code = (
        "import sys; from patchcut import open_source; s = open_source('-'); "
        "print(len(list(s)), s.name, s.problems)"
    )
    with subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE) as cat:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdin=cat.stdout,
            capture_output=True,
            text=True,
            check=False,
            env=dict(os.environ),
        )
    assert done.stdout.strip() == "24 stdin []", done.stderr
