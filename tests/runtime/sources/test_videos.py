from __future__ import annotations

import io
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from patchcut.errors import SourceError
from patchcut.pixels import PixelRule
from patchcut.sources import Source, open_source, videos
from patchcut.sources.av_videos import turned

from tests.runtime.sources.files import (
    check_that_a_cut_video_gives_what_it_has,
    encoded,
    picture,
    write_video,
)
from tests.runtime.sources.recordings import STEADY_S, UNEVEN_S, own_times_s, record, remux

B_FRAMES = {"bf": "3", "x264-params": "b-pyramid=strict:b-adapt=0"}


def opened(path: Path, every: int = 1) -> tuple[Source, list[Any]]:
    with open_source(path, every=every) as source:
        return source, list(source)


def error_of(image: np.ndarray, seed: int) -> float:
    """Mean difference of a frame from `picture(seed)` of its size."""
    height, width = image.shape[:2]
    return float(np.abs(image.astype(int) - picture(height, width, seed)).mean())


@pytest.mark.parametrize(("suffix", "codec"), [(".avi", "MJPG"), (".mp4", "mp4v")])
def test_video(tmp_path: Path, suffix: str, codec: str) -> None:
    with open_source(write_video(tmp_path / f"a:b{suffix}", codec=codec)) as source:
        frames = list(source)
    assert (source.kind, source.total, source.problems) == ("video", 30, [])
    assert source.fps == pytest.approx(10.0)
    assert [frame.index for frame in frames] == list(range(30))
    assert np.allclose([frame.time_s for frame in frames], np.arange(30) / 10, atol=1e-3)
    assert np.abs(frames[7].image.astype(int) - picture(seed=7)).mean() < 12
    assert source.end_s == pytest.approx(3.0)


@pytest.mark.parametrize("name", ["x.mp4", "x.mov", "x.mkv", "x.ts", "x.flv", "x.webm", "x.avi", "x.mpg"])
@pytest.mark.parametrize("kind", ["steady", "uneven", "long sound", "b-frames"])
def test_times_of_whole_files_are_those_of_their_container(tmp_path: Path, name: str, kind: str) -> None:
    codec = {"x.webm": "libvpx-vp9", "x.mpg": "mpeg2video", "x.avi": "mpeg4"}.get(name, "libx264")
    if kind == "uneven" and name in ("x.mpg", "x.avi"):
        pytest.skip("this format has a constant rate")
    if kind == "long sound" and name in ("x.webm", "x.mpg"):
        pytest.skip("this format takes no AAC")
    times_s = UNEVEN_S if kind == "uneven" else STEADY_S
    options = {} if codec != "libx264" else B_FRAMES if kind == "b-frames" else {"bf": "0"}
    options = {"bf": "2"} if codec in ("mpeg4", "mpeg2video") and kind == "b-frames" else options
    path = record(
        tmp_path / name,
        times_s,
        codec=codec,
        options=options,
        sound_s=2.0 if kind == "long sound" else 0.0,
        sound_codec="pcm_s16le" if name == "x.avi" else "aac",
    )
    source, frames = opened(path)
    assert source.problems == []
    assert source.total in (None, len(times_s))
    got_s = [frame.time_s for frame in frames]
    assert got_s == own_times_s(path)
    assert np.allclose(np.array(got_s) - got_s[0], times_s, atol=0.002)
    assert max(error_of(frame.image, frame.index) for frame in frames) < 25
    if (kind, name) != ("uneven", "x.ts"):  # which has neither durations nor a rate
        assert source.end_s - got_s[0] == pytest.approx(times_s[-1] + 0.04, abs=0.011)


def test_frames_of_an_avi_with_b_frames_follow_one_another(tmp_path: Path) -> None:
    path = record(tmp_path / "x.avi", options=B_FRAMES)
    own_s = own_times_s(path)
    assert own_s != sorted(own_s)  # FFmpeg gives frames each other's times
    source, frames = opened(path)
    got_s = np.array([frame.time_s for frame in frames])
    assert np.allclose(got_s - got_s[0], STEADY_S)
    assert source.problems == []


@pytest.mark.parametrize("format", ["avi", "matroska", "flv", "mpegts", "asf", "ogg"])
def test_a_file_written_into_a_pipe_is_whole(tmp_path: Path, format: str) -> None:
    """Its writer could not go back and fill in sizes and an index."""
    codec = {"asf": "wmv2", "ogg": "libtheora", "avi": "mpeg4"}.get(format, "libx264")
    into = io.BytesIO()
    pipe = SimpleNamespace(write=into.write)
    try:
        with av.open(pipe, "w", format=format) as container:
            stream: Any = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 80, 60, "yuv420p"
            for index in range(24):
                frame: Any = av.VideoFrame.from_ndarray(picture(60, 80, index), format="bgr24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except (av.error.FFmpegError, ValueError) as error:
        pytest.skip(f"this PyAV cannot make it: {error}")
    path = tmp_path / "x"
    path.write_bytes(into.getvalue())
    source, frames = opened(path)
    assert (len(frames), source.problems) == (24, [])
    assert source.total in (24, None)


def test_an_avi_that_begins_late_keeps_its_times(tmp_path: Path) -> None:
    """The muxer puts the first chunk at 0, and fills up with empty ones to the second."""
    path = record(tmp_path / "x.avi", [3 + time_s for time_s in STEADY_S], options=B_FRAMES)
    own_s = own_times_s(path)
    source, frames = opened(path)
    got_s = np.array([frame.time_s for frame in frames])
    assert got_s[0] == own_s[0] > 2.5
    assert np.allclose(got_s - got_s[0], STEADY_S)
    assert source.problems == []


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts", "flv"])
def test_cut_without_encoding_again(tmp_path: Path, suffix: str) -> None:
    """An MP4 hides the frames before the cut by an edit list."""
    path = remux(record(tmp_path / "a.mp4", sound_s=1.5), tmp_path / f"cut.{suffix}", shift_s=-0.4)
    source, frames = opened(path)
    assert source.problems == []
    assert [frame.time_s for frame in frames] == own_times_s(path)
    if suffix in ("mp4", "mov"):
        assert len(frames) == source.total == 14
        assert error_of(frames[0].image, 10) < 25


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_file_that_begins_late_is_whole(tmp_path: Path, suffix: str) -> None:
    path = remux(record(tmp_path / "a.mp4"), tmp_path / f"late.{suffix}", shift_s=5.0)
    source, frames = opened(path)
    assert source.problems == []
    assert [frame.time_s for frame in frames] == own_times_s(path)
    assert frames[0].time_s == pytest.approx(5.0, abs=0.1)
    assert source.end_s == pytest.approx(frames[0].time_s + 0.96)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("first", [True, False])
def test_a_picture_beside_the_video_is_not_taken_for_it(tmp_path: Path, suffix: str, first: bool) -> None:
    video = record(tmp_path / "a.mp4", size_wh=(96, 64))
    path = tmp_path / f"x.{suffix}"
    with av.open(str(video)) as old, av.open(str(path), "w") as new:
        template = old.streams.video[0]
        streams = [new.add_stream_from_template(template)] if not first else []
        cover: Any = new.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 320, 240, "yuvj420p"
        streams += [new.add_stream_from_template(template)] if first else []
        image = av.VideoFrame.from_ndarray(picture(240, 320), format="bgr24").reformat(format="yuvj420p")
        image.pts = 0
        new.mux(cover.encode(image) + cover.encode(None))
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[0]
                new.mux(packet)
    source, frames = opened(path)
    assert {frame.image.shape for frame in frames} == {(64, 96, 3)}
    assert (len(frames), source.problems) == (24, [])


def test_a_frame_held_to_the_end_is_shown_that_long(tmp_path: Path) -> None:
    for name in ("x.mp4", "x.mkv"):
        source, _ = opened(record(tmp_path / name, (0.0, 0.04, 0.4), options={"bf": "0"}, last_s=4.96))
        assert source.end_s == pytest.approx(5.36), name
    source, _ = opened(record(tmp_path / "y.mkv", (0.0, 0.04, 0.4), last_s=1.0, sound_s=3.0))
    assert source.end_s == pytest.approx(1.4)


def test_a_recording_of_a_browser_is_not_1000_fps_at_its_end(tmp_path: Path) -> None:
    """No durations, no length, no rate: times are all that there is."""
    times_s = [0.0, 0.033, 0.068, 0.1, 0.31, 0.345, 0.377, 0.41, 0.72]
    path = record(
        tmp_path / "x.webm", times_s, codec="libvpx", mux={"live": "1"}, options={"deadline": "realtime"}
    )
    source, frames = opened(path)
    assert np.allclose([frame.time_s for frame in frames], times_s, atol=1e-3)
    assert 0.74 < source.end_s < 0.8
    assert source.problems == []


@pytest.mark.parametrize("suffix", ["ts", "h264"])
def test_frames_keep_their_size_where_it_changes(tmp_path: Path, suffix: str) -> None:
    wide = record(tmp_path / f"a.{suffix}", size_wh=(160, 120))
    tall = record(tmp_path / f"b.{suffix}", size_wh=(120, 160))
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(wide.read_bytes() + tall.read_bytes())
    source, frames = opened(path)
    assert [frame.image.shape for frame in frames] == [(120, 160, 3)] * 24 + [(160, 120, 3)] * 24
    assert max(error_of(frame.image, frame.index % 24) for frame in frames) < 25
    times_s = np.array([frame.time_s for frame in frames])
    assert np.allclose(times_s - times_s[0], np.arange(48) / 25)  # the second begins where the first ends
    assert source.problems == []


# By the display matrix's first two columns, what `picture` is turned into.
TURNS = {
    (1, 0, 0, 1): lambda image: image,
    (0, 1, -1, 0): lambda image: np.rot90(image, -1),
    (-1, 0, 0, -1): lambda image: np.rot90(image, 2),
    (0, -1, 1, 0): lambda image: np.rot90(image, 1),
    (-1, 0, 0, 1): lambda image: image[:, ::-1],
    (1, 0, 0, -1): lambda image: image[::-1],
    (0, 1, 1, 0): lambda image: image.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda image: np.rot90(image, 2).transpose(1, 0, 2),
}


@pytest.mark.parametrize("turn", TURNS)
def test_frames_are_turned_as_they_are_shown(tmp_path: Path, turn: tuple[int, int, int, int]) -> None:
    if not hasattr(av.VideoStream, "set_display_matrix"):
        pytest.skip("this PyAV writes no display matrix")
    a, b, c, d = (65536 * one for one in turn)
    matrix = [a, b, 0, c, d, 0, 0, 0, 1 << 30]
    image = picture(6, 8)
    assert np.array_equal(turned(image, np.array(matrix, np.int32).tobytes()), TURNS[turn](image))
    path = remux(record(tmp_path / "a.mp4"), tmp_path / "turned.mp4", matrix=matrix)
    _, frames = opened(path)
    assert error_of(frames[0].image, 0) < 25 if turn == (1, 0, 0, 1) else True
    shown = TURNS[turn](picture(60, 80, 0))
    assert frames[0].image.shape == shown.shape
    assert np.abs(frames[0].image.astype(int) - shown).mean() < 25
    assert frames[0].image.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "size_wh"),
    [
        ("x.mkv", "libx265", "yuv420p10le", (80, 60)),
        ("x.mkv", "libx264", "yuv444p", (79, 61)),
        ("x.mov", "prores_ks", "yuv422p10le", (80, 60)),
        ("x.mkv", "ffv1", "gray", (81, 61)),
        ("x.mkv", "ffv1", "gray16le", (80, 60)),
        ("x.mkv", "ffv1", "bgr0", (33, 17)),
        ("x.mp4", "libsvtav1", "yuv420p", (80, 64)),
        ("x.webm", "libvpx-vp9", "yuv420p", (81, 61)),
        ("x.avi", "rawvideo", "bgr24", (79, 61)),
        ("x.mjpeg", "mjpeg", "yuvj420p", (80, 60)),
        ("x.y4m", "rawvideo", "yuv420p", (80, 60)),
    ],
)
def test_codecs_depths_and_odd_sizes(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, size_wh: tuple[int, int]
) -> None:
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    try:
        path = record(
            tmp_path / name, STEADY_S[:5], codec=codec, pix_fmt=pix_fmt, size_wh=size_wh, options=quiet
        )
    except (av.error.FFmpegError, ValueError) as error:
        pytest.skip(f"this PyAV cannot make it: {error}")
    source, frames = opened(path)
    assert source.problems == []
    assert [frame.image.shape for frame in frames] == [(size_wh[1], size_wh[0], 3)] * 5
    for frame in frames:
        wanted = picture(size_wh[1], size_wh[0], frame.index)
        if pix_fmt.startswith("gray"):
            wanted = np.repeat(cv2.cvtColor(wanted, cv2.COLOR_BGR2GRAY)[..., None], 3, axis=2)
        assert np.abs(frame.image.astype(int) - wanted).mean() < 12


@pytest.mark.parametrize("matrix", [1, 5])
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_are_those_of_their_matrix_and_range(tmp_path: Path, matrix: int, full_range: bool) -> None:
    path = tmp_path / "x.mkv"
    wanted = picture(64, 96)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"qp": "1"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv444p"
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = 2 if full_range else 1
        frame = av.VideoFrame.from_ndarray(wanted, format="bgr24")
        frame = frame.reformat(
            format="yuv444p", dst_colorspace=matrix, dst_color_range=2 if full_range else 1
        )
        container.mux(stream.encode(frame) + stream.encode(None))
    _, (got,) = opened(path)
    assert np.abs(got.image.astype(int) - wanted).mean() < 2.5


def test_every_takes_frames_at_their_own_index_and_time(tmp_path: Path) -> None:
    path = record(tmp_path / "x.mp4", UNEVEN_S)
    source, frames = opened(path, every=5)
    assert [(frame.index, frame.time_s) for frame in frames] == [(0, 0.0), (5, 0.9), (10, 2.98)]
    assert (source.total, source.every, source.end_s) == (3, 5, pytest.approx(3.27))


def test_raw_video_without_times_runs_at_its_rate(tmp_path: Path) -> None:
    source, frames = opened(record(tmp_path / "x.h264"))
    assert np.allclose([frame.time_s for frame in frames], STEADY_S)
    assert (source.end_s, source.total, source.problems) == (pytest.approx(0.96), None, [])


def test_frames_lost_inside_a_video_are_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.avi", frames=60)
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 5 : len(data) // 2] = bytes(len(data) // 2 - len(data) * 2 // 5)
    path.write_bytes(data)
    source = open_source(path)
    frames = list(source)
    assert 40 < len(frames) < 60
    what = f"decoded {len(frames)} of 60 frames: the file is damaged or cut short"
    assert source.problems == [f"[x.avi] {what}; copy or download it again"]


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.webm", "x.ts", "x.avi", "x.flv", "x.mpg"])
def test_damage_in_the_middle_is_told_and_what_follows_is_read(tmp_path: Path, name: str) -> None:
    codec = {"x.webm": "libvpx-vp9", "x.mpg": "mpeg2video", "x.avi": "mpeg4"}.get(name, "libx264")
    path = record(tmp_path / name, np.arange(120) / 25, codec=codec, options={"g": "12"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2500] = np.random.default_rng(1).bytes(2500)
    path.write_bytes(data)
    source, frames = opened(path)
    (problem,) = source.problems
    assert problem.startswith(f"[{name}] decoded {len(frames)} ")
    assert problem.endswith(": the file is damaged or cut short; copy or download it again")
    assert 40 < len(frames) < 120
    assert all(error_of(frame.image, 0) for frame in frames)


@pytest.mark.parametrize(
    ("name", "mux"),
    [
        ("x.mp4", {"movflags": "faststart"}),
        ("f.mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("x.mkv", {}),
        ("x.webm", {}),
        ("x.avi", {}),
        ("x.flv", {}),
        ("x.mpg", {}),
        ("x.h264", {}),
        ("x.mjpeg", {}),
        ("x.ogv", {}),
    ],
)
def test_a_file_cut_short_gives_what_it_has_and_is_told(
    tmp_path: Path, name: str, mux: dict[str, str]
) -> None:
    suffix = name.partition(".")[2]
    codecs = {"webm": "libvpx", "avi": "mpeg4", "mpg": "mpeg2video", "mjpeg": "mjpeg", "ogv": "libvpx"}
    codec = codecs.get(suffix, "libx264")
    try:
        path = record(
            tmp_path / name,
            np.arange(60) / 25,
            codec=codec,
            options={"g": "12"},
            pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p",
            mux=mux,
        )
    except (av.error.FFmpegError, ValueError) as error:
        pytest.skip(f"this PyAV cannot make it: {error}")
    data = path.read_bytes()
    end = len(data) * 6 // 10
    path.write_bytes(data[: _within_a_picture(data, end) if suffix == "h264" else end])
    source, frames = opened(path)
    assert 12 < len(frames) < 60
    (problem,) = source.problems
    assert problem.startswith(f"[{name}] decoded {len(frames)} ")
    assert problem.endswith(": the file is damaged or cut short; copy or download it again")


def _within_a_picture(data: bytes, near: int) -> int:
    """The middle of the part of a raw H.264 stream that `near` is in: of one cut between two parts, or a few
    bytes from there, nobody can tell, and an encoder does not put them at the same places on each machine."""
    part_begins = b"\0\0\1"
    return (data.rindex(part_begins, 0, near) + data.index(part_begins, near)) // 2


@pytest.mark.parametrize("name", ["f.mp4", "x.wmv", "x.dv", "x.y4m", "x.flv"])
def test_a_file_cut_anywhere_is_told(tmp_path: Path, name: str) -> None:
    codecs = {"wmv": "wmv2", "dv": "dvvideo", "y4m": "wrapped_avframe"}
    suffix = name.partition(".")[2]
    try:
        path = record(
            tmp_path / name,
            codec=codecs.get(suffix, "libx264"),
            size_wh=(720, 576) if suffix == "dv" else (80, 60),
            options={"g": "6"} if suffix in ("mp4", "flv") else {},
            mux={"movflags": "frag_keyframe+empty_moov"} if suffix == "mp4" else {},
            sound_s=0.9 if suffix in ("mp4", "flv") else 0.0,
        )
    except (av.error.FFmpegError, ValueError) as error:
        pytest.skip(f"this PyAV cannot make it: {error}")
    source, frames = opened(path)
    assert (len(frames), source.problems) == (len(STEADY_S), [])
    data = path.read_bytes()
    whole = data.rfind(b"mfra") - 4 if suffix == "mp4" else len(data)
    for share in (0.31, 0.53, 0.77, 0.9):
        path.write_bytes(data[: int(whole * share)])
        try:
            source, _ = opened(path)
        except SourceError as error:  # older FFmpegs read a whole fragment before they open a file
            assert "cut short" in str(error), share
        else:
            assert any("the file is damaged or cut short" in problem for problem in source.problems), share


def test_cut_video_gives_what_it_has(tmp_path: Path) -> None:
    check_that_a_cut_video_gives_what_it_has(tmp_path)


def test_a_broadcast_may_begin_and_end_anywhere(tmp_path: Path) -> None:
    path = record(tmp_path / "x.ts", np.arange(100) / 25, options={"g": "20"})
    packets = path.read_bytes()
    path.write_bytes(packets[188 * (len(packets) // 188 // 3) :])
    source, frames = opened(path)
    assert 20 < len(frames) < 100
    assert source.problems == []


def test_what_is_no_video_is_refused_in_one_line(tmp_path: Path) -> None:
    whole = record(tmp_path / "a.mp4", sound_s=1.0)
    unfinished = tmp_path / "cut.mp4"
    unfinished.write_bytes(whole.read_bytes()[:2000])
    noise = tmp_path / "noise.mkv"
    noise.write_bytes(np.random.default_rng(0).bytes(5000))
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"#EXTM3U\n#EXTINF:1,\n{whole}\n#EXT-X-ENDLIST\n")
    script = tmp_path / "script.mp4"
    script.write_text(f"ffconcat version 1.0\nfile {whole}\n")
    (tmp_path / "empty.mp4").touch()
    sound = tmp_path / "sound.m4a"
    with av.open(str(whole)) as old, av.open(str(sound), "w", format="mp4") as new:
        stream = new.add_stream_from_template(old.streams.audio[0])
        for packet in old.demux(old.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    unknown = tmp_path / "unknown.mp4"
    unknown.write_bytes(whole.read_bytes().replace(b"avc1", b"xyz1"))
    for path, what in {
        unfinished: r"cannot be opened as a video: its index of frames \(moov\) is missing or damaged, ",
        noise: "cannot be opened as a video: damaged, cut short, or of a format that FFmpeg does not know; ",
        playlist: "cannot be opened as a video: ",
        script: "cannot be opened as a video: ",
        tmp_path / "empty.mp4": r"is empty \(0 bytes\); copy or download it again",
        sound: "holds sound, but no video; name a photo or a video",
        unknown: "holds a video of a codec that FFmpeg does not know; convert it",
    }.items():
        with pytest.raises(SourceError, match=rf"^\[{path.name}\] {what}") as raised:
            open_source(path)
        assert "\n" not in str(raised.value)


def test_a_codec_without_a_decoder_is_named(tmp_path: Path) -> None:
    path = record(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"vvc1"))
    source, frames = opened(path)
    assert frames == []
    assert "vvc" in source.problems[0] and source.problems[0].startswith("[a.mp4] decoded 0 of 24 frames")


def test_frames_of_too_many_pixels_are_refused(tmp_path: Path) -> None:
    path = record(tmp_path / "a.mp4", size_wh=(320, 240))
    with pytest.raises(SourceError, match=r"\[a.mp4\] has 320x240 pixels, more than max_pixels allows"):
        open_source(path, rule=PixelRule(max_pixels=320 * 239))
    assert len(list(open_source(path, rule=PixelRule(max_pixels=320 * 240)))) == 24
    small = record(tmp_path / "small.ts")
    grown = tmp_path / "grown.ts"
    grown.write_bytes(small.read_bytes() + record(tmp_path / "b.ts", size_wh=(640, 480)).read_bytes())
    source = open_source(grown, rule=PixelRule(max_pixels=320 * 240))
    assert {frame.image.shape for frame in source} == {(60, 80, 3)}
    assert "the file is damaged or cut short" in source.problems[0]


@pytest.mark.parametrize("reader", ["PyAV", "OpenCV"])
def test_names_of_any_bytes(tmp_path: Path, reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reader == "OpenCV":
        monkeypatch.setattr(videos, "load_av", lambda: None)
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)  # noqa: PTH102 - a name of bytes
    path = Path(os.fsdecode(folder + b"/\xff\xfe 1:2%d.mp4"))
    path.write_bytes(record(tmp_path / "a.mp4").read_bytes())
    source, frames = opened(path)
    assert (len(frames), source.problems) == (24, [])
    assert frames[0].name == source.name


def test_a_name_beyond_ascii_in_the_c_locale(tmp_path: Path) -> None:
    path = record(tmp_path / "a.mp4").rename(tmp_path / "schön.mp4")
    code = "import sys; from patchcut import open_source; print(len(list(open_source(sys.argv[1]))))"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "24", done.stderr


def test_a_photo_under_a_video_name_is_one_frame(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(encoded(".png"))
    _, frames = opened(tmp_path / "x.mp4")
    assert [frame.image.shape for frame in frames] == [(60, 80, 3)]


def test_stopping_early_is_no_problem(tmp_path: Path) -> None:
    with open_source(write_video(tmp_path / "x.avi")) as source:
        frames = iter(source)
        next(frames)
        frames.close()
    assert source.problems == []
    assert source.end_s is None


def test_closed_files_are_let_go(tmp_path: Path) -> None:
    """Neither a file read to its end, nor one left in the middle, nor one refused stays open."""
    path = record(tmp_path / "x.mp4")
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(b"hello" * 100)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(20):
        list(open_source(path))
        with open_source(path) as source:
            next(iter(source))
        with pytest.raises(SourceError):
            open_source(noise)
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # noqa: PTH208


def test_real_videos(shared_data: Path) -> None:
    for name, count in (("damaged.avi", 270), ("cars.mp4", 377)):
        with open_source(shared_data / "videos" / name) as source:
            times = [frame.time_s for frame in source]
        assert len(times) == source.total == count
        assert times == sorted(times)
        assert source.problems == []
