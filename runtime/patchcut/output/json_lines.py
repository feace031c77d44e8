"""Results as lines of JSON, gathered while they come and written as a whole."""

from __future__ import annotations

import json
from typing import Any

from patchcut.output.files import OutputFiles
from patchcut.output.spools import Spool


class JsonLines:
    """A file that has one result in each line, as `Result.to_dict(masks="rle")` tells it.

    Args:
        files: where it goes.
        path: below their root.
    Examples:
        >>> files = patchcut.output.files.OutputFiles(folder)
        >>> lines = patchcut.output.json_lines.JsonLines(files, "results.jsonl")
        >>> lines.add(result.to_dict(masks="rle"))
        >>> lines.close()
        >>> (folder / "results.jsonl").read_text().count("counts") == len(result)
        True
    """

    def __init__(self, files: OutputFiles, path: str) -> None:
        self._files = files
        self._path = path
        self._lines = Spool(files.root, "\n")

    def add(self, told: dict[str, Any]) -> None:
        """Adds a result.

        Raises:
            OutputError: "[output] cannot write DIR: No space left on device; ...".
        Examples:
            >>> files = patchcut.output.files.OutputFiles(folder)
            >>> patchcut.output.json_lines.JsonLines(files, "x.jsonl").add(result.to_dict())
        """
        self._lines.add(json.dumps(told))

    def close(self) -> None:
        """Writes the file, if a result was added.

        Raises:
            OutputError: it cannot be written.
        Examples:
            >>> files = patchcut.output.files.OutputFiles(folder)
            >>> patchcut.output.json_lines.JsonLines(files, "x.jsonl").close()
            >>> (folder / "x.jsonl").exists()
            False
        """
        try:
            if self._lines.count:
                with self._files.whole_file(self._path) as path, path.open("wb") as file:
                    self._lines.copy_to(file)
                    file.write(b"\n")
        finally:
            self._lines.close()
