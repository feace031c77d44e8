"""A video that OpenCV writes, at a constant rate, where PyAV is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut.errors import OutputError
from patchcut.opencv import load_cv2
from patchcut.output.encoder import NoEncoder

# A recording that says "1000 fps" means milliseconds.
_HIGHEST_FPS = 120.0


class OpenCvEncoder:
    """Writes one video; frames are repeated or dropped so that each is shown about when it should be.

    Args:
        codec: four letters, such as "mp4v".
        size_wh: size of every frame; where it is odd the last row or column is doubled.
        fps: frames a second.
        path: the file.
        target: what it is to be called, for errors.
    Raises:
        NoEncoder: there is none of that codec and size.
    """

    def __init__(self, codec: str, size_wh: tuple[int, int], fps: float, path: Path, target: Path) -> None:
        self._path = path
        self._target = target
        self._fps = min(fps, _HIGHEST_FPS)
        self._frames = 0
        width, height = size_wh
        self._size_wh = (width + width % 2, height + height % 2)
        cv2 = load_cv2()
        fourcc = cv2.VideoWriter_fourcc(*codec)
        self._writer = cv2.VideoWriter(str(path.absolute()), fourcc, self._fps, self._size_wh)
        if not self._writer.isOpened():
            self.abandon()
            raise NoEncoder

    @property
    def takes_sound(self) -> bool:
        """OpenCV writes none."""
        return False

    def append(self, image: npt.NDArray[np.uint8], start_s: float, duration_s: float) -> None:
        """Appends [H, W, 3] uint8 BGR, shown from a second on for some seconds."""
        width, height = self._size_wh
        rows, columns = height - image.shape[0], width - image.shape[1]
        if rows or columns:
            image = np.pad(image, ((0, rows), (0, columns), (0, 0)), mode="edge")
        end = max(round((start_s + duration_s) * self._fps), 1)
        for _ in range(self._frames, end):
            self._writer.write(image)
        self._frames = max(self._frames, end)

    def finish(self) -> None:
        """Writes what is left, and closes the file.

        Raises:
            OutputError: the file does not hold the frames written; OpenCV says nothing when a disk is full.
        """
        self.abandon()
        held = frame_count(self._path)
        if held < self._frames:
            what = f"{self._target} would hold {held} of {self._frames} frames and was removed"
            raise OutputError("output", what, "check that the disk has space")

    def abandon(self) -> None:
        """Closes the file as it is."""
        self._writer.release()


def frame_count(path: Path) -> int:
    """Frames that a video says it has."""
    cv2 = load_cv2()
    capture: Any = cv2.VideoCapture(str(path.absolute()))
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()
