"""Files to write, checked before long work is done for them."""

from __future__ import annotations

from pathlib import Path

from patchcut.errors import OutputError
from patchcut.output.whole_files import check_writable, output_error


def check_output_file(path: Path) -> None:
    """Checks that a file can be written at `path`, by making and removing an empty one beside it.

    Raises:
        OutputError: its folder does not exist or cannot be written, or `path` is a folder.
    """
    try:
        if not path.parent.is_dir():
            raise OutputError("output", f"{path.parent} is not a folder", "make it first")
        if path.is_dir():
            raise OutputError("output", f"{path} is a folder", "name a file")
    except OSError as error:  # a folder on the way may not be looked into
        raise output_error(path, error) from error
    check_writable(path.parent)
