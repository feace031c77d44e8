from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from patchcut import open_source
from patchcut.output import overlay_video
from patchcut.output.folder import OutputFolder
from patchcut.sources import Source

from tests.runtime.output.test_folder import result
from tests.runtime.sources.files import picture

RATE = 48_000
SECONDS = 5
FPS = 5


def clicks(begin_s: float = 0.0) -> np.ndarray:
    """[1, samples] float32: silence, and 20 ms of 1 kHz at each whole second from the first on."""
    time_s = np.arange(round(begin_s * RATE), SECONDS * RATE) / RATE
    loud = (time_s % 1 < 0.02) & (time_s >= 1)
    return np.where(loud, 0.8 * np.sin(2 * np.pi * 1000 * time_s), 0.0).astype(np.float32)[None]


def record(path: Path, codec: str, sound_codec: str, *, shift_s: float = 0.0, late_s: float = 0.0) -> Path:
    """A video of five frames a second, with clicks; its sound may begin later than its pictures."""
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(codec, rate=FPS)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = container.add_stream(sound_codec, rate=RATE)
        sound.layout = "mono"
        for index in range(SECONDS * FPS):
            frame: Any = av.VideoFrame.from_ndarray(picture(48, 64, index), format="bgr24")
            frame.pts, frame.time_base = index + round(shift_s * FPS), Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        sound.codec_context.open(strict=False)
        size, kind = sound.codec_context.frame_size or 1024, sound.format.name
        samples = clicks(late_s)
        for start in range(0, samples.shape[1], size):
            part: Any = av.AudioFrame.from_ndarray(_as(samples[:, start : start + size], kind), kind, "mono")
            part.sample_rate, part.time_base = RATE, Fraction(1, RATE)
            part.pts = start + round((shift_s + late_s) * RATE)
            container.mux(sound.encode(part))
        container.mux(sound.encode(None))
    return path


def _as(samples: np.ndarray, kind: str) -> np.ndarray:
    if kind.startswith("flt"):
        return samples
    return (
        (samples * np.iinfo(np.int16).max).astype(np.int16)
        if kind.startswith("s16")
        else (samples.astype(np.float64) * 2**30).astype(np.int32)
    )


def overlay(path: Path, out: Path, *, start: float = 0.0, stop: float = 1e9, every: int = 1) -> Source:
    """Writes the overlay video of some seconds of a file."""
    with open_source(path, every=every) as part, OutputFolder(out, ["overlay"]) as folder:
        folder.start(part)
        end_s: float | None = None
        for frame in part:
            if frame.time_s is not None and start <= frame.time_s < stop:
                folder.write(result(frame))
        if stop > SECONDS:
            end_s = part.end_s
        folder.finish_part(end_s)
        assert folder.problems == []
    return part


def clicks_in(path: Path) -> list[float]:
    """When the clicks of a video are heard."""
    heard: list[float] = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            samples = frame.to_ndarray().astype(np.float64)
            scale = (
                1.0 if frame.format.name.startswith("flt") else float(np.iinfo(frame.to_ndarray().dtype).max)
            )
            loud = np.flatnonzero(np.abs(samples.reshape(-1)) > 0.3 * scale) / frame.sample_rate
            heard += [frame.time + at_s for at_s in loud]
    first = [at_s for i, at_s in enumerate(heard) if i == 0 or at_s - heard[i - 1] > 0.1]
    return [at_s for at_s in first if at_s >= 0]


def length_of(path: Path) -> tuple[float, float]:
    """How long its pictures and its sound last."""
    with av.open(str(path)) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        return float(video.duration * video.time_base), float(sound.duration * sound.time_base)


KINDS = [
    (".mp4", "libx264", "aac"),
    (".ts", "libx264", "aac"),
    (".ts", "mpeg2video", "ac3"),
    (".mkv", "libx264", "libmp3lame"),
    (".mkv", "libx264", "flac"),
    (".webm", "libvpx", "libopus"),
    (".mkv", "libx264", "libvorbis"),
    (".mov", "mpeg4", "pcm_s16le"),
]


@pytest.mark.parametrize(("suffix", "codec", "sound_codec"), KINDS)
def test_sound_is_copied_in_time(tmp_path: Path, suffix: str, codec: str, sound_codec: str) -> None:
    if sound_codec not in av.codec.codecs_available or codec not in av.codec.codecs_available:
        pytest.skip(f"this PyAV has no {codec} or no {sound_codec}")
    path = record(tmp_path / f"x{suffix}", codec, sound_codec)
    source = overlay(path, tmp_path / "out")
    made = tmp_path / "out/overlay/x.mp4"
    assert source.notes == []
    begin_s = next(iter(open_source(path))).time_s or 0.0
    wanted = [at_s - begin_s for at_s in clicks_in(path)]
    assert len(wanted) == SECONDS - 1
    assert clicks_in(made) == pytest.approx(wanted, abs=0.004)
    with av.open(str(path)) as old, av.open(str(made)) as new:
        names = [one.streams.audio[0].codec_context.codec.canonical_name for one in (old, new)]
    assert names[0] == names[1], "it is not encoded again"


@pytest.mark.parametrize(
    ("start", "stop", "every", "heard"),
    [
        (1.6, 1e9, 1, [0.4, 1.4, 2.4]),
        (0.0, 2.8, 1, [1.0, 2.0]),
        (0.8, 3.6, 2, [0.2, 1.2, 2.2]),
        (2.4, 1e9, 3, [0.6, 1.6]),
    ],
)
def test_sound_of_some_seconds(
    tmp_path: Path, start: float, stop: float, every: int, heard: list[float]
) -> None:
    path = record(tmp_path / "x.mp4", "libx264", "aac")
    overlay(path, tmp_path / "out", start=start, stop=stop, every=every)
    made = tmp_path / "out/overlay/x.mp4"
    assert clicks_in(made) == pytest.approx(heard, abs=0.004)
    pictures_s, sound_s = length_of(made)
    assert sound_s == pytest.approx(pictures_s, abs=0.03), "they end together"


def test_a_clock_that_does_not_begin_at_zero_and_sound_that_begins_later(tmp_path: Path) -> None:
    path = record(tmp_path / "x.mkv", "libx264", "aac", shift_s=7.0, late_s=1.5)
    overlay(path, tmp_path / "out")
    assert clicks_in(tmp_path / "out/overlay/x.mp4") == pytest.approx([2.0, 3.0, 4.0], abs=0.004)


def test_sound_that_mp4_does_not_take_is_noted(tmp_path: Path) -> None:
    path = record(tmp_path / "x.avi", "mpeg4", "adpcm_ms")
    source = overlay(path, tmp_path / "out")
    (note,) = source.notes
    assert note.startswith("[x.avi] not all of its sound is in the overlay video: MP4 does not take adpcm_ms")
    assert "ffmpeg -i" in note
    with av.open(str(tmp_path / "out/overlay/x.mp4")) as made:
        assert len(list(made.decode(video=0))) == SECONDS * FPS and not made.streams.audio


def test_sound_from_no_file_is_noted(tmp_path: Path) -> None:
    path = record(tmp_path / "x.mkv", "libx264", "aac")
    with open_source(path) as part, OutputFolder(tmp_path / "out", ["overlay"]) as folder:
        part.path = None
        folder.start(part)
        for frame in part:
            folder.write(result(frame))
        folder.finish_part(part.end_s)
    assert "it comes from no file" in part.notes[0]


def test_opencv_writes_no_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = record(tmp_path / "x.mkv", "libx264", "aac")
    monkeypatch.setattr(overlay_video, "load_av", lambda: None)
    source = overlay(path, tmp_path / "out")
    assert "sound" in source.notes[0] and list((tmp_path / "out/overlay").iterdir())


def test_damaged_sound_costs_no_picture(tmp_path: Path) -> None:
    path = record(tmp_path / "x.mkv", "libx264", "aac")
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for at in rng.integers(len(data) // 3, len(data), 60):
        data[at] ^= 0xFF
    path.write_bytes(data)
    with open_source(path) as part:
        shown = len(list(part))
    overlay(path, tmp_path / "out")
    with av.open(str(tmp_path / "out/overlay/x.mp4")) as made:
        assert len(list(made.decode(video=0))) == shown > 2


def test_a_video_without_sound_has_none_and_says_nothing(tmp_path: Path) -> None:
    from tests.runtime.sources import recordings

    source = overlay(recordings.record(tmp_path / "x.mp4"), tmp_path / "out")
    assert source.notes == []
    with av.open(str(tmp_path / "out/overlay/x.mp4")) as made:
        assert len(made.streams) == 1
