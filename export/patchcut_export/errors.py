"""What the export package raises beside the runtime's errors."""

from __future__ import annotations

from patchcut.errors import PatchcutError


class ExportError(PatchcutError):
    """A bundle cannot be made from what was given."""
