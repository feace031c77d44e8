"""Frames: the images that go into a segmenter, checked once at the border."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from patchcut.checks import check_choice
from patchcut.errors import FrameError
from patchcut.settings import COLOR_ORDERS, ColorOrder

_CAST_REMEDY = {
    "uint16": "scale 16-bit values to 8 bits first: (frame // 257).astype(np.uint8)",
    "bool": "convert it with frame.astype(np.uint8) * 255",
}


@dataclass(frozen=True, eq=False)
class Frame:
    """One image and where it came from.

    Attributes:
        image: [H, W, 3] uint8, any strides; H and W at least 1.
        color: order of the last axis.
        name: what the source calls it, such as a path relative to the source; "" where it has no name.
        index: position in its source, from 0.
        time_s: presentation time in seconds; None where the source has no clock.
    Examples:
        >>> patchcut.Frame(np.zeros((480, 640, 3), np.uint8), name="black.png").color
        'bgr'
    """

    image: npt.NDArray[np.uint8]
    color: ColorOrder = "bgr"
    name: str = ""
    index: int = 0
    time_s: float | None = None

    def __repr__(self) -> str:
        size = "x".join(map(str, reversed(np.shape(self.image)[:2])))
        return f"<Frame{named(self.name, self.index, self.time_s)}: {size} {self.color}>"


def named(name: str, index: int, time_s: float | None) -> str:
    """Where a frame is from, in a few words that begin with a space; nothing where that is not known.

    Examples:
        >>> patchcut.frames.named("walk.mp4", 12, 0.48)
        " 'walk.mp4' #12 at 0.48 s"
    """
    where = f" {name!r}" if name else ""  # as repr: a name may hold what a terminal obeys
    return f"{where} #{index} at {time_s:.2f} s" if time_s is not None else where


def as_frame(obj: object, color: ColorOrder = "bgr") -> Frame:
    """The frame that `obj` is, without a copy where it is an array.

    Args:
        obj: [H, W, 3] uint8 array of any strides, read-only or not; anything that speaks DLPack on the CPU;
            a PIL image of any mode (converted to RGB, whatever `color` says); or a Frame, checked again.
        color: order of an array's last axis.
    Raises:
        FrameError: "[frame] must be [H, W, 3] uint8, got [480, 640] uint8 (grey); use cv2.cvtColor(...)".
    Examples:
        >>> patchcut.frames.as_frame(np.zeros((480, 640, 3), np.uint8), "rgb").color
        'rgb'
    """
    check_choice("color", color, COLOR_ORDERS)
    if isinstance(obj, Frame):
        _check_image(obj.image)
        check_choice("color", obj.color, COLOR_ORDERS)
        return obj
    if _is_pil(obj):
        return Frame(_from_pil(obj), "rgb")
    image = _as_array(obj)
    _check_image(image)
    return Frame(cast("npt.NDArray[np.uint8]", image), color)


def _is_pil(obj: object) -> bool:
    pil = sys.modules.get("PIL.Image")  # whoever holds a PIL image has loaded it
    return pil is not None and isinstance(obj, pil.Image)


def _from_pil(obj: Any) -> npt.NDArray[np.uint8]:
    if 0 in obj.size:
        raise FrameError("frame", f"PIL image is empty, size {obj.size}", "check where it was cropped")
    try:
        return np.asarray(obj.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise FrameError("frame", f"PIL cannot decode the image: {error}", "check the file") from error


def _as_array(obj: object) -> npt.NDArray[Any]:
    if isinstance(obj, np.ndarray):
        return obj
    if obj is None:
        raise FrameError(
            "frame", "got None", "cv2.imread returns None for a file it cannot read: check the path"
        )
    if hasattr(obj, "__dlpack__"):
        return _from_dlpack(obj)
    kind = type(obj).__name__
    remedy = "pass a numpy array: np.asarray(frame, dtype=np.uint8)"
    if isinstance(obj, str) or hasattr(obj, "__fspath__"):
        remedy = "read it with cv2.imread(path), or pass the path to Segmenter.stream(path)"
    raise FrameError("frame", f"must be a [H, W, 3] uint8 array or a PIL image, got {kind}", remedy)


def _from_dlpack(obj: Any) -> npt.NDArray[Any]:
    try:
        return np.from_dlpack(obj)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        kind = f"{type(obj).__module__}.{type(obj).__name__}"
        remedy = "bring it to the CPU first: frame.detach().cpu().numpy()"
        raise FrameError("frame", f"cannot read {kind} through DLPack: {error}", remedy) from error


def _check_image(image: object) -> None:
    if not isinstance(image, np.ndarray):
        raise FrameError("frame", f"must be a [H, W, 3] uint8 array, got {type(image).__name__}")
    came = f"must be [H, W, 3] uint8, got [{', '.join(map(str, image.shape))}] {image.dtype}"
    _check_shape(image, came)
    if image.dtype != np.uint8:
        raise FrameError("frame", came, _dtype_remedy(image.dtype))
    if image.size == 0:
        raise FrameError("frame", f"{came} (empty)", "height and width must be at least 1")


def _check_shape(image: npt.NDArray[Any], came: str) -> None:
    if image.ndim == 3 and image.shape[2] == 3:
        return
    if image.ndim == 2:
        raise FrameError("frame", f"{came} (grey)", "use cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)")
    if image.ndim == 3 and image.shape[2] == 1:
        raise FrameError("frame", f"{came} (grey)", "use cv2.cvtColor(frame[..., 0], cv2.COLOR_GRAY2BGR)")
    if image.ndim == 3 and image.shape[2] == 4:
        raise FrameError("frame", f"{came} (with alpha)", "drop the fourth channel: frame[..., :3]")
    if image.ndim == 3 and image.shape[0] == 3:
        raise FrameError("frame", f"{came} (channels first)", "use frame.transpose(1, 2, 0)")
    if image.ndim == 4:
        raise FrameError("frame", f"{came} (a batch)", "pass one frame at a time: batch[i]")
    raise FrameError("frame", came, "pass one colour image with its channels last")


def _dtype_remedy(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "f":
        return "scale to 0..255 and convert: np.nan_to_num(frame * 255).clip(0, 255).astype(np.uint8)"
    if dtype.kind == "O":
        return "its rows differ in length or are not numbers: build it with np.asarray(frame, dtype=np.uint8)"
    return _CAST_REMEDY.get(dtype.name, "convert it with frame.clip(0, 255).astype(np.uint8)")
