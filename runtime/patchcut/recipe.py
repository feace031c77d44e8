"""What results depend on, as plain texts: a folder keeps it, so that results of two kinds are not mixed."""

from __future__ import annotations

import hashlib
from dataclasses import fields

from patchcut.bundle import open_bundle
from patchcut.settings import Settings

_SPEED = ("threads", "throughput")  # what is found is the same


def settings_recipe(settings: Settings) -> dict[str, str]:
    """Each setting that results depend on; of the bundle the hash of its manifest, which names all members'.

    Raises:
        BundleError: the bundle is missing, damaged, foreign or newer.
    Examples:
        >>> patchcut.recipe.settings_recipe(patchcut.Settings(min_score=0.5))["min_score"]
        '0.5'
    """
    recipe = {one.name: str(getattr(settings, one.name)) for one in fields(settings)}
    for name in _SPEED:
        del recipe[name]
    with open_bundle(settings.bundle) as bundle:
        recipe["bundle"] = hashlib.sha256(bundle.spec.model_dump_json().encode()).hexdigest()
    return recipe
