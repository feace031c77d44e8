"""Files that are there whole or not at all: written under a hidden name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut.errors import OutputError
from patchcut.opencv import load_cv2

_JPEG_QUALITY = 92

_REMEDIES = {
    errno.ENOSPC: "free some space, or choose another folder",
    errno.EDQUOT: "free some of your quota, or choose another folder",
    errno.EACCES: "choose a folder that you may write",
    errno.EPERM: "choose a folder that you may write",
    errno.EROFS: "choose a folder on a disk that can be written",
    errno.ENOTDIR: "that path leads through a file: choose another folder",
    errno.EEXIST: "that path leads through a file: choose another folder",
    errno.EISDIR: "a folder has that name: choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}

_partial_number = itertools.count()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, with the suffix of `path` and in its folder, which is made if it is not there.

    When the block ends the file is renamed to `path`; when an exception ends it, the file is removed, and
    what was at `path` stays. Nothing is flushed to the disk: a power cut may still lose the file.

    Raises:
        OutputError: "[output] cannot write DIR/x.png: No space left on device; ...", for any OSError of the
            block, of making the folder, and of renaming.
    """
    partial = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        remove(partial)


def write_whole(path: Path, data: bytes) -> None:
    """Writes one file.

    Raises:
        OutputError: as `whole_file`.
    """
    with whole_file(path) as partial:
        partial.write_bytes(data)


def write_image(path: Path, image: npt.NDArray[Any]) -> None:
    """Encodes [H, W] or [H, W, 3] BGR, uint8 or uint16, by the path's suffix, and writes it.

    Raises:
        OutputError: it cannot be encoded or written.
    """
    cv2 = load_cv2()
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if path.suffix == ".jpg" else []
    try:
        ok, data = cv2.imencode(path.suffix, np.ascontiguousarray(image), quality)
    except cv2.error as error:
        raise _unencodable(path, image) from error
    if not ok:
        raise _unencodable(path, image)
    write_whole(path, data.tobytes())


def partial_path(path: Path) -> Path:
    """A hidden name beside `path`, with its suffix, that no other call and no other process gives."""
    return path.with_name(f".partial-{os.getpid()}-{next(_partial_number)}{path.suffix}")


def remove(path: Path) -> None:
    """Removes a file if it is there and can be removed."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Makes `folder` and tries it with an empty file, before any work is done for it.

    Raises:
        OutputError: it is a file, or cannot be made or written.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError("output", f"{folder} is a file", "choose a folder")
    probe = partial_path(folder / "probe")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise output_error(folder, error) from error


def output_error(path: Path, error: OSError) -> OutputError:
    """The error at `path`, with a remedy."""
    remedy = _REMEDIES.get(error.errno or 0, "check the folder, or choose another")
    return OutputError("output", f"cannot write {path}: {error.strerror or error}", remedy)


def _unencodable(path: Path, image: npt.NDArray[Any]) -> OutputError:
    size = "x".join(map(str, image.shape[1::-1]))
    return OutputError("output", f"cannot encode {size} pixels as {path}", "scale the frame down")
