"""Lines that commands print for people, on stdout. It needs nothing but rich."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.console import Console

from patchcut.texts import one_line

_WIDTH, _INDENT = 80, 14


def make_console() -> Console:
    """A console on stdout that takes file names as they are: brackets in them are no markup."""
    return Console(markup=False, highlight=False, emoji=False, soft_wrap=True)


def print_rows(title: str, rows: Sequence[tuple[str, str]], most_lines: int = 0) -> None:
    """Prints a title and named texts; of each no more than `most_lines`, unless that is 0.

    Examples:
        >>> from patchcut.cli.printing import print_rows
        >>> print_rows("camera", [("size", "640x480")])
        <BLANKLINE>
        camera
          size        640x480
    """
    console = make_console()
    console.print(f"\n{_cut(one_line(title), 1)}" if most_lines else f"\n{one_line(title)}", style="bold")
    for name, value in rows:
        text = one_line(value)
        wrapped = textwrap.fill(
            _cut(text, most_lines) if most_lines else text,
            _WIDTH,
            initial_indent=f"  {name:<12}",
            subsequent_indent=" " * _INDENT,
            break_long_words=False,  # to be copied
            break_on_hyphens=False,
        )
        print(wrapped)


def _cut(text: str, lines: int) -> str:
    room = lines * (_WIDTH - _INDENT) - 8  # a line breaks before a word
    return text if len(text) <= room else text[: room - 3] + "..."
