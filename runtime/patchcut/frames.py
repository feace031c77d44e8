"""Frames: the images that go into a segmenter, checked once at the border."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut.checks import check_choice
from patchcut.errors import FrameError
from patchcut.pixels import AS_IT_COMES, PixelRule, to_8_bits
from patchcut.settings import COLOR_ORDERS, ColorOrder

_ORIENTATION = 0x0112  # EXIF's tag


@dataclass(frozen=True, eq=False)
class Frame:
    """One image and where it came from.

    Attributes:
        image: [H, W, 3] uint8, any strides; H and W at least 1.
        color: order of the last axis.
        name: what the source calls it, such as a path relative to the source; "" where it has no name.
        index: position in its source, from 0.
        time_s: presentation time in seconds; None where the source has no clock.
        visible: [H, W] bool, False where nothing can be seen and no region is: under alpha 0; None where
            all can be seen.
        notes: what was decided about its pixels that may matter, `[name] what; what to do`.
    Examples:
        >>> patchcut.Frame(np.zeros((480, 640, 3), np.uint8), name="black.png").color
        'bgr'
    """

    image: npt.NDArray[np.uint8]
    color: ColorOrder = "bgr"
    name: str = ""
    index: int = 0
    time_s: float | None = None
    visible: npt.NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()

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


def as_frame(obj: object, color: ColorOrder = "bgr", rule: PixelRule = AS_IT_COMES) -> Frame:
    """The frame that `obj` is, without a copy where it is an array [H, W, 3] uint8.

    Args:
        obj: [H, W, 3] array of any strides, read-only or not, or [H, W] or [H, W, 1] grey, or [H, W, 4] with
            alpha; uint8, or wider integers or floats, which `patchcut.pixels.to_8_bits` scales; anything that
            speaks DLPack on the CPU; a PIL image of any mode (RGB, whatever `color` says), as it is stored:
            an EXIF orientation is not applied but noted; or a Frame, checked again.
        color: order of an array's last axis; a Frame has its own.
        rule: how values of more than 8 bits are read, and how many pixels may be.
    Raises:
        FrameError: "[frame] must be [H, W, 3] uint8, got [3, 480, 640] uint8 (channels first); use ...".
    Examples:
        >>> patchcut.frames.as_frame(np.zeros((480, 640, 3), np.uint8), "rgb").color
        'rgb'
    """
    check_choice("color", color, COLOR_ORDERS)
    given = obj if isinstance(obj, Frame) else Frame(np.empty((0, 0, 3), np.uint8), color)
    check_choice("color", given.color, COLOR_ORDERS)
    if _is_pil(obj):
        values, given = _from_pil(obj, rule), replace(given, color="rgb", notes=_turned_note(obj))
    else:
        values = _as_array(obj.image if isinstance(obj, Frame) else obj)
        _check_values(values, rule)
    if values.dtype == np.uint8 and values.ndim == 3 and values.shape[2] == 3:
        return given if values is given.image else replace(given, image=values)
    pixels = to_8_bits(values, given.name or "frame", rule)
    return replace(given, image=pixels.image, visible=pixels.visible, notes=given.notes + pixels.notes)


def _is_pil(obj: object) -> bool:
    # Whoever holds a PIL image has loaded it; another thread may be in the middle of that.
    image = getattr(sys.modules.get("PIL.Image"), "Image", None)
    return image is not None and isinstance(obj, image)


def _from_pil(obj: Any, rule: PixelRule) -> npt.NDArray[Any]:
    """[H, W] of more than 8 bits, [H, W, 3] or [H, W, 4] uint8."""
    if 0 in obj.size:
        raise FrameError("frame", f"PIL image is empty, size {obj.size}", "check where it was cropped")
    _check_size(obj.height, obj.width, rule)
    try:
        if obj.mode == "La":  # which converts to nothing else
            obj = obj.convert("LA")
        hides = obj.has_transparency_data
        if obj.mode[:2] == "I;" and isinstance(hidden := obj.info.get("transparency"), int):
            return _hide(np.asarray(obj), hidden)
        if obj.mode[0] in "IF" or obj.mode == "RGBA" or (obj.mode == "RGB" and not hides):
            return np.asarray(obj)  # I;16, I;16B, I and F keep their bits
        return np.asarray(obj.convert("RGBA" if hides else "RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise FrameError("frame", f"PIL cannot decode the image: {error}", "check the file") from error


def _hide(grey: npt.NDArray[Any], hidden: int) -> npt.NDArray[Any]:
    """[H, W, 4] of grey [H, W] of 16 bits of which one value stands for what is transparent."""
    opaque = np.where(grey == hidden, 0, np.iinfo(np.uint16).max).astype(np.uint16)
    return np.dstack([grey, grey, grey, opaque]).astype(np.uint16, copy=False)


def _turned_note(obj: Any) -> tuple[str, ...]:
    """Says that a PIL image was taken as it is stored, where its EXIF asks to turn it."""
    try:
        orientation = obj.getexif().get(_ORIENTATION, 1)
    except Exception:  # what is wrong in there is no reason to refuse the pixels
        return ()
    if orientation not in range(2, 9):
        return ()
    what = "its EXIF orientation was not applied, so that masks and boxes are of the image as it is stored"
    return (f"[frame] {what}; turn it first with PIL.ImageOps.exif_transpose(image)",)


def _check_size(height: int, width: int, rule: PixelRule) -> None:
    if wrong := rule.too_large(height, width):
        raise FrameError("frame", *wrong)


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


def _check_values(image: npt.NDArray[Any], rule: PixelRule) -> None:
    """Checks that an array is a picture: [H, W, 3] uint8, or what `to_8_bits` takes."""
    came = f"must be [H, W, 3] uint8, got [{', '.join(map(str, image.shape))}] {image.dtype}"
    _check_shape(image, came)
    if image.dtype.kind not in "iuf":
        raise FrameError("frame", came, _dtype_remedy(image.dtype))
    if image.size == 0:
        raise FrameError("frame", f"{came} (empty)", "height and width must be at least 1")
    _check_size(image.shape[0], image.shape[1], rule)


def _check_shape(image: npt.NDArray[Any], came: str) -> None:
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4)):
        return
    if image.ndim == 3 and image.shape[0] in (1, 3, 4) and image.shape[2] > 4:
        raise FrameError("frame", f"{came} (channels first)", "use frame.transpose(1, 2, 0)")
    if image.ndim == 4:
        raise FrameError("frame", f"{came} (a batch)", "pass one frame at a time: batch[i]")
    raise FrameError("frame", came, "pass one picture with its channels last")


def _dtype_remedy(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "b":
        return "convert it with frame.astype(np.uint8) * 255"
    if dtype.kind == "O":
        return "its rows differ in length or are not numbers: build it with np.asarray(frame, dtype=np.uint8)"
    return "convert it to uint8, uint16 or float32 first"
