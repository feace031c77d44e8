"""Names of bundles: those that ship with the package are the files `embedded/<name>.patchcut`."""

from __future__ import annotations

import os
from pathlib import Path

from patchcut.checks import check_path
from patchcut.errors import BundleError

DEFAULT = "default"
SUFFIX = ".patchcut"
FOLDER = Path(__file__).parent / "embedded"
EMBEDDED = FOLDER / f"{DEFAULT}{SUFFIX}"


def embedded_bundles() -> dict[str, Path]:
    """The paths of the bundles that ship with the package, by name.

    Examples:
        >>> "default" in patchcut.bundle.embedded_bundles()
        True
    """
    return {path.stem: path for path in sorted(FOLDER.glob(f"*{SUFFIX}"))}


def find_bundle(bundle: str | Path | None = None) -> Path:
    """The path of a bundle.

    Args:
        bundle: the name of an embedded one, None for "default", or a path: what has a suffix or a separator
            is one, and so is what no embedded bundle is called but a file is.
    Raises:
        OptionError: it is no text and no path, or empty.
        BundleError: it is neither.
    Examples:
        >>> patchcut.bundle.find_bundle("default").name
        'default.patchcut'
    """
    given = DEFAULT if bundle is None else bundle
    check_path("bundle", given, "a bundle's name or path")
    path, embedded = Path(given), embedded_bundles()
    if path.suffix or path.name != str(given):
        return path
    if path.name in embedded:
        return embedded[path.name]
    if os.path.lexists(path):
        return path
    remedy = f"pass the path of a {SUFFIX} file"
    if not embedded:
        raise BundleError("bundle", "this installation holds no embedded bundle", remedy)
    what = f'no embedded bundle is called "{str(path)[:100]}", and no file is'
    raise BundleError("bundle", what, f"choose one of {', '.join(embedded)}, or {remedy}")
