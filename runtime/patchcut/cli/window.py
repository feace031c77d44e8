"""A live window on a screen."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from patchcut.errors import OutputError
from patchcut.opencv import load_cv2

if TYPE_CHECKING:
    from typing_extensions import Self

_ESCAPE = 27


class Window:
    """A window that shows frames; a context manager.

    Raises:
        OutputError: this OpenCV has no windows, or there is no screen.
    """

    def __init__(self, title: str) -> None:
        self._cv2 = load_cv2()
        if re.search(r"GUI:\s+NONE", self._cv2.getBuildInformation()):
            remedy = "pip uninstall opencv-python-headless, then pip install opencv-python"
            raise OutputError("show", "this OpenCV was built without windows", remedy)
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            # Qt would abort the process instead of raising.
            raise OutputError("show", "there is no screen (DISPLAY is not set)", "use --out DIR instead")
        self._title = title
        try:
            self._cv2.namedWindow(title, self._cv2.WINDOW_NORMAL)
        except self._cv2.error as error:
            raise OutputError(
                "show", f"cannot open a window: {error.err}", "use --out DIR instead"
            ) from error

    def show(self, image: npt.NDArray[Any]) -> bool:
        """Shows [H, W, 3] uint8 BGR; False once q or Esc was pressed or the window was closed."""
        self._cv2.imshow(self._title, image)
        if self._cv2.waitKey(1) & 0xFF in (_ESCAPE, ord("q")):
            return False
        return bool(self._cv2.getWindowProperty(self._title, self._cv2.WND_PROP_VISIBLE) >= 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._cv2.destroyWindow(self._title)
