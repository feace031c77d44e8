"""Bags go in, answers come out as a bag: through the loop, with rosbags' own reader and writer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import patchcut
import pytest
from patchcut import OptionError, PatchcutError, Segmenter, SourceError
from patchcut.errors import OutputError

pytest.importorskip("rosbags", reason="needs the package rosbags")

from patchcut_ros import bags
from patchcut_ros.bags import answer_bag
from tests.ros.made_messages import (
    MESSAGES,
    compressed,
    header,
    image,
    pixels_of,
    read_bag,
    said_of,
    write_bag,
)

TOPIC = "/camera/image_raw"
SECOND = 10**9


def moving(photo: np.ndarray, n: int = 5) -> Iterator[tuple[str, int, Any]]:
    """n images in which everything moves to the right, a tenth of a second apart; recorded a little later."""
    for i in range(n):
        seen = image(np.roll(photo, 3 * i, axis=1), "bgr8", padding=8, sec=5, nanosec=i * SECOND // 10)
        yield TOPIC, 5 * SECOND + i * SECOND // 10 + 1234, seen


def never(words: str) -> None:
    raise AssertionError(words)


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_answers_are_those_of_the_stream_beside_their_images(
    photo: np.ndarray, seg: Segmenter, tmp_path: Path, storage: str
) -> None:
    recorded = list(moving(photo))
    bag = write_bag(tmp_path / "in", recorded, storage)
    answers = ("labels", "regions", "detections", "overlay")
    assert answer_bag(bag, tmp_path / "out", seg, answers=answers, storage=storage, on_problem=never) == 5
    found = read_bag(tmp_path / "out")
    assert set(found) == {f"/patchcut/{name}" for name in answers}
    for told in found.values():
        assert [time_ns for time_ns, _ in told] == [time_ns for _, time_ns, _ in recorded]
        assert [said_of(one.header) for _, one in told] == [said_of(one.header) for _, _, one in recorded]

    video = patchcut.sources.arrays.FrameSource(
        [np.roll(photo, 3 * i, axis=1) for i in range(5)], kind="stream"
    )
    for i, result in enumerate(seg.results(video)):
        told = {topic.rpartition("/")[2]: one[i][1] for topic, one in found.items()}
        np.testing.assert_array_equal(pixels_of(told["labels"]), result.label_map)
        np.testing.assert_array_equal(pixels_of(told["regions"]), result.region_ids)
        np.testing.assert_array_equal(pixels_of(told["overlay"]), result.overlay())
        assert result.track_ids is not None and len(result) > 0
        assert [one.id for one in told["detections"].detections] == [str(it) for it in result.track_ids]


def test_an_object_keeps_its_id_through_the_bag(tmp_path: Path) -> None:
    """With the default bundle: the cat moves over the picture, and is one detection with one id."""
    cat = patchcut.sources.photos.read_photo(Path(patchcut.__file__).parent / "samples/chelsea.jpg")
    images = [
        (TOPIC, i * SECOND, image(np.ascontiguousarray(cat[:280, 8 * i : 300 + 8 * i]), "bgr8", sec=i))
        for i in range(4)
    ]
    bag = write_bag(tmp_path / "in", images)
    answer_bag(bag, tmp_path / "out", patchcut.load(device="cpu", single=True), on_problem=never)
    told = [message for _, message in read_bag(tmp_path / "out")["/patchcut/detections"]]
    assert [[one.id for one in message.detections] for message in told] == [["1"]] * 4
    assert all(message.detections[0].bbox.size_x > 100 for message in told)


def test_compressed_images_give_what_raw_ones_do(photo: np.ndarray, seg: Segmenter, tmp_path: Path) -> None:
    found = {}
    for name, message in (
        ("raw", image(photo, "bgr8")),
        ("compressed", compressed(photo, ".png", "rgb8; png compressed bgr8")),
    ):
        bag = write_bag(tmp_path / name, [(TOPIC, 1, message)])
        answer_bag(bag, tmp_path / f"{name}-out", seg, on_problem=never)
        found[name] = pixels_of(read_bag(tmp_path / f"{name}-out")["/patchcut/labels"][0][1])
    np.testing.assert_array_equal(found["raw"], found["compressed"])
    assert (found["raw"] > 0).mean() > 0.01


def test_a_bag_of_ros_1(photo: np.ndarray, seg: Segmenter, tmp_path: Path) -> None:
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC)
    kinds = store.types
    numbers = count()
    with Writer(tmp_path / "old.bag") as writer:
        connection = writer.add_connection(TOPIC, "sensor_msgs/msg/Image", typestore=store)
        for _, time_ns, message in moving(photo, 2):
            stamp = message.header.stamp
            old = kinds["std_msgs/msg/Header"](
                seq=next(numbers),
                stamp=kinds["builtin_interfaces/msg/Time"](stamp.sec, stamp.nanosec),
                frame_id="camera",
            )
            data = kinds["sensor_msgs/msg/Image"](**{**vars(message), "header": old})
            writer.write(connection, time_ns, store.serialize_ros1(data, "sensor_msgs/msg/Image"))
    assert answer_bag(tmp_path / "old.bag", tmp_path / "out", seg, on_problem=never) == 2
    told = [said_of(message.header) for _, message in read_bag(tmp_path / "out")["/patchcut/labels"]]
    assert told == [said_of(message.header) for _, _, message in moving(photo, 2)]


def test_images_that_cannot_be_read_are_told_and_left_out(
    photo: np.ndarray, seg: Segmenter, tmp_path: Path
) -> None:
    good = [message for _, _, message in moving(photo, 3)]
    bad = [
        image(photo, "yuv444"),
        image(photo, "bgr8", data=np.zeros(100, np.uint8)),
        image(photo, "bgr8", height=0),
    ]
    mixed = [good[0], bad[0], bad[1], good[1], bad[2], good[2]]
    bag = write_bag(tmp_path / "in", [(TOPIC, i, message) for i, message in enumerate(mixed)])
    told: list[str] = []
    assert answer_bag(bag, tmp_path / "out", seg, on_problem=told.append) == 3
    assert [line.split()[1] for line in told] == ["has"] * 3 and not any("\n" in line for line in told)
    found = read_bag(tmp_path / "out")["/patchcut/labels"]
    assert [time_ns for time_ns, _ in found] == [0, 3, 5]
    assert [said_of(message.header) for _, message in found] == [said_of(one.header) for one in good]


def test_a_message_that_is_damaged_is_left_out(photo: np.ndarray, seg: Segmenter, tmp_path: Path) -> None:
    from rosbags.rosbag2 import Writer

    store, kind = MESSAGES.typestore, "sensor_msgs/msg/Image"
    with Writer(tmp_path / "in", version=9) as writer:
        connection = writer.add_connection(TOPIC, kind, typestore=store)
        for _, time_ns, message in moving(photo, 3):
            data = bytes(store.serialize_cdr(message, kind))
            writer.write(connection, time_ns, data if time_ns % 3 else data[:40])
        writer.write(connection, 7 * SECOND, b"\x00\x01\x00\x00")
    told: list[str] = []
    answered = answer_bag(tmp_path / "in", tmp_path / "out", seg, on_problem=told.append)
    assert answered + len(told) == 4 and told and f"of {TOPIC} is damaged" in told[-1]


def test_a_bag_without_images(seg: Segmenter, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "in", [("/odom", 1, header()), ("/tf", 2, header())])
    with pytest.raises(SourceError, match=r"in\] holds no images; it has /odom, /tf; name a bag"):
        answer_bag(bag, tmp_path / "out", seg, on_problem=never)
    assert not (tmp_path / "out").exists()


def test_the_topic_is_chosen_where_there_are_several(
    photo: np.ndarray, seg: Segmenter, tmp_path: Path
) -> None:
    names = ["/left/image_raw", "/right/image_raw/compressed"]
    messages = [image(photo, "bgr8"), compressed(photo, ".jpg", "jpeg")]
    bag = write_bag(tmp_path / "in", [*zip(names, (1, 2), messages, strict=True), ("/odom", 3, header())])
    for topic in (None, "/odom", "/none"):
        with pytest.raises(
            OptionError, match=r"\[topic\] must be one of /left/image_raw, /right/image_raw/com"
        ):
            answer_bag(bag, tmp_path / "out", seg, topic=topic, on_problem=never)
    assert not (tmp_path / "out").exists()
    assert answer_bag(bag, tmp_path / "out", seg, topic=names[1], on_problem=never) == 1


def test_bags_that_are_none(seg: Segmenter, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.bag").write_text("no bag")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/metadata.yaml").write_text("rosbag2_bagfile_information: [1, 2")
    for name in ("missing", "folder", "text.bag", "broken"):
        with pytest.raises(SourceError) as caught:
            answer_bag(tmp_path / name, tmp_path / "out", seg, on_problem=never)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_no_bag_is_overwritten(photo: np.ndarray, seg: Segmenter, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "in", moving(photo, 1))
    with pytest.raises(OutputError, match="is there already"):
        answer_bag(bag, bag, seg, on_problem=never)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        answer_bag(bag, tmp_path / "file/out", seg, on_problem=never)


def test_without_rosbags_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rosbags.typesys", None)
    with pytest.raises(PatchcutError, match=r"\[rosbags\] cannot be imported .*; pip install rosbags"):
        bags.BagMessages()


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "patchcut_ros", *map(str, words)]
    folder = Path(bags.__file__).parents[1]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def test_the_command(photo: np.ndarray, toy: Path, tmp_path: Path) -> None:
    broken = (TOPIC, 9 * SECOND, image(photo, "nv12"))
    bag = write_bag(tmp_path / "in", [*moving(photo, 2), broken])
    done = run(bag, "--out", tmp_path / "out", "--bundle", toy, "--overlay", "--storage", "mcap")
    assert done.returncode == 1 and done.stdout == ""
    first, last = done.stderr.splitlines()
    assert first.startswith("patchcut: [image] has the encoding 'nv12'")
    assert last == f"patchcut: 2 images answered, 1 not; {tmp_path / 'out'}"
    assert len(read_bag(tmp_path / "out")["/patchcut/overlay"]) == 2


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("none", "--out", "out"), 1, "[none] is not there"),
        (("BAG", "--out", "BAG"), 1, "is there already"),
        (("BAG", "--out", "out", "--topic", "/x"), 2, "[topic] must be one of /camera/image_raw, got /x"),
        (("BAG", "--out", "out", "--storage", "rar"), 2, '[storage] must be one of "sqlite3", "mcap"'),
        (("BAG", "--out", "out", "--mode", "objects"), 2, "[mode] must be one of"),
    ],
)
def test_what_the_command_refuses_is_one_line(
    photo: np.ndarray, toy: Path, tmp_path: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    bag = write_bag(tmp_path / "in", moving(photo, 1))
    done = run(*(bag if word == "BAG" else word for word in words), "--bundle", toy)
    (line,) = done.stderr.splitlines()
    assert done.returncode == status and said in line
