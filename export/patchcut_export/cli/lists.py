"""Lists on the command line."""

from __future__ import annotations

from patchcut.errors import OptionError


def parse_list(option: str, text: str) -> list[str]:
    """The entries of a text with commas between them.

    Raises:
        OptionError: one is empty.
    """
    entries = [entry.strip() for entry in text.split(",")]
    if not all(entries):
        raise OptionError(option, f"must be a list with commas, got {text!r}")
    return entries
