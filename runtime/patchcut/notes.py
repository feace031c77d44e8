"""What sources and frames have to say, as warnings of the logger "patchcut"."""

from __future__ import annotations

import logging
from collections.abc import Iterable

_logger = logging.getLogger("patchcut")
_told: set[str] = set()


def log_problems(problems: list[str], told: int) -> int:
    """Logs the problems from number `told` on, and returns how many have been told now."""
    for problem in problems[told:]:
        _logger.warning("%s", problem)
    return len(problems)


def log_notes(notes: Iterable[str]) -> None:
    """Logs what was decided about pixels, each kind of thing once in a process."""
    for note in notes:
        remedy = note.rpartition("; ")[2]
        if remedy not in _told:
            _told.add(remedy)
            _logger.warning("%s", note)
