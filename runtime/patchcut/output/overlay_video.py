"""A video of overlays, written frame by frame."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut.errors import OutputError
from patchcut.opencv import load_cv2
from patchcut.output.whole_files import whole_file

# Motion JPEG needs no codec library, so that it is there where MPEG-4 is not.
_FORMATS = (("mp4v", ".mp4"), ("MJPG", ".avi"))


class OverlayVideo:
    """A video file, written under a hidden name and renamed when closed; then it plays to its last frame.

    Args:
        path: where it goes, without the suffix: .mp4, or .avi where OpenCV has no MPEG-4 encoder.
        fps: frames a second.
        size_wh: size of every frame; others are scaled to it.
        open_partial: gives the path to write to, as `whole_file` does.
    Raises:
        OutputError: no encoder takes that size.
    """

    def __init__(
        self,
        path: Path,
        fps: float,
        size_wh: tuple[int, int],
        *,
        open_partial: Callable[[Path], AbstractContextManager[Path]] = whole_file,
    ) -> None:
        self._fps = fps
        self._size_wh = size_wh
        self._frames = 0
        self._start_s = 0.0
        self._last: npt.NDArray[np.uint8] | None = None
        for codec, suffix in _FORMATS:
            self.path = path.with_name(path.name + suffix)
            with contextlib.suppress(_NoEncoder), contextlib.ExitStack() as renaming:
                self._partial = renaming.enter_context(open_partial(self.path))
                self._writer = _open_writer(self._partial, codec, fps, size_wh)
                self._renaming = renaming.pop_all()
                return
        size = "x".join(map(str, size_wh))
        remedy = "choose other outputs with --save, or check that the folder can be written"
        raise OutputError("output", f"OpenCV has no encoder that writes {path} at {size}", remedy)

    def write(self, image: npt.NDArray[np.uint8], time_s: float | None = None) -> None:
        """Appends [H, W, 3] uint8 BGR; with a time, the frame before is held until then."""
        image = np.ascontiguousarray(image)
        if image.shape[1::-1] != self._size_wh:
            image = load_cv2().resize(image, self._size_wh, interpolation=load_cv2().INTER_AREA)
        if time_s is not None:
            self._hold(time_s)
        self._append(image)

    def close(self, end_s: float | None = None) -> None:
        """Finishes the file and renames it to its path.

        Raises:
            OutputError: the file does not hold the frames written; OpenCV says nothing when a disk is full.
        """
        with self._renaming:
            self._writer.release()
            held = _frame_count(self._partial)
            if held < self._frames:
                what = f"{self.path} would hold {held} of {self._frames} frames and was removed"
                raise OutputError("output", what, "check that the disk has space")

    def _hold(self, time_s: float) -> None:
        if self._last is None:
            self._start_s = time_s
            return
        for _ in range(self._frames, round((time_s - self._start_s) * self._fps)):
            self._append(self._last)

    def _append(self, image: npt.NDArray[np.uint8]) -> None:
        self._writer.write(image)
        self._last = image
        self._frames += 1


class _NoEncoder(Exception):
    pass


def _open_writer(path: Path, codec: str, fps: float, size_wh: tuple[int, int]) -> Any:
    cv2 = load_cv2()
    writer = cv2.VideoWriter(str(path.absolute()), cv2.VideoWriter_fourcc(*codec), fps, size_wh)
    if not writer.isOpened():
        writer.release()
        raise _NoEncoder
    return writer


def _frame_count(path: Path) -> int:
    cv2 = load_cv2()
    capture = cv2.VideoCapture(str(path.absolute()))
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()
