"""OpenCV's captures, which cameras and live streams are read through, and videos where PyAV is missing."""

from __future__ import annotations

import math
from typing import Any

from patchcut.errors import SourceError
from patchcut.opencv import load_cv2


def property_id(name: str) -> int:
    """OpenCV's number of a capture's property, such as "FPS"."""
    return int(getattr(load_cv2(), f"CAP_PROP_{name}"))


def open_capture(address: int | str) -> Any:
    """The capture of a file, an address or a camera; it may have failed to open."""
    return load_cv2().VideoCapture(address)


def frame_count(capture: Any) -> int | None:
    """Frames that a capture says it has, None where it does not know."""
    count = capture.get(property_id("FRAME_COUNT"))
    return int(count) if math.isfinite(count) and 0 < count < 1e9 else None


def frame_rate(capture: Any) -> float | None:
    """Frames a second, None where the capture does not know."""
    rate = float(capture.get(property_id("FPS")))
    return rate if math.isfinite(rate) and 0 < rate <= 1000 else None


def codec_name(capture: Any) -> str:
    """The four letters of a capture's codec, such as "AV01"."""
    code = int(capture.get(property_id("FOURCC"))) & 0xFFFFFFFF
    return code.to_bytes(4, "little").decode("latin-1").strip("\0 ") or "unknown"


def no_frame(name: str) -> str:
    """The problem of a capture that opened and gave nothing."""
    return str(SourceError(name, "opened, but no frame could be decoded", "play it elsewhere to check"))
