from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
import pytest
from patchcut.sources.cut_files import is_cut_short
from patchcut.sources.frame_clock import ChunkTimes, FrameClock

MS = Fraction(1, 1000)


def times_s(*pts: int | None, fps: float | None = 25.0) -> list[float]:
    clock = FrameClock(MS, fps)
    return [clock.time_s(one, 40) for one in pts]


def test_times_are_the_container_s() -> None:
    assert times_s(5000, 5033, 5067, 9000) == [5.0, 5.033, 5.067, 9.0]
    assert times_s(-80, -40, 0) == [-0.08, -0.04, 0.0]


def test_frames_without_times_follow_at_the_rate() -> None:
    assert times_s(None, None, None, fps=10.0) == pytest.approx([0.0, 0.1, 0.2])
    assert times_s(None, None, fps=None) == pytest.approx([0.0, 0.04])
    assert times_s(1000, None, None, 1300) == pytest.approx([1.0, 1.04, 1.08, 1.3])


def test_another_recording_begins_where_the_last_one_ends() -> None:
    got = times_s(*range(80, 600, 40), *range(80, 600, 40))
    assert np.allclose(np.diff(got), 0.04)
    assert np.allclose(np.diff(times_s(*range(9000, 9400, 40), 40, 80, 120)), 0.04)


def test_a_time_out_of_order_stays_one() -> None:
    got = times_s(0, 40, 80, 60, 120, 120, 160)
    assert (np.diff(got) > 0).all()
    assert [got[0], got[1], got[2], got[4], got[6]] == pytest.approx([0.0, 0.04, 0.08, 0.12, 0.16])


@pytest.mark.parametrize(
    ("durations", "promised", "end_s"),
    [
        ((40, 40, 40), (), 0.12),
        ((40, 40, 5000), (), 5.08),
        ((1, 1, 1), (), 0.12),  # "1000 fps"
        ((0, 0, 0), (), 0.12),
        ((40, 40, 40), (0.5,), 0.5),
        ((40, 40, 40), (None, 0.07, 0.3), 0.3),  # the first that comes after the last frame
    ],
)
def test_the_end(durations: tuple[int, ...], promised: tuple[float | None, ...], end_s: float) -> None:
    clock = FrameClock(MS, None)
    assert clock.end_s() is None
    for index, duration in enumerate(durations):
        clock.time_s(40 * index, duration)
    assert clock.end_s(promised) == pytest.approx(end_s)


def test_chunks_that_give_no_frame_do_not_pile_up() -> None:
    times = ChunkTimes()
    for chunk in range(100):
        times.add(chunk)
    assert times.take(70) == 70  # the first frame's own
    assert times.take(72) == 71
    assert ChunkTimes().take(5) == 5
    assert ChunkTimes().take(None) is None


def test_chunks_after_a_gap_keep_it() -> None:
    """FFmpeg's muxer puts the first frame of a late video at 0, and fills up with empty chunks."""
    times = ChunkTimes()
    for chunk in (0, 148, 150, 152, 154):
        times.add(chunk)
    assert [times.take(frame) for frame in (148, 152, 154, 150)] == [148, 150, 152, 154]
    assert times.take(155) == 156  # no chunk follows the last


def test_files_say_whether_they_are_whole() -> None:
    segment = b"\x18\x53\x80\x67"
    header = b"\x1a\x45\xdf\xa3\x82ab"
    for data, cut in {
        header + segment + b"\x85hello": False,
        header + segment + b"\x86hello": True,
        header + segment + b"\xffhello": False,  # a size that was not known
        header + segment + b"\x01" + b"\xff" * 7: False,
        header + b"\x42\x86\x81a": False,
        b"\x1a\x45\xdf\xa3": False,
        b"\x1a\x45\xdf\xa3\0": False,
        b"RIFF" + (4).to_bytes(4, "little") + b"AVI ": False,
        b"RIFF" + (5).to_bytes(4, "little") + b"AVI ": True,
        b"RIFF" + b"\xff" * 4 + b"AVI ": False,  # written into a pipe
        b"RIFF" + (99).to_bytes(4, "little") + b"WEBP": False,
        b"OggS" + bytes(22) + b"\1\3abc": False,
        b"OggS" + bytes(22) + b"\1\4abc": True,
        b"OggS" + bytes(22) + b"\2\3": True,
        b"OggS" + bytes(22): True,
        _box(b"ftyp", 8) + _box(b"moov", 8) + _box(b"moof", 8) + _box(b"mdat", 8): False,
        _box(b"ftyp", 8) + _box(b"moov", 8) + _box(b"moof", 8) + _box(b"mdat", 8)[:-1]: True,
        _box(b"ftyp", 8) + _box(b"moov", 8) + _box(b"moof", 8)[:-1]: True,
        _box(b"ftyp", 8) + _box(b"moof", 8) + b"\0\0\1": True,
        _box(b"ftyp", 8) + _box(b"moof", 8) + b"\0\0\0\1mdat" + (24).to_bytes(8, "big") + bytes(8): False,
        _box(b"ftyp", 8) + _box(b"moof", 8) + b"\0\0\0\1mdat" + (24).to_bytes(8, "big") + bytes(7): True,
        _box(b"ftyp", 8) + _box(b"moof", 8) + b"\0\0\0\0mdat": False,  # to the end
        _box(b"ftyp", 8) + _box(b"moov", 8) + _box(b"mdat", 8)[:-1]: False,  # the index says it
        _box(b"ftyp", 8) + _box(b"mdat", 8) + _box(b"moov", 8)[:-1]: True,
        _box(b"moof", 8) + _box(b"mfra", 8)[:-1]: False,
        _asf(92): False,
        _asf(93): True,
        _asf(93, flags=1): False,  # of a broadcast
        _asf(93)[:60]: False,
        b"": False,
        b"hello": False,
    }.items():
        file = io.BytesIO(b"" + data)
        file.seek(len(data) // 2)
        assert is_cut_short(file) is cut, data
        assert file.tell() == len(data) // 2


def _box(kind: bytes, size: int) -> bytes:
    """A box of an MP4 with this many bytes in it."""
    return (8 + size).to_bytes(4, "big") + kind + bytes(size)


def _asf(size: int, flags: int = 0) -> bytes:
    """92 + 30 bytes of an ASF file that states this many and 30."""
    start = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(14)
    file = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365") + bytes(24) + (30 + size).to_bytes(8, "little")
    return start + file + bytes(40) + flags.to_bytes(4, "little")
