"""Writes a fused file, once it is known to give patchcut's own answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from patchcut.bundle import Bundle
from patchcut.output.whole_files import write_whole

from patchcut_export.fused.check import compare
from patchcut_export.fused.model import fuse
from patchcut_export.fused.plan import FusedPlan, choose_parts, describe


def write_fused(path: Path, bundle: Bundle, plan: FusedPlan, say: Callable[[str], None]) -> None:
    """Writes the file; whatever fails, none is left behind.

    Args:
        path: the .onnx file; an existing one is replaced once the new one is whole.
        say: called with lines of progress.
    Raises:
        OptionError, BundleError, ExportError: as `fuse` and `compare` do.
        OutputError: it cannot be written.
    """
    say(f"fusing {bundle.spec.name}: {describe(bundle, plan)}")
    data = fuse(bundle, plan)
    found = compare(data, bundle, plan)
    write_whole(path, data)
    say(f"wrote {path}, {len(data) / 1e6:.1f} MB")
    head, _, _ = choose_parts(bundle, plan)
    if head.concepts is not None and head.concepts.foreground is not None:
        say("each patch is named by itself: the file has no regions, and asks for no presence of a concept")
    say(
        f"beside patchcut on {found.photos} photos: {found.same:.2%} of the patches alike, numbers differ by "
        f"at most {found.largest:.1e}"
    )
