"""Lines that wait on the disk until the file they belong to can be written as a whole."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO

from patchcut.output.whole_files import output_error


class Spool:
    """Lines in a file without a name, so that a run of any length holds none of them in memory.

    A run that is killed leaves nothing behind.

    Args:
        folder: where the file is; the disk that the whole file goes to.
        separator: between two lines.
    Examples:
        >>> spool = patchcut.output.spools.Spool(folder, ",")
        >>> for line in ("a", "b"):
        ...     spool.add(line)
        >>> with (folder / "all").open("wb") as file:
        ...     spool.copy_to(file)
        >>> (folder / "all").read_text()
        'a,b'
    """

    def __init__(self, folder: Path, separator: str) -> None:
        self.count = 0
        self._folder = folder
        self._separator = separator
        self._file: BinaryIO | None = None
        self._end = 0

    def add(self, *lines: str) -> None:
        """Adds lines, all of them or none.

        Raises:
            OutputError: "[output] cannot write DIR: No space left on device; ...".
        Examples:
            >>> spool = patchcut.output.spools.Spool(folder, ",")
            >>> spool.add("a", "b")
            >>> spool.count
            2
        """
        if not lines:
            return
        text = self._separator.join(lines)
        view = memoryview((self._separator + text if self.count else text).encode())
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0, dir=self._folder)  # noqa: SIM115
            self._file.seek(self._end)
            written = 0
            while written < len(view):
                written += self._file.write(view[written:])
        except OSError as error:  # what is torn is overwritten by the next line, or not copied
            raise output_error(self._folder, error) from error
        self._end += len(view)
        self.count += len(lines)

    def copy_to(self, file: BinaryIO) -> None:
        """Writes all lines to another file.

        Examples:
            >>> with (folder / "empty").open("wb") as file:
            ...     patchcut.output.spools.Spool(folder, ",").copy_to(file)
        """
        if self._file is not None:
            self._file.truncate(self._end)
            self._file.seek(0)
            shutil.copyfileobj(self._file, file, 1 << 20)

    def close(self) -> None:
        """Gives the disk its space back.

        Examples:
            >>> patchcut.output.spools.Spool(folder, ",").close()
        """
        if self._file is not None:
            self._file.close()
            self._file = None
