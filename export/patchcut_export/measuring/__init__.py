"""Measuring bundles on data sets, as the papers do."""

from typing import Any

# Settings that differ from the runtime's where none are chosen: the papers' tables have masks as they come.
DEFAULTS: dict[str, Any] = {"refine": "none", "nothing_below": 0.0}
