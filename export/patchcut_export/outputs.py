"""Files and folders to write, checked before long work is done for them."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
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


def check_new_folder(path: Path) -> None:
    """Checks that a folder can be made at `path`, by making and removing an empty file beside it.

    Raises:
        OutputError: something is there that is not an empty folder, or its own folder is not there or cannot
            be written.
    """
    try:
        if not path.parent.is_dir():
            raise OutputError("output", f"{path.parent} is not a folder", "make it first")
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise OutputError("output", f"{path} is no folder", "choose a path where nothing is")
        if path.exists() and next(path.iterdir(), None) is not None:
            what = f"{path} is a folder that holds something"
            raise OutputError("output", what, "choose another, or remove it first")
    except OSError as error:
        raise output_error(path, error) from error
    check_writable(path.parent)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, beside `path` and under a name that was not there before.

    When the block ends it is renamed to `path`, where nothing or an empty folder may be; when an exception
    ends it, it is removed.

    Raises:
        OutputError: as `check_new_folder`, and for any OSError of the block.
    """
    check_new_folder(path)
    partial = path.with_name(f".partial-{secrets.token_hex(8)}")
    try:
        partial.mkdir()
        yield partial
        partial.rename(path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
