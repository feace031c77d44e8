from __future__ import annotations

import os
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from patchcut.errors import OptionError, SourceError
from patchcut.frames import Frame
from patchcut.sources import Source, open_source, videos
from patchcut.sources.photos import is_whole, read_photo
from patchcut.sources.videos import without_password
from PIL import Image


def picture(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    """[H, W, 3] uint8: smooth blobs, so that every codec keeps them and no two seeds look alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height))


def encoded(suffix: str, image: np.ndarray | None = None, *params: int) -> bytes:
    ok, data = cv2.imencode(suffix, picture() if image is None else image, params)
    assert ok
    return data.tobytes()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_exif(jpeg: bytes, orientation: int, thumbnail: bytes = b"") -> bytes:
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"II*\x00" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    body = b"Exif\x00\x00" + tiff + thumbnail
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def write_video(path: Path, frames: int = 30, codec: str = "MJPG", fps: float = 10.0) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (80, 60))
    assert writer.isOpened()
    for seed in range(frames):
        writer.write(picture(seed=seed))
    writer.release()
    return path


def names(source: Source) -> list[str]:
    return [frame.name for frame in source]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good photos at two depths; one cut short, one empty, one text; two that are not to be seen."""
    (tmp_path / "b").mkdir()
    (tmp_path / "img10.jpg").write_bytes(encoded(".jpg"))
    (tmp_path / "img2.JPG").write_bytes(encoded(".jpg"))
    (tmp_path / "b" / "übung [1].png").write_bytes(encoded(".png"))
    (tmp_path / "cut.jpg").write_bytes(encoded(".jpg")[:-200])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / ".hidden.jpg").write_text("hello")
    return tmp_path


def test_photo(tmp_path: Path) -> None:
    (tmp_path / "é.png").write_bytes(encoded(".png"))
    with open_source(tmp_path / "é.png") as source:
        (frame,) = source
    assert (source.kind, source.total, source.problems) == ("images", 1, [])
    assert (frame.name, frame.index, frame.color, frame.time_s) == ("é.png", 0, "bgr", None)
    np.testing.assert_array_equal(frame.image, picture())


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(picture()[..., 0], id="grey"),
        pytest.param(np.dstack([picture(), picture()[..., :1]]), id="alpha"),
        pytest.param(picture().astype(np.uint16) * 257, id="16 bits"),
    ],
)
def test_other_pixels_become_bgr(tmp_path: Path, image: np.ndarray) -> None:
    (tmp_path / "x.png").write_bytes(encoded(".png", image))
    read = read_photo(tmp_path / "x.png")
    assert (read.shape, read.dtype) == ((60, 80, 3), np.uint8)
    channel = picture()[..., 0]
    assert np.abs(read[..., 0].astype(int) - channel).max() <= 1


def test_exif_turns_the_photo(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(with_exif(encoded(".jpg"), orientation=6))
    read = read_photo(tmp_path / "x.jpg")
    assert read.shape == (80, 60, 3)
    assert np.abs(read.astype(int) - np.rot90(picture(), -1)).mean() < 5
    stored = read_photo(tmp_path / "x.jpg", upright=False)
    assert np.abs(stored.astype(int) - picture()).mean() < 5


@pytest.mark.parametrize(
    "params", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)]
)
def test_jpeg_is_whole_until_its_end_is_cut(params: tuple[int, ...]) -> None:
    jpeg = encoded(".jpg", picture(240, 320), *params)
    assert is_whole(jpeg)
    assert is_whole(jpeg + b"\x00trailing bytes of a phone")
    assert not any(is_whole(jpeg[:length]) for length in range(3, len(jpeg), 7))
    assert not is_whole(jpeg[: len(jpeg) // 2] + bytes(len(jpeg) // 2))


def test_thumbnail_does_not_make_a_jpeg_whole() -> None:
    jpeg = with_exif(encoded(".jpg"), 1, thumbnail=encoded(".jpg", picture(12, 16)))
    assert is_whole(jpeg)
    assert not is_whole(jpeg[:-100])


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_other_formats_are_whole_until_cut(suffix: str) -> None:
    data = encoded(suffix)
    assert is_whole(data)
    assert not any(is_whole(data[:length]) for length in range(12, len(data), 5))


def test_folder_in_natural_order_with_a_line_for_each_bad_file(folder: Path) -> None:
    source = open_source(str(folder))
    assert source.total == 6
    assert names(source) == ["b/übung [1].png", "img2.JPG", "img10.jpg"]
    assert source.problems == [
        "[cut.jpg] is cut short: its end is missing; copy or download it again",
        "[empty.png] is empty (0 bytes); copy or download it again",
        "[text.jpg] is not an image that OpenCV reads; convert it to JPEG or PNG",
    ]


def test_unreadable_photo_is_a_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    source = open_source(folder)
    assert names(source) == []
    assert source.problems[0] == "[b/übung [1].png] cannot be read: Permission denied; check the file"


def test_decompression_bomb_is_a_line(tmp_path: Path) -> None:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    bomb = b"\x89PNG\r\n\x1a\n" + header + pixels + png_chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(
        SourceError, match=r"bomb.png\] has more pixels than OpenCV's safety limit; scale it down"
    ):
        open_source(tmp_path / "bomb.png")


def test_phone_picture_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.heic").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(40))
    with pytest.raises(SourceError, match="is a HEIC file, which this OpenCV does not decode; convert it"):
        open_source(tmp_path / "x.heic")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("missing.jpg", r"\[missing.jpg\] does not exist; check the name"),
        ("", r"\[source\] is an empty text"),
        ("*.gif", r"\[\*.gif\] matches no file"),
        ("*.txt", r"\[notes.txt\] is neither an image nor a video"),
        ("notes.txt", r"\[notes.txt\] is neither an image nor a video"),
        ("text.jpg", r"\[text.jpg\] is not an image"),
        ("cut.jpg", r"\[cut.jpg\] is cut short"),
        ("empty.mp4", r"\[empty.mp4\] is empty"),
        ("broken.mp4", r"\[broken.mp4\] cannot be opened as a video"),
        ("bare", r"\[bare\] holds no photos; photos end in .avif"),
        ("films", r"\[films\] holds no photos; name a video by itself, such as films/x.mp4"),
        ("997", r"\[camera 997\] cannot be opened"),
        ("/dev/null", r"\[/dev/null\] is neither a file nor a folder"),
        ("x" * 5000, "File name too long"),
        ("rtsp://me:secret@127.0.0.1:1/x", r"\[rtsp://me@127.0.0.1:1/x\] cannot be opened"),
    ],
)
def test_hopeless_source_is_refused_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(folder)
    Path("bare").mkdir()
    Path("films").mkdir()
    Path("films/x.mp4").write_bytes(b"")
    Path("empty.mp4").write_bytes(b"")
    Path("broken.mp4").write_bytes(os.urandom(1000))
    with pytest.raises(SourceError, match=message) as raised:
        open_source(text)
    assert "\n" not in str(raised.value)


def test_password_is_left_out() -> None:
    assert without_password("rtsp://me:pass@host:554/a@b:c") == "rtsp://me@host:554/a@b:c"
    assert without_password("http://host:80/x") == "http://host:80/x"


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


def test_a_name_of_digits_is_a_path_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2024").mkdir()
    (tmp_path / "2024" / "x.png").write_bytes(encoded(".png"))
    assert names(open_source("2024")) == ["x.png"]
    with pytest.raises(SourceError, match=r"\[camera 2025\] cannot be opened"):
        open_source("2025")


def test_an_iterable_of_paths_is_photos(folder: Path) -> None:
    source = open_source(path for path in (folder / "img2.JPG", str(folder / "cut.jpg"), picture()))
    frames = list(source)
    assert [(frame.name, frame.index) for frame in frames] == [(f"{folder}/img2.JPG", 0), ("", 2)]
    assert frames[0].image.shape == (60, 80, 3)
    assert source.problems == [
        f"[{folder}/cut.jpg] is cut short: its end is missing; copy or download it again"
    ]


@pytest.mark.parametrize(("every", "indices"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (9, [0])])
def test_every(tmp_path: Path, every: int, indices: list[int]) -> None:
    video = open_source(write_video(tmp_path / "x.avi", frames=5), every=every)
    assert [frame.index for frame in video] == indices
    assert video.total == len(indices)
    arrays = open_source([picture(seed=seed) for seed in range(5)], every=every)
    assert [frame.index for frame in arrays] == indices
    assert arrays.total == len(indices)


@pytest.mark.parametrize("every", [0, -1, True, 1.5])
def test_every_must_be_a_count(every: object) -> None:
    with pytest.raises(OptionError, match=r"\[every\] must be a whole number from 1"):
        open_source([], every=every)


@pytest.mark.parametrize(("suffix", "codec"), [(".avi", "MJPG"), (".mp4", "mp4v")])
def test_video(tmp_path: Path, suffix: str, codec: str) -> None:
    with open_source(write_video(tmp_path / f"a:b{suffix}", codec=codec)) as source:
        frames = list(source)
    assert (source.kind, source.total, source.problems) == ("video", 30, [])
    assert source.fps == pytest.approx(10.0)
    assert [frame.index for frame in frames] == list(range(30))
    assert np.allclose([frame.time_s for frame in frames], np.arange(30) / 10, atol=1e-3)
    assert np.abs(frames[7].image.astype(int) - picture(seed=7)).mean() < 12


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


def test_failed_reads_inside_a_video_do_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = range(5, 12)

    class Gappy:
        """A capture that fails in the middle and goes on, as H.264 does where its packets are damaged."""

        def __init__(self, capture: cv2.VideoCapture) -> None:
            self._capture = capture
            self._index = -1

        def read(self) -> tuple[bool, np.ndarray | None]:
            self._index += 1
            ok, image = self._capture.read()
            return (False, None) if self._index in lost else (ok, image)

        def __getattr__(self, name: str) -> object:
            return getattr(self._capture, name)

    source = open_source(write_video(tmp_path / "x.avi", frames=20))
    monkeypatch.setattr(source, "_capture", Gappy(source._capture))
    assert [frame.index for frame in source] == [i for i in range(20) if i not in lost]
    assert "decoded 13 of 20 frames" in source.problems[0]


def test_cut_video_gives_what_it_has(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.avi", frames=60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(path)
    count = len(list(source))
    assert 20 < count < 40
    assert f"decoded {count} of 60 frames" in source.problems[0]


def test_stopping_early_is_no_problem(tmp_path: Path) -> None:
    with open_source(write_video(tmp_path / "x.avi")) as source:
        frames = iter(source)
        next(frames)
        frames.close()
    assert source.problems == []


def test_real_videos(shared_data: Path) -> None:
    for name, count in (("damaged.avi", 270), ("cars.mp4", 377)):
        with open_source(shared_data / "videos" / name) as source:
            times = [frame.time_s for frame in source]
        assert len(times) == source.total == count
        assert times == sorted(times)
        assert source.problems == []


def test_arrays_and_pil_images() -> None:
    items = [picture(), np.zeros((4, 4), np.uint8), None, Image.fromarray(picture())]
    source = open_source(iter(items), color="rgb")
    frames = list(source)
    assert (source.kind, source.total) == ("frames", None)
    assert [(frame.index, frame.color) for frame in frames] == [(0, "rgb"), (3, "rgb")]
    assert frames[0].image is items[0]
    assert source.problems[0].startswith("[frame 1] must be [H, W, 3] uint8, got [4, 4] uint8 (grey)")
    assert source.problems[1].startswith("[frame 2] got None")


def test_one_frame_is_not_taken_for_its_rows() -> None:
    assert len(list(open_source(picture()))) == 1
    assert len(list(open_source(Image.fromarray(picture())))) == 1
    assert len(list(open_source(np.stack([picture(), picture()])))) == 2
    frame = Frame(picture(), name="mine", index=7)
    assert list(open_source(frame)) == [frame]
    assert list(open_source([])) == []


@pytest.mark.parametrize("source", [None, 1.5, b"photo.jpg", True])
def test_what_is_no_source(source: object) -> None:
    with pytest.raises(SourceError, match="cannot read frames from"):
        open_source(source)


def test_open_source_is_handed_through(folder: Path) -> None:
    source = open_source(folder)
    assert open_source(source) is source
    with pytest.raises(OptionError, match=r"\[every\] must be given where .* is opened, got 2 afterwards"):
        open_source(source, every=2)


class FakeCapture:
    """A capture that answers `grab` as often as `send` allows; frame i is filled with i."""

    def __init__(self, count: int = 0) -> None:
        self.count = count
        self.asked = self.sent = self.released = 0
        self._sent = threading.Semaphore(0)
        self._ended = False

    def send(self, frames: int) -> None:
        """Let so many more frames come, and wait until all have been read and another is asked for."""
        self.sent += frames
        for _ in range(frames):
            self._sent.release()
        deadline = time.monotonic() + 10
        while self.asked <= self.sent and time.monotonic() < deadline:
            time.sleep(0.001)

    def end(self) -> None:
        self._ended = True
        self._sent.release()

    def isOpened(self) -> bool:
        return True

    def get(self, what: int) -> float:
        return {cv2.CAP_PROP_FPS: 30.0, cv2.CAP_PROP_FRAME_COUNT: float(self.count)}.get(what, 0.0)

    def set(self, what: int, value: float) -> bool:
        return True

    def grab(self) -> bool:
        self.asked += 1
        self._sent.acquire()
        return not self._ended

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.full((2, 2, 3), self.asked - 1, np.uint8)

    def release(self) -> None:
        self.released += 1
        self._ended = True
        self._sent.release()


def live(monkeypatch: pytest.MonkeyPatch, capture: FakeCapture, every: int = 1) -> Source:
    monkeypatch.setattr(videos, "_open_camera", lambda index: capture)
    return open_source(0, every=every)


def live_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "patchcut-live"]


def test_a_slow_reader_of_a_live_source_gets_the_newest_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = FakeCapture()
    with live(monkeypatch, capture) as source:
        frames = iter(source)
        threading.Timer(0.05, capture.send, [1]).start()
        assert next(frames).index == 0
        capture.send(5)
        newest = next(frames)
        assert (newest.index, newest.image[0, 0, 0], source.live, source.dropped) == (5, 5, True, 4)
        capture.send(1)
        assert next(frames).index == 6
        capture.end()
        assert list(frames) == []
    assert source.dropped == 4
    assert source.problems[0].startswith("[camera 0] stopped sending after 7 frames")
    assert capture.released and not live_threads()


def test_every_counts_the_frames_of_a_live_source(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = FakeCapture()
    with live(monkeypatch, capture, every=3) as source:
        frames = iter(source)
        threading.Timer(0.05, capture.send, [1]).start()
        assert next(frames).index == 0
        capture.send(7)
        assert (next(frames).index, source.dropped) == (6, 1)
        capture.end()


@pytest.mark.parametrize("how", ["close", "break", "never started"])
def test_a_live_source_stops_its_thread(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    capture = FakeCapture()
    source = live(monkeypatch, capture)
    frames = iter(source)
    if how != "never started":
        threading.Timer(0.05, capture.send, [1]).start()
        next(frames)
        threading.Timer(0.05, capture.send, [1]).start()  # the read that it waits in ends
    if how == "break":
        frames.close()  # type: ignore[attr-defined]
    source.close()
    source.close()
    assert capture.released and not live_threads()
    assert source.problems == []


def test_what_a_live_source_raises_reaches_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = FakeCapture()
    monkeypatch.setattr(capture, "grab", lambda: 1 / 0)
    with live(monkeypatch, capture) as source, pytest.raises(ZeroDivisionError):
        list(source)
    assert capture.released and not live_threads()


def test_a_recording_behind_an_address_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = FakeCapture(count=4)
    for _ in range(4):
        capture._sent.release()
    monkeypatch.setattr(videos, "_open_stream", lambda url: capture)
    threading.Timer(0.2, capture.end).start()
    with open_source("http://host/x.mp4") as source:
        assert [frame.index for frame in source] == [0, 1, 2, 3]
    assert (source.live, source.dropped, source.total, source.problems) == (False, 0, 4, [])
