"""The CUDA libraries beside onnxruntime."""

from __future__ import annotations

import contextlib
import io
from typing import Any


def preload_cuda(onnxruntime: Any) -> str:
    """Loads the CUDA libraries of the extra `gpu`, and says which could not be, for people.

    They lie in packages of their own, where no loader looks.
    """
    if not hasattr(onnxruntime, "preload_dlls"):
        return ""
    said = io.StringIO()  # it prints what fails
    with contextlib.redirect_stdout(said):
        try:
            onnxruntime.preload_dlls()
        except Exception as error:  # whatever keeps it from loading them: the provider says what it misses
            return str(error)
    failed = [line for line in said.getvalue().splitlines() if line.startswith("Failed to load")]
    return "; ".join(failed)
