"""Results as messages of ROS: labels, regions, detections with track ids, overlay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from patchcut import Result

# Values that an image of 8 bits can tell apart.
_EIGHT_BITS = 256


class Messages(Protocol):
    """Who has the classes of messages: rclpy's, or those of rosbags."""

    def kind(self, name: str) -> Any:
        """The class of a name such as "sensor_msgs/Image"; called with all of its fields by name."""

    def octets(self, values: npt.NDArray[np.uint8]) -> Any:
        """What a field `uint8[]` takes of values [n]."""


def header_of(header: Any, messages: Messages) -> Any:
    """A header with the same stamp and frame_id.

    Examples:
        >>> header_of(image(np.zeros((1, 1), np.uint8), "mono8").header, messages).frame_id
        'camera'
    """
    stamp = messages.kind("builtin_interfaces/Time")(sec=header.stamp.sec, nanosec=header.stamp.nanosec)
    return messages.kind("std_msgs/Header")(stamp=stamp, frame_id=header.frame_id)


def labels_of(result: Result, header: Any, messages: Messages) -> Any:
    """The label map, 0 is background: an Image mono8, or mono16 of a head with more than 256 labels.

    Examples:
        >>> labels_of(result, header, messages).encoding
        'mono8'
    """
    return _map_of(result.label_map, len(result.labels), header, messages)


def regions_of(result: Result, header: Any, messages: Messages) -> Any:
    """Which region each pixel is of, the i-th of the detections i from 1, 0 none: mono8, or mono16 for many.

    Examples:
        >>> regions_of(result, header, messages).step
        512
    """
    return _map_of(result.region_ids, len(result) + 1, header, messages)


def overlay_of(result: Result, header: Any, messages: Messages) -> Any:
    """The frame with its regions drawn, an Image bgr8 or rgb8 as the frame is.

    Examples:
        >>> overlay_of(result, header, messages).encoding
        'bgr8'
    """
    return image_of(result.overlay(), f"{result.color}8", header, messages)


def detections_of(result: Result, header: Any, messages: Messages) -> Any:
    """The regions as a `vision_msgs/Detection2DArray`, best first.

    Of each: `id` is its track id, "" where it is not tracked; `bbox` its box in pixels, whose edges lie
    between pixels, so that pixel 0 reaches from 0 to 1; one hypothesis with the name of its label as
    `class_id`, and its score. The hypothesis' pose is not filled in.

    Examples:
        >>> len(detections_of(result, header, messages).detections) == len(result)
        True
    """
    own = header_of(header, messages)
    detections = [_detection(result, i, own, messages) for i in range(len(result))]
    return messages.kind("vision_msgs/Detection2DArray")(header=own, detections=detections)


def image_of(pixels: npt.NDArray[Any], encoding: str, header: Any, messages: Messages) -> Any:
    """An Image of pixels [H, W] or [H, W, C], uint8 or uint16, without padding, little-endian.

    Examples:
        >>> image_of(np.zeros((2, 3), np.uint16), "mono16", header, messages).step
        6
    """
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).view(np.uint8)
    return messages.kind("sensor_msgs/Image")(
        header=header_of(header, messages),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=rows.size // height,
        data=messages.octets(rows.reshape(-1)),
    )


class Answer(NamedTuple):
    """A kind of message that results become.

    Attributes:
        kind: its class' name.
        make: from a result and the header of its image.
    """

    kind: str
    make: Callable[[Result, Any, Messages], Any]


ANSWERS: dict[str, Answer] = {
    "labels": Answer("sensor_msgs/Image", labels_of),
    "regions": Answer("sensor_msgs/Image", regions_of),
    "detections": Answer("vision_msgs/Detection2DArray", detections_of),
    "overlay": Answer("sensor_msgs/Image", overlay_of),
}


def _map_of(values: npt.NDArray[np.int32], count: int, header: Any, messages: Messages) -> Any:
    """Whole numbers below `count` as an Image."""
    if count <= _EIGHT_BITS:
        return image_of(values.astype(np.uint8), "mono8", header, messages)
    return image_of(values.astype(np.uint16), "mono16", header, messages)


def _detection(result: Result, i: int, header: Any, messages: Messages) -> Any:
    kind = messages.kind
    x0, y0, x1, y1 = (float(side) for side in result.boxes[i])
    middle = kind("vision_msgs/Point2D")(x=(x0 + x1) / 2, y=(y0 + y1) / 2)
    track_id = 0 if result.track_ids is None else int(result.track_ids[i])
    hypothesis = kind("vision_msgs/ObjectHypothesis")(
        class_id=result.labels[result.region_labels[i]], score=float(result.scores[i])
    )
    return kind("vision_msgs/Detection2D")(
        header=header,
        results=[
            kind("vision_msgs/ObjectHypothesisWithPose")(hypothesis=hypothesis, pose=_no_pose(messages))
        ],
        bbox=kind("vision_msgs/BoundingBox2D")(
            center=kind("vision_msgs/Pose2D")(position=middle, theta=0.0), size_x=x1 - x0, size_y=y1 - y0
        ),
        id=str(track_id) if track_id else "",
    )


def _no_pose(messages: Messages) -> Any:
    kind = messages.kind
    pose = kind("geometry_msgs/Pose")(
        position=kind("geometry_msgs/Point")(x=0.0, y=0.0, z=0.0),
        orientation=kind("geometry_msgs/Quaternion")(x=0.0, y=0.0, z=0.0, w=1.0),
    )
    return kind("geometry_msgs/PoseWithCovariance")(pose=pose, covariance=np.zeros(36))
