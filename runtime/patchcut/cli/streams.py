"""stdout and stderr that may be closed, full, or read by nobody.

What cannot be written to stdout is a failure of the command, said in one line; what cannot be written to
stderr is lost, as there is nobody to tell.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from patchcut.errors import OutputError

_STDIN, _STDOUT, _STDERR = 0, 1, 2


class StdoutError(OutputError):
    """stdout cannot be written."""


class Stdout(io.TextIOWrapper):
    """Text whose failures are StdoutErrors; a reader who left is a BrokenPipeError, which needs no words."""

    def write(self, text: str) -> int:
        """As of any text stream."""
        with _explained():
            return super().write(text)

    def flush(self) -> None:
        """As of any text stream."""
        with _explained():
            super().flush()


class Stderr(io.TextIOWrapper):
    """Text that is lost where it cannot be written."""

    def write(self, text: str) -> int:
        """As of any text stream."""
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """As of any text stream."""
        with contextlib.suppress(OSError):
            super().flush()


def prepare_streams() -> None:
    """Makes `sys.stdout` and `sys.stderr` what this module says, also where the caller closed them.

    A descriptor that is closed would be given to the next file that is opened, and what a library writes to
    stderr would land in a mask. Names that are no text are written with backslashes.
    """
    for descriptor, flags in ((_STDIN, os.O_RDONLY), (_STDOUT, os.O_RDONLY), (_STDERR, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            _open_at(descriptor, flags)  # stdout cannot be written there: the command has to say so
    if sys.stdout is None or type(sys.stdout) is io.TextIOWrapper:
        like = _like(sys.stdout)
        sys.stdout = Stdout(_buffer(sys.stdout, _STDOUT), **like)
    if sys.stderr is None or type(sys.stderr) is io.TextIOWrapper:
        like = {**_like(sys.stderr), "line_buffering": True}
        sys.stderr = Stderr(_buffer(sys.stderr, _STDERR), **like)


def say(text: str) -> None:
    """Writes a line to stderr; never to stdout, which `print(file=None)` would."""
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)


def close_stdout() -> None:
    """Writes what stdout still holds, or drops it where that fails: the interpreter says nothing of it later.

    Raises:
        StdoutError, BrokenPipeError: it failed.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except (StdoutError, OSError):
        drop_stdout()
        raise


def drop_stdout() -> None:
    """Leads stdout nowhere, with what it still holds."""
    with contextlib.suppress(OSError, ValueError):
        _open_at(sys.stdout.fileno(), os.O_WRONLY)


def stderr_of(descriptor: int) -> TextIO:
    """A text stream such as `sys.stderr` on a descriptor, which it closes with itself."""
    raw = os.fdopen(descriptor, "wb")
    return Stderr(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        remedy = "look at where stdout leads, or write files with --out and be quiet with -q"
        raise StdoutError("stdout", f"cannot be written: {error.strerror or error}", remedy) from error


def _open_at(descriptor: int, flags: int) -> None:
    """Opens the null device as this very descriptor."""
    null = os.open(os.devnull, flags)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)


def _buffer(stream: Any, descriptor: int) -> Any:
    if stream is None:
        return open(descriptor, "wb", closefd=False)
    stream.flush()
    return stream.detach()


def _like(stream: Any) -> dict[str, Any]:
    """The encoding of a stream; asked before it is detached."""
    encoding = "utf-8" if stream is None else stream.encoding
    line_buffering = stream is not None and stream.line_buffering
    return {"encoding": encoding, "errors": "backslashreplace", "line_buffering": line_buffering}
