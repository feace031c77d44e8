"""What patchcut raises. Every message reads `[where] what; remedy` on one line."""

from __future__ import annotations

from patchcut.texts import one_line


class PatchcutError(Exception):
    """Any failure that patchcut foresees.

    Args:
        where: the option, stage or file that it is about, such as "bundle" or "frame".
        what: what was expected and what came.
        remedy: what the caller can do about it.
    """

    def __init__(self, where: str, what: str, remedy: str = "") -> None:
        super().__init__(where, what, remedy)
        self.where = where
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        what = f"{self.what}; {self.remedy}" if self.remedy else self.what
        return one_line(f"[{self.where}] {' '.join(what.split())}")


class OptionError(PatchcutError, ValueError):
    """An argument has a value that is not among those allowed."""


class BundleError(PatchcutError):
    """A bundle is damaged, is no bundle, or is from a newer patchcut."""


class FrameError(PatchcutError, ValueError):
    """An object is not a frame: [H, W, 3] uint8, or a PIL image."""


class SourceError(PatchcutError):
    """A source of frames cannot be opened or read."""


class EngineError(PatchcutError):
    """An engine is missing, lacks the device that was asked for, or failed to run."""


class OutputError(PatchcutError):
    """A result cannot be written."""
