"""`patchcut export calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from patchcut.cli.options import with_settings
from patchcut.settings import Settings


@with_settings(only=("threads",))
def calibrate(
    *,
    bundle: Annotated[Path, typer.Option(help="The .patchcut file whose head is calibrated.")],
    images: Annotated[Path, typer.Option(help="Folder of photographs, each of something; no labels.")],
    out: Annotated[
        Path | None, typer.Option(help="The .patchcut file to write.", show_default="--bundle")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Photographs to look at.")] = 1000,
    keep: Annotated[
        float, typer.Option(help="Share of the photographs in which something must still be found.")
    ] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Of the blank pictures.")] = 0,
    settings: Settings,
) -> int:
    """Make a bundle's scores probabilities, and let it answer that there is nothing.

    The head's best region of each photograph is taken for an object; what it finds in backgrounds that are
    cut out of them, and in blank pictures, is taken for none.
    """
    from patchcut_export.progress import StepBar
    from patchcut_export.training.calibration import CalibrationPlan, calibrate_bundle

    plan = CalibrationPlan(images=images, limit=limit, keep=keep, seed=seed, threads=settings.threads)
    with StepBar() as bar:
        made = calibrate_bundle(bundle, out or bundle, plan, bar.step)
        bar.say(f"{made.fitted_on}; there is nothing below {made.nothing_below:.3f}")
        bar.say(f"wrote {out or bundle}")
    return 0
