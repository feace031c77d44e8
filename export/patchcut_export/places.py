"""Places to write to, tried before long work is done for them."""

from __future__ import annotations

import os
from pathlib import Path

from patchcut.errors import OutputError
from patchcut.whole_files import output_error


def check_place(path: Path) -> None:
    """Nothing, if a file can be written at `path`; an empty file beside it is made and removed to find out.

    Raises:
        OutputError: its folder is not there or cannot be written, or a folder is in its place.
    """
    try:
        if not path.parent.is_dir():
            raise OutputError("output", f"{path.parent} is not a folder", "make it first")
        if path.is_dir():
            raise OutputError("output", f"{path} is a folder", "name a file")
        probe = place_beside(path)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise output_error(path, error) from error


def place_beside(path: Path) -> Path:
    """Where to write what is renamed to `path` once it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")
