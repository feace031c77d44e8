"""`patchcut export adapt`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from patchcut.cli.options import with_settings
from patchcut.settings import Settings


@with_settings(only=("device", "precision", "size", "threads"))
def adapt(
    *,
    images: Annotated[Path, typer.Option(help="Folder of unlabelled images, searched with its subfolders.")],
    bundle: Annotated[Path, typer.Option(help="The .patchcut file whose names are learned.")],
    out: Annotated[
        Path | None, typer.Option(help="The .patchcut file to write.", show_default="--bundle")
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="The head to learn from.", show_default="the first that names things")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Folder of a data set with classes: both heads are measured on it, by names."),
    ] = None,
    dataset: Annotated[str, typer.Option(help="What --root is, as in `patchcut export eval`.")] = "semantic",
    work_dir: Annotated[
        Path, typer.Option("--work", help="Folder for features, checkpoints and log.")
    ] = Path("patchcut-adapt"),
    seed: Annotated[int, typer.Option(help="The same seed gives the same weights on one machine.")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the images, at most.")] = 20,
    batch: Annotated[int, typer.Option(min=1, help="Images a step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW.")] = 1e-3,
    threshold: Annotated[float, typer.Option(help="Cosines not above it are no edge.")] = 0.2,
    trained_on: Annotated[
        str | None,
        typer.Option(help="What the images are, and their terms.", show_default="the folder's name"),
    ] = None,
    settings: Settings,
) -> int:
    """Train the light head `adapted` on the names that another head gives (ReCo+).

    The head's concepts, or names of levels, are taken for the labels of your images' patches; the surer it
    is, the more they count. A GNN on the same features learns them, until images that are held out get no
    better. The bundle keeps its other heads; both are compared in a table.

    Stopped at any point, the same command goes on where it was. --work holds a log.jsonl.
    """
    from dataclasses import replace

    from patchcut_export.progress import StepBar
    from patchcut_export.training.adapt_recipe import AdaptRequest, adapt_bundle, to_text
    from patchcut_export.training.adaptation import AdaptPlan

    plan = AdaptPlan(seed=seed, epochs=epochs, batch=batch, learning_rate=learning_rate, threshold=threshold)
    request = AdaptRequest(
        images=images,
        settings=replace(settings, bundle=bundle),
        head=head,
        out=out or bundle,
        work=work_dir,
        layout=dataset,
        root=root,
        trained_on=trained_on or images.name,
    )
    with StepBar() as bar:
        heads = adapt_bundle(request, plan, bar)
    print(to_text(heads))
    return 0
