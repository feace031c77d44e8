"""Images of ROS as frames: what `sensor_msgs/Image` and `sensor_msgs/CompressedImage` hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from patchcut import Frame
from patchcut.checks import shown
from patchcut.errors import FrameError, SourceError
from patchcut.frames import as_frame
from patchcut.opencv import load_cv2
from patchcut.pixels import AS_IT_COMES, PixelRule
from patchcut.settings import ColorOrder
from patchcut.sources.photos import decode_photo

_Kind = Literal["grey", "colour", "yuv", "bayer"]

# The smallest mosaic that has a whole pixel inside its border.
_LEAST_MOSAIC = 3


@dataclass(frozen=True)
class _Layout:
    """How pixels of an encoding lie.

    Attributes:
        kind: what they are made of.
        channels: values of a pixel.
        bytes: of a value.
        order: of the first three channels; of a mosaic or of YUV, that of what it is converted to.
        conversion: OpenCV's name of that, "" where there is none.
    """

    kind: _Kind
    channels: int
    bytes: int = 1
    order: ColorOrder = "bgr"
    conversion: str = ""


def _mosaics() -> dict[str, _Layout]:
    """Encodings such as bayer_rggb8, which name the first two rows' colours as OpenCV does."""
    return {
        f"bayer_{pattern}{bits}": _Layout("bayer", 1, bits // 8, conversion=f"Bayer{pattern.upper()}2BGR")
        for pattern in ("rggb", "bggr", "gbrg", "grbg")
        for bits in (8, 16)
    }


_UYVY, _YUYV = (_Layout("yuv", 2, conversion=f"YUV2BGR_{name}") for name in ("UYVY", "YUY2"))

# Of sensor_msgs/image_encodings.hpp.
_LAYOUTS: dict[str, _Layout] = {
    "rgb8": _Layout("colour", 3, order="rgb"),
    "bgr8": _Layout("colour", 3),
    "rgba8": _Layout("colour", 4, order="rgb"),
    "bgra8": _Layout("colour", 4),
    "rgb16": _Layout("colour", 3, 2, order="rgb"),
    "bgr16": _Layout("colour", 3, 2),
    "rgba16": _Layout("colour", 4, 2, order="rgb"),
    "bgra16": _Layout("colour", 4, 2),
    "mono8": _Layout("grey", 1),
    "mono16": _Layout("grey", 1, 2),
    "8UC1": _Layout("grey", 1),
    "8UC3": _Layout("colour", 3),
    "8UC4": _Layout("colour", 4),
    "16UC1": _Layout("grey", 1, 2),
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUYV,
    "yuyv": _YUYV,
    **_mosaics(),
}
ENCODINGS = tuple(_LAYOUTS)


def frame_of(message: Any, index: int = 0, rule: PixelRule = AS_IT_COMES) -> Frame:
    """The frame that a message holds, with its stamp as `time_s` and its frame_id as `name`.

    Args:
        message: a `sensor_msgs/Image` of one of `ENCODINGS`, or a `sensor_msgs/CompressedImage` of any
            picture file that patchcut reads; of rclpy, rosbags, or anything with the same attributes.
        index: of the frame.
        rule: how values of 16 bits are read, and how many pixels there may be.
    Returns:
        Of rgb8 and bgr8, and their kin with alpha, a view of the message's own memory; else a copy. The alpha
        of an Image is left out: what cameras and simulators put there says nothing of what can be seen. A
        compressed image is not turned by its EXIF: camera_info is about the pixels as they are stored.
    Raises:
        FrameError: "[image] has 2 bytes, and step * height are 1,920; check who publishes it": it holds less
            than it says, has no pixels, or too many, or an encoding that is not known.
    Examples:
        >>> message = image(np.zeros((2, 4, 3), np.uint8), "rgb8")
        >>> frame_of(message).image.shape, frame_of(message).color
        ((2, 4, 3), 'rgb')
    """
    frame = _decoded(message, rule) if hasattr(message, "format") else _laid_out(message, rule)
    stamp = message.header.stamp
    return Frame(
        frame.image,
        frame.color,
        name=str(message.header.frame_id),
        index=index,
        time_s=stamp.sec + 1e-9 * stamp.nanosec,
        visible=frame.visible,
        notes=frame.notes,
    )


def _laid_out(message: Any, rule: PixelRule) -> Frame:
    """The pixels of an Image."""
    layout = _layout_of(message, rule)
    height, width, step = int(message.height), int(message.width), int(message.step)
    data = np.frombuffer(message.data, np.uint8)
    if data.size < step * height:
        what = f"has {data.size:,} bytes, and step * height are {step * height:,}"
        raise FrameError("image", what, _ASK_SENDER)
    dtype = np.dtype(f"{'>' if message.is_bigendian else '<'}u{layout.bytes}")
    values = np.ndarray(
        (height, width, layout.channels),
        dtype,
        data,
        strides=(step, layout.channels * layout.bytes, layout.bytes),
    ).astype(f"u{layout.bytes}", copy=False)  # the machine's own order of bytes
    if layout.conversion:
        cv2 = load_cv2()
        code = getattr(cv2, f"COLOR_{layout.conversion}")
        values = cv2.cvtColor(np.ascontiguousarray(values), code)
    return as_frame(values[..., :3], layout.order, rule)


def _layout_of(message: Any, rule: PixelRule) -> _Layout:
    """How the pixels of an Image lie.

    Raises:
        FrameError: it is of no known encoding, or its numbers do not fit that.
    """
    encoding, height, width = str(message.encoding), int(message.height), int(message.width)
    layout = _LAYOUTS.get(encoding)
    if layout is None:
        what = f"has the encoding {shown(encoding)}, which is none of {', '.join(ENCODINGS)}"
        raise FrameError("image", what, "have the camera send one of these, or convert it")
    if height < 1 or width < 1:
        raise FrameError("image", f"has {width}x{height} pixels", _ASK_SENDER)
    if wrong := rule.too_large(height, width):
        raise FrameError("image", *wrong)
    row = width * layout.channels * layout.bytes
    if message.step < row:
        what = f"has a step of {message.step} bytes, and a row of {width} pixels {encoding} has {row}"
        raise FrameError("image", what, _ASK_SENDER)
    if layout.kind == "yuv" and width % 2:
        raise FrameError("image", f"is {width} pixels wide, and {encoding} comes in pairs", _ASK_SENDER)
    if layout.kind == "bayer" and min(height, width) < _LEAST_MOSAIC:
        what = f"has {width}x{height} pixels, and a mosaic at least {_LEAST_MOSAIC}x{_LEAST_MOSAIC}"
        raise FrameError("image", what, _ASK_SENDER)
    return layout


_ASK_SENDER = "check who publishes it"


def _decoded(message: Any, rule: PixelRule) -> Frame:
    """The pixels of a CompressedImage."""
    described = str(message.format)
    if "compresseddepth" in described.lower():
        what = f"is of the format {shown(described)}: distances, no picture"
        raise FrameError("image", what, "subscribe to the camera's colour or grey image")
    try:
        pixels = decode_photo(bytes(message.data), "image", upright=False, rule=rule)
    except SourceError as error:
        raise FrameError("image", f"of the format {shown(described)} {error.what}", _ASK_SENDER) from error
    order: ColorOrder = "rgb" if _is_swapped(described) else "bgr"
    return Frame(pixels.image, order, visible=pixels.visible, notes=pixels.notes)


def _is_swapped(described: str) -> bool:
    """Whether red and blue have changed places in a compressed image's file.

    compressed_image_transport writes "rgb8; jpeg compressed bgr8" where it brought the image into the order
    that its encoder takes, and "rgb8; jpeg compressed rgb8" or less where it did not. A format without ";" is
    of other programs, whose files are as all others.
    """
    encoding, semicolon, compressed = described.partition(";")
    layout = _LAYOUTS.get(encoding.strip())
    is_colour = layout is not None and layout.kind == "colour" and not encoding.strip()[0].isdigit()
    return bool(semicolon) and is_colour and "compressed bgr" not in compressed
