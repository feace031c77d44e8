"""Bags without ROS: images of one are answered into another. Needs the package rosbags."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from patchcut import OptionError, PatchcutError, Result, Segmenter, SourceError, StreamOptions
from patchcut.checks import check_choice
from patchcut.errors import OutputError

from patchcut_ros.loop import RECORDED, Arrived, Images, Loop, Origin
from patchcut_ros.messages import ANSWERS

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader
    from rosbags.interfaces import Connection
    from rosbags.rosbag2 import Writer

STORAGES = ("sqlite3", "mcap")
_IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")

# Of vision_msgs 4, of ROS 2 Humble and later, which rosbags does not bring.
_VISION_MSGS = {
    "Point2D": "float64 x\nfloat64 y",
    "Pose2D": "vision_msgs/Point2D position\nfloat64 theta",
    "BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y",
    "ObjectHypothesis": "string class_id\nfloat64 score",
    "ObjectHypothesisWithPose": "vision_msgs/ObjectHypothesis hypothesis\n"
    "geometry_msgs/PoseWithCovariance pose",
    "Detection2D": "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
    "vision_msgs/BoundingBox2D bbox\nstring id",
    "Detection2DArray": "std_msgs/Header header\nvision_msgs/Detection2D[] detections",
}


class BagMessages:
    """The classes of messages that rosbags has, and those of vision_msgs; a `Messages`.

    Attributes:
        typestore: rosbags', which writes and reads them.
    Raises:
        PatchcutError: "[rosbags] cannot be imported (...); pip install rosbags".
    Examples:
        >>> BagMessages().kind("std_msgs/Header").__msgtype__
        'std_msgs/msg/Header'
    """

    def __init__(self) -> None:
        try:
            from rosbags.typesys import Stores, get_types_from_msg, get_typestore
        except ImportError as error:
            raise PatchcutError("rosbags", f"cannot be imported ({error})", "pip install rosbags") from error
        self.typestore = get_typestore(Stores.ROS2_HUMBLE)
        for name, text in _VISION_MSGS.items():
            self.typestore.register(get_types_from_msg(text, f"vision_msgs/msg/{name}"))

    def kind(self, name: str) -> Any:
        return self.typestore.types[full_name(name)]

    def octets(self, values: npt.NDArray[np.uint8]) -> Any:
        return values


def full_name(name: str) -> str:
    """The name that bags have of a class.

    Examples:
        >>> full_name("sensor_msgs/Image")
        'sensor_msgs/msg/Image'
    """
    return name.replace("/", "/msg/")


def answer_bag(
    bag: Path,
    out: Path,
    segmenter: Segmenter,
    *,
    topic: str | None = None,
    answers: tuple[str, ...] = ("labels", "regions", "detections"),
    storage: str = "sqlite3",
    stream: StreamOptions = RECORDED,
    on_problem: Callable[[str], None],
    on_result: Callable[[Origin, Result], None] = lambda origin, result: None,
) -> int:
    """How many images of a bag were answered; the answers are in a new bag.

    Every image is answered, in order. Answers have the header of their image and the time at which that was
    recorded, so that the two bags can be played together; their topics are /patchcut/labels and so on.

    Args:
        bag: a bag of ROS 2 (a folder) or of ROS 1 (a file .bag).
        out: the folder to make.
        topic: of the images; None where the bag has one such topic.
        answers: names of `ANSWERS`.
        storage: "sqlite3" or "mcap".
        stream: how images become results.
        on_problem: called with one line for each image that cannot be read.
        on_result: called after each image.
    Raises:
        PatchcutError: rosbags is missing.
        SourceError: there is no bag, it is damaged, or holds no images.
        OptionError: `topic` is none of images, or is not said where there are several.
        OutputError: `out` is there already, or cannot be written.
    Examples:
        >>> answer_bag(bag, folder / "answers", seg, on_problem=print)
        2
    """
    messages = BagMessages()
    check_choice("storage", storage, STORAGES)
    answered = 0

    def count(origin: Origin, result: Result) -> None:
        nonlocal answered
        answered += 1
        on_result(origin, result)

    with _open_bag(bag, messages) as reader:
        connections = _connections_of(reader, bag, topic)
        with _make_bag(out, storage) as writer:
            arrived = _arrived(reader, connections, on_problem)
            Loop(
                segmenter=segmenter,
                images=Images(arrived, on_problem, segmenter.settings.pixel_rule),
                stream=stream,
                messages=messages,
                outputs={name: _Written(writer, messages, name) for name in answers},
                on_result=count,
            ).run()
    return answered


class _Written:
    """Puts one kind of answer into a bag; an `Output`."""

    def __init__(self, writer: Writer, messages: BagMessages, name: str) -> None:
        self._writer, self._typestore = writer, messages.typestore
        self._kind = full_name(ANSWERS[name].kind)
        self._connection = writer.add_connection(
            f"/patchcut/{name}", self._kind, typestore=messages.typestore
        )

    def is_wanted(self) -> bool:
        return True

    def put(self, message: Any, origin: Origin) -> None:
        data = self._typestore.serialize_cdr(message, self._kind)
        try:
            self._writer.write(self._connection, origin.time_ns, data)
        except Exception as error:  # of whatever database the storage is
            what = f"cannot be written: {error}"
            raise OutputError(str(self._writer.path), what, "make room, or choose another folder") from error


@contextmanager
def _open_bag(bag: Path, messages: BagMessages) -> Iterator[AnyReader]:
    from rosbags.highlevel import AnyReader

    try:
        reader = AnyReader([bag], default_typestore=messages.typestore)
        reader.open()
    except FileNotFoundError as error:
        raise SourceError(str(bag), "is not there", "check the path") from error
    except Exception as error:  # rosbags lets through what its readers of files raise
        what = f"is no bag that rosbags reads: {error}"
        raise SourceError(str(bag), what, "ros2 bag info tells more") from error
    with closing(reader):
        yield reader


def _connections_of(reader: AnyReader, bag: Path, topic: str | None) -> list[Connection]:
    """Those of the topic whose images are answered."""
    of_images = [one for one in reader.connections if one.msgtype in _IMAGES and one.msgcount]
    topics = sorted({one.topic for one in of_images})
    if not topics:
        there = ", ".join(sorted({one.topic for one in reader.connections})) or "nothing"
        raise SourceError(str(bag), f"holds no images; it has {there}", "name a bag of a camera")
    if topic is None and len(topics) > 1:
        raise OptionError("topic", f"must be one of {', '.join(topics)}, which the bag has", "name one")
    wanted = topics[0] if topic is None else topic
    if wanted not in topics:
        raise OptionError("topic", f"must be one of {', '.join(topics)}, got {wanted}")
    return [one for one in of_images if one.topic == wanted]


def _arrived(
    reader: AnyReader, connections: list[Connection], on_problem: Callable[[str], None]
) -> Iterator[Arrived]:
    """The images of a bag; one that is damaged is told and left out, and so is what follows a broken page."""
    index = 0
    recorded = reader.messages(connections)
    while True:
        try:
            connection, time_ns, data = next(recorded)
        except StopIteration:
            return
        except Exception as error:  # whatever the storage raises
            on_problem(str(SourceError("bag", f"is damaged from here on: {error}", "copy it again")))
            return
        try:
            message = reader.deserialize(data, connection.msgtype)
        except Exception as error:
            what = f"{index} of {connection.topic} is damaged: {error}"
            on_problem(str(SourceError("image", what, "check who recorded it")))
        else:
            yield Arrived(index, message, time_ns)
        index += 1


@contextmanager
def _make_bag(out: Path, storage: str) -> Iterator[Writer]:
    from rosbags.rosbag2 import StoragePlugin, Writer

    if out.exists():
        raise OutputError(str(out), "is there already", "name a folder that is not")
    writer = Writer(out, version=9, storage_plugin=StoragePlugin[storage.upper()])
    try:
        writer.open()
    except OSError as error:
        what = f"cannot be made: {error.strerror or error}"
        raise OutputError(str(out), what, "choose another folder") from error
    with closing(writer):
        yield writer
