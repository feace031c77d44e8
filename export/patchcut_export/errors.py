"""What making, training and measuring bundles raises, besides the runtime's own errors.

An option with a value that is not allowed is `patchcut.errors.OptionError`, a file that cannot be written
`OutputError`; these are the rest.
"""

from __future__ import annotations

from patchcut.errors import PatchcutError


class ExportError(PatchcutError):
    """A bundle cannot be made from what was given."""


class TrainingError(ExportError):
    """Training cannot start or go on."""


class DatasetError(ExportError):
    """A dataset is not where it was said to be, or not what it was said to be."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__("eval", problem, remedy)
