"""Small videos, cut and with bytes changed: each ends in frames, problems or a SourceError, and soon."""

from __future__ import annotations

import itertools
import random
import time
from pathlib import Path

import numpy as np
import pytest
from patchcut.errors import SourceError
from patchcut.sources.pipes import open_stream
from patchcut.sources.videos import open_video

from tests.runtime.sources.recordings import record

INPUTS = 360
_SLOWEST_S = 10.0

# Container, codec, pixels and options of the muxer.
_KINDS = [
    ("mp4", "libx264", "yuv420p", {}),
    ("mp4", "libx264", "yuv420p", {"movflags": "faststart"}),
    ("mp4", "libx265", "yuv420p", {"movflags": "frag_keyframe+empty_moov"}),
    ("mp4", "mpeg4", "yuv420p", {"movflags": "faststart"}),
    ("mov", "prores_ks", "yuv422p10le", {}),
    ("mkv", "libx264", "yuv420p", {}),
    ("mkv", "ffv1", "yuv420p", {}),
    ("webm", "libvpx", "yuv420p", {}),
    ("webm", "libvpx-vp9", "yuv420p", {}),
    ("avi", "mpeg4", "yuv420p", {}),
    ("avi", "mjpeg", "yuvj420p", {}),
    ("ts", "libx264", "yuv420p", {}),
    ("ts", "mpeg2video", "yuv420p", {}),
    ("flv", "libx264", "yuv420p", {}),
    ("mpg", "mpeg2video", "yuv420p", {}),
    ("h264", "libx264", "yuv420p", {}),
    ("mjpeg", "mjpeg", "yuvj420p", {}),
    ("y4m", "rawvideo", "yuv420p", {}),
]
_OPTIONS = {
    "libx264": {"g": "6", "preset": "ultrafast"},
    "libx265": {"g": "6", "x265-params": "log-level=none", "preset": "ultrafast"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "g": "6"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "g": "6"},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, bytes]]:
    """Suffix and bytes of a whole video of each kind."""
    folder = tmp_path_factory.mktemp("videos")
    made = []
    for number, (suffix, codec, pix_fmt, mux) in enumerate(_KINDS):
        path = folder / f"{number}.{suffix}"
        options = _OPTIONS.get(codec, {})
        sound_s = 0.5 if suffix in ("mp4", "mkv", "ts", "flv") and number % 2 else 0.0
        record(
            path, np.arange(12) / 25, codec=codec, pix_fmt=pix_fmt, options=options, mux=mux, sound_s=sound_s
        )
        made.append((suffix, path.read_bytes()))
    return made


def damaged(data: bytes, chance: random.Random) -> bytes:
    """`data` cut, with bits flipped, with a stretch of zeros or noise, or with a piece moved."""
    changed = bytearray(data)
    way = chance.randrange(6)
    start = chance.randrange(len(data)) if chance.random() < 0.7 else chance.randrange(min(len(data), 600))
    length = chance.choice([1, 4, 16, 200, 2000])
    if way == 0:
        del changed[start:]
    elif way == 1:
        for _ in range(chance.choice([1, 3, 20])):
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    elif way == 2:
        changed[start : start + length] = bytes(len(changed[start : start + length]))
    elif way == 3:
        changed[start : start + length] = chance.randbytes(len(changed[start : start + length]))
    elif way == 4:
        del changed[start : start + length]
    else:
        piece = bytes(changed[start : start + length])
        at = chance.randrange(len(changed))
        changed[at:at] = piece * 3
    return bytes(changed)


def test_damaged_videos_end_in_frames_or_one_line(whole: list[tuple[str, bytes]], tmp_path: Path) -> None:
    chance = random.Random(11)
    counts = {"refused": 0, "told": 0, "silent": 0}
    for number, (suffix, data) in zip(range(INPUTS), itertools.cycle(whole)):
        path = tmp_path / f"{number}.{suffix}"
        path.write_bytes(damaged(data, chance))
        started = time.monotonic()
        try:
            if number % 5 == 4 and path.stat().st_size:
                source = open_stream(path.open("rb"), path.name)
            else:
                source = open_video(path, every=1 + number % 3)
            with source:
                times_s = []
                for frame in itertools.islice(source, 2000):
                    assert frame.image.dtype == np.uint8 and frame.image.ndim == 3 and frame.image.size
                    times_s.append(frame.time_s)
            assert times_s == sorted(set(times_s)), path.name
            assert source.end_s is None or not times_s or source.end_s > times_s[-1], path.name
            assert all(line.startswith("[") and "\n" not in line for line in source.problems)
            counts["told" if source.problems else "silent"] += 1
        except SourceError as error:
            assert "\n" not in str(error)
            counts["refused"] += 1
        assert time.monotonic() - started < _SLOWEST_S, path.name
        path.unlink()
    assert sum(counts.values()) == INPUTS >= 300
    assert min(counts.values()) > INPUTS // 20, counts
