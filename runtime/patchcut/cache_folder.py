"""Where engines keep what they have compiled, by one rule for all of them."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "PATCHCUT_CACHE"
OFF = "off"


def cache_folder(engine: str = "") -> Path | None:
    """The folder for what an engine compiles; None where nothing is to be kept. It may not be there yet.

    It is ENGINE in $PATCHCUT_CACHE; where that is not set, in `patchcut` of $XDG_CACHE_HOME, or of ~/.cache.
    PATCHCUT_CACHE=off keeps nothing, nor is anything kept where there is no home.

    Args:
        engine: its name; "" for the folder of all of them.
    Examples:
        >>> folder = patchcut.cache_folder.cache_folder("openvino")
        >>> folder is None or folder.name == "openvino"
        True
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen == OFF:
        return None
    if chosen:
        return Path(chosen).absolute() / engine
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if caches.is_absolute():  # others are to be ignored, says the XDG specification
        return caches / "patchcut" / engine
    try:
        home = Path.home()
    except RuntimeError:  # of a user that the system does not know
        return None
    return home / ".cache/patchcut" / engine if home.is_dir() else None
