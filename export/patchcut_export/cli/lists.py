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


def parse_numbers(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them, such as "0,3".

    Raises:
        OptionError: an entry is no whole number.
    """
    try:
        return tuple(int(entry) for entry in parse_list(option, text))
    except ValueError as error:
        raise OptionError(option, f"must be whole numbers with commas, got {text!r}") from error
