"""OpenCV, imported on first use and told not to write to the terminal."""

from __future__ import annotations

import os
from typing import Any

from patchcut.errors import PatchcutError, install_hint

_SILENT = 0  # LOG_LEVEL_SILENT


def load_cv2() -> Any:
    """The `cv2` module.

    Raises:
        PatchcutError: "[opencv] cv2 cannot be imported (...); pip install '.[cpu]'".
    What cv2 and FFmpeg would log is raised or recorded by the caller instead; the environment variables
    OPENCV_LOG_LEVEL and OPENCV_FFMPEG_LOGLEVEL bring their own words back.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET; read when FFmpeg is first used
    try:
        import cv2
    except ImportError as error:
        what = f"cv2 cannot be imported ({error})"
        raise PatchcutError("opencv", what, install_hint("cpu")) from error
    if "OPENCV_LOG_LEVEL" not in os.environ:
        getattr(cv2.utils, "logging", cv2).setLogLevel(_SILENT)  # OpenCV 5 moved it
    return cv2
