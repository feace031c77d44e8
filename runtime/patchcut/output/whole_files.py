"""Files that are there whole or not at all: written under a hidden name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
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
    errno.ENOTDIR: "that path leads through a file or a link: choose another folder",
    errno.EEXIST: "that path leads through a file: choose another folder",
    errno.EISDIR: "a folder has that name: choose another folder",
    errno.ELOOP: "that path leads through a link: choose another folder",
    errno.EXDEV: "another disk is mounted inside the folder: choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EFBIG: "the disk or a limit of this process takes no file of that size",
}

# These stop every further file as well; what else goes wrong is about one file.
_STOPPING = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.ENODEV,
        errno.ENXIO,
        errno.ESTALE,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
    }
)

CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_PARTIAL = ".partial-"
_LEFTOVER_S = 2.0  # a file is locked as soon as it is made; its maker may need a moment


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, with the suffix of `path` and in its folder, which is made if it is not there.

    An empty file is there already, under a random name that was not there before. When the block ends it is
    renamed to `path`; when an exception ends it, it is removed, and what was at `path` stays. Nothing is
    flushed to the disk: a power cut may still lose the file.

    Raises:
        OutputError: "[output] cannot write DIR/x.png: No space left on device; ...", for any OSError of the
            block, of making the folder, and of renaming.
    """
    partial = path.with_name(f"{_PARTIAL}{secrets.token_hex(8)}{partial_suffix(path)}")
    held = -1
    try:
        _check_replaceable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        held = os.open(partial, CREATE, 0o666)
        lock(held)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        if held >= 0:
            remove(partial)
            os.close(held)


def _check_replaceable(path: Path) -> None:
    """Refuses a device, pipe or socket: a file renamed onto /dev/null takes it from the whole machine."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # it is not there, or opening tells what is wrong
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
        raise OutputError("output", f"{path} is a device, pipe or socket", "name a file")


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
    write_whole(path, encode_image(path, image))


def encode_image(path: Path, image: npt.NDArray[Any]) -> bytes:
    """The bytes of an image file, by the path's suffix.

    Raises:
        OutputError: "[output] cannot encode 70000x2 pixels as DIR/x.jpg; scale the frame down".
    """
    cv2 = load_cv2()
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if path.suffix == ".jpg" else []
    try:
        ok, data = cv2.imencode(path.suffix, np.ascontiguousarray(image), quality)
    except (cv2.error, MemoryError) as error:
        raise _unencodable(path, image) from error
    if not ok:
        raise _unencodable(path, image)
    encoded: bytes = data.tobytes()
    return encoded


def partial_suffix(path: Path) -> str:
    """What the unfinished file of `path` ends with: its suffix, by which encoders know their format."""
    return path.suffix if len(path.suffix) <= 12 else ""


def remove(path: Path) -> None:
    """Removes a file if it is there and can be removed."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def lock(descriptor: int) -> bool:
    """Whether a file is now this process's alone, until the descriptor is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def check_writable(folder: Path) -> list[Path]:
    """Makes `folder` and tries it with an empty file, before any work is done for it.

    What runs that were killed have left unfinished there is removed.

    Returns:
        The folders that were not there, innermost first: for `remove_empty`, where nothing comes of the work.
    Raises:
        OutputError: it is a file, or cannot be made or written.
    """
    probe = folder / f"{_PARTIAL}{secrets.token_hex(8)}"
    made: list[Path] = []
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError("output", f"{folder} is a file", "choose a folder")
        made = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        os.close(os.open(probe, CREATE, 0o666))
        probe.unlink()
        _remove_leftovers(folder)
    except ValueError as error:
        raise OutputError("output", f"{folder} is no name of a folder: {error}", "choose another") from error
    except OSError as error:
        remove_empty(made)
        raise output_error(folder, error) from error
    return made


def remove_empty(folders: Iterable[Path]) -> None:
    """Removes those of the folders, innermost first, that hold nothing."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def output_error(path: Path, error: OSError) -> OutputError:
    """The error at `path`, with a remedy."""
    remedy = _REMEDIES.get(error.errno or 0, "check the folder, or choose another")
    return OutputError("output", f"cannot write {path}: {error.strerror or error}", remedy)


def stops_all(error: OutputError) -> bool:
    """True where no other file can be written either, as on a full disk."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in _STOPPING


def _remove_leftovers(folder: Path) -> None:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(_PARTIAL)]
    for name in names:
        with contextlib.suppress(OSError):
            held = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                status = os.fstat(held)
                old = time.time() - status.st_mtime > _LEFTOVER_S
                if stat.S_ISREG(status.st_mode) and old and lock(held):
                    remove(folder / name)
            finally:
                os.close(held)


def _unencodable(path: Path, image: npt.NDArray[Any]) -> OutputError:
    size = "x".join(map(str, image.shape[1::-1]))
    return OutputError("output", f"cannot encode {size} pixels as {path}", "scale the frame down")
