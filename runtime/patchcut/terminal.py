"""Keeping C libraries from writing over the user's terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def muted_native_stderr() -> Iterator[None]:
    """File descriptor 2 leads nowhere inside: libjpeg, libpng and FFmpeg write there, whatever cv2 is told.

    For the command line only: it is the whole process's descriptor.
    """
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except OSError:  # there is no stderr to keep clean
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)
