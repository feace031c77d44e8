"""Messages and bags that tests make, of rosbags' own classes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from patchcut_ros.bags import BagMessages

MESSAGES = BagMessages()


def header(sec: int = 0, nanosec: int = 0, frame_id: str = "camera") -> Any:
    stamp = MESSAGES.kind("builtin_interfaces/Time")(sec=sec, nanosec=nanosec)
    return MESSAGES.kind("std_msgs/Header")(stamp=stamp, frame_id=frame_id)


def said_of(header: Any) -> tuple[int, int, str]:
    """What a header says: those of two bags are of two classes."""
    return header.stamp.sec, header.stamp.nanosec, header.frame_id


def image(
    pixels: np.ndarray,
    encoding: str,
    *,
    padding: int = 0,
    big_endian: bool = False,
    sec: int = 0,
    nanosec: int = 0,
    **fields: Any,
) -> Any:
    """A `sensor_msgs/Image` of pixels [H, W] or [H, W, C], with `padding` bytes of rubbish after each row."""
    height, width = pixels.shape[:2]
    stored = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">" if big_endian else "<"))
    rows = stored.view(np.uint8).reshape(height, -1)
    rubbish = np.random.default_rng(0).integers(0, 256, (height, padding), np.uint8)
    said = {
        "header": header(sec, nanosec),
        "height": height,
        "width": width,
        "encoding": encoding,
        "is_bigendian": int(big_endian),
        "step": rows.shape[1] + padding,
        "data": np.hstack([rows, rubbish]).reshape(-1),
    }
    return MESSAGES.kind("sensor_msgs/Image")(**{**said, **fields})


def compressed(bgr: np.ndarray, suffix: str, described: str, **stamp: Any) -> Any:
    """A `sensor_msgs/CompressedImage`: what OpenCV writes of an image."""
    _, data = cv2.imencode(suffix, bgr)
    return MESSAGES.kind("sensor_msgs/CompressedImage")(header=header(**stamp), format=described, data=data)


def write_bag(
    path: Path, messages: Iterable[tuple[str, int, Any]], storage: str = "sqlite3", *, version: int = 9
) -> Path:
    """A bag of ROS 2 with messages: topic, time in ns, message."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    connections: dict[str, Any] = {}
    with Writer(path, version=version, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        for topic, time_ns, message in messages:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=MESSAGES.typestore)
            writer.write(connections[topic], time_ns, MESSAGES.typestore.serialize_cdr(message, kind))
    return path


def read_bag(path: Path) -> dict[str, list[tuple[int, Any]]]:
    """Times and messages of a bag by their topics; only what the bag itself says of its types is used."""
    from rosbags.highlevel import AnyReader

    found: dict[str, list[tuple[int, Any]]] = {}
    with AnyReader([path]) as reader:
        for connection, time_ns, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            found.setdefault(connection.topic, []).append((time_ns, message))
    return found


def pixels_of(message: Any) -> np.ndarray:
    """[H, W] or [H, W, 3] of an Image that patchcut made."""
    dtype = np.dtype("<u2") if message.encoding == "mono16" else np.dtype(np.uint8)
    shape = (message.height, message.width) + (() if message.encoding.startswith("mono") else (3,))
    assert message.step * message.height == len(message.data)
    return np.frombuffer(bytes(message.data), dtype).reshape(shape)
