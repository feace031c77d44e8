"""PyAV, imported on first use; where it is missing OpenCV stands in for it, and that is said."""

from __future__ import annotations

import functools
import logging
from typing import Any

from patchcut.errors import install_hint

# The first with indexes, which tell whether a file is whole.
_OLDEST = 17

_logger = logging.getLogger("patchcut")


@functools.cache
def load_av() -> Any | None:
    """The `av` module; None where it is missing or too old.

    None is logged once, as a warning of the logger "patchcut": what OpenCV cannot know is no fault of the
    video, so it is none of a source's `problems`.

    Examples:
        >>> patchcut.pyav.load_av().__name__
        'av'
    """
    try:
        import av
    except ImportError as error:
        _warn(f"PyAV cannot be imported ({error})")
        return None
    if int(av.__version__.split(".")[0]) < _OLDEST:
        _warn(f"PyAV {av.__version__} is older than {_OLDEST}")
        return None
    return av


def _warn(reason: str) -> None:
    _logger.warning(
        "[video] %s, so OpenCV reads and writes videos: times are those of a constant rate where it knows no "
        "better, frames keep the first one's size, and a file that was cut short may pass for a whole one; "
        "%s",
        reason,
        install_hint("video"),
    )
