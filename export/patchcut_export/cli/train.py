"""`patchcut export train`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from patchcut.cli.options import with_settings
from patchcut.settings import Settings

from patchcut_export.cli.made_bundle import Backbone, Name, TrainedOn


@with_settings(only=("device", "precision", "size", "threads"))
def train(
    *,
    images: Annotated[Path, typer.Option(help="Folder of unlabelled images, searched with its subfolders.")],
    bundle: Annotated[
        Path, typer.Option(help="The .patchcut file to write: the backbone with the trained head.")
    ],
    backbone: Backbone = "default",
    loss: Annotated[
        str | None,
        typer.Option(help="Train columns on DeepCut's loss: ncut or cc.", show_default="in stages"),
    ] = None,
    k: Annotated[
        int | None, typer.Option("--k", "-k", help="Columns.", show_default="2, and 16 of parts")
    ] = None,
    parts: Annotated[
        bool,
        typer.Option("--parts", help="Train columns for parts of what --backbone's head finds, and keep it."),
    ] = False,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Names of the columns after the background, with commas.", show_default="part-1,..."
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(help="Of cc: the larger, the fewer columns are used.", show_default="3"),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            help="Of columns: at 0 they are how patches look, at more what they show.", show_default="2"
        ),
    ] = None,
    work_dir: Annotated[
        Path, typer.Option("--work", help="Folder for features, checkpoints and log.")
    ] = Path("patchcut-train"),
    dev: Annotated[
        Path | None, typer.Option(help="Folder with images/ and masks/, to watch the IoU.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same weights on one machine.")] = 0,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Passes over the images: in each stage after the first; of columns the limit.",
            show_default="6; of columns 12",
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=0, help="In stages: how often the head learns from its own refined masks.", show_default="1"
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images a step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW.")] = 1e-3,
    threshold: Annotated[
        float | None, typer.Option(help="Cosines not above it are no edge.", show_default="0.2")
    ] = None,
    name: Name = None,
    trained_on: TrainedOn = None,
    settings: Settings,
) -> int:
    """Train the `gnn` head on a folder of images, without labels.

    By itself it finds the foreground, in stages: DeepCut's NCut loss, cuts of single images, its own refined
    masks. With --loss, -k or --parts it is k columns of DeepCut's loss over the patches of many images, which
    mean the same on each; it ends when images that are held out get no better, and the best weights are kept.

    Stopped at any point, the same command goes on where it was; after the end it only writes the bundle, so
    that --labels may still change. --work holds a log.jsonl: a line an epoch with the loss, the loss on
    held-out images and, with --dev, the mean foreground IoU.
    """
    from patchcut_export.cli.plans import choose_plan
    from patchcut_export.progress import StepBar
    from patchcut_export.training.recipe import TrainRequest, train_bundle

    plan = choose_plan(
        loss=loss,
        k=k,
        parts=parts,
        alpha=alpha,
        context=context,
        threshold=threshold,
        rounds=rounds,
        seed=seed,
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
    )
    request = TrainRequest(
        images=images,
        settings=replace(settings, bundle=backbone),
        bundle=bundle,
        work=work_dir,
        dev=dev,
        name=name or bundle.stem,
        trained_on=trained_on or images.name,
        labels=None if labels is None else tuple(name.strip() for name in labels.split(",")),
    )
    with StepBar() as bar:
        train_bundle(request, plan, bar)
    return 0
