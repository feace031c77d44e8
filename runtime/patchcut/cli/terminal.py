"""Keeping C libraries from writing over the user's terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from patchcut.cli.streams import stderr_of


@contextlib.contextmanager
def muted_native_stderr() -> Iterator[TextIO]:
    """File descriptor 2 leads nowhere inside: libjpeg, libpng and FFmpeg write there, whatever cv2 is told.

    Yields a file that leads where it did; `sys.stderr` is that file, too, so that only C is muted.
    For the command line only: it is the whole process's descriptor.
    """
    try:
        sys.stderr.flush()
        kept = stderr_of(os.dup(2))
    except (AttributeError, OSError):  # there is no stderr to keep clean
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            yield nowhere
        return
    with kept, contextlib.redirect_stderr(kept):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
        try:
            yield kept
        finally:
            os.dup2(kept.fileno(), 2)
