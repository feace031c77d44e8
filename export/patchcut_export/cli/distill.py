"""`patchcut export distill`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from patchcut.cli.options import with_settings
from patchcut.settings import Settings

from patchcut_export.cli.made_bundle import Name, TrainedOn


@with_settings(only=("device", "threads"))
def distill(
    *,
    images: Annotated[Path, typer.Option(help="Folder of unlabelled images, searched with its subfolders.")],
    student: Annotated[
        str,
        typer.Option(
            help="timm's name of a ViT or a convolutional network; of a ViT with the layers that are kept "
            "and the share of the MLPs' units: vit_small_patch14_dinov2:layers=0,2,4,6,8,10:mlp=0.75."
        ),
    ],
    bundle: Annotated[Path, typer.Option(help="The .patchcut file to write.")],
    teacher: Annotated[
        str, typer.Option(help="Bundle that it learns from: an embedded one's name, or a file.")
    ] = "default",
    start: Annotated[
        str | None,
        typer.Option(
            help="Weights that the student starts from: a file, or a backbone's name as in "
            "`patchcut export backbone`.",
            show_default="random ones",
        ),
    ] = None,
    freeze: Annotated[
        bool,
        typer.Option(
            "--freeze",
            help="Keep the teacher's backbone, features and heads as they are, and train a decoder for them; "
            "--start names the backbone's weights.",
        ),
    ] = False,
    size: Annotated[
        str, typer.Option(help="Sides of its inputs in pixels, with commas; it is trained at the first.")
    ] = "126",
    precision: Annotated[str, typer.Option(help="Precisions of its graphs, with commas.")] = "int8",
    work_dir: Annotated[
        Path, typer.Option("--work", help="Folder for the teacher's features and masks, and for runs.")
    ] = Path("patchcut-distill"),
    run: Annotated[
        str, typer.Option(help="Name of this run: its folder in --work, for checkpoint, log and curve.")
    ] = "student",
    average: Annotated[
        str | None,
        typer.Option(
            help="Finished runs in --work, with commas, with whose weights this one's are averaged.",
            show_default="none",
        ),
    ] = None,
    dev: Annotated[
        Path | None, typer.Option(help="Folder with images/ and masks/, to watch the IoU.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same weights on one machine.")] = 0,
    order: Annotated[
        int, typer.Option(help="Another number for another order and other views of the same images.")
    ] = 0,
    nothing: Annotated[float, typer.Option(help="Share of the views that show nothing.")] = 0.15,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the images.")] = 20,
    batch: Annotated[int, typer.Option(min=1, help="Images a step.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW, for the trunk.")] = 1e-4,
    calibrate: Annotated[
        int, typer.Option(min=0, help="Photographs of --images that scores are calibrated on; 0 for none.")
    ] = 1000,
    name: Name = None,
    trained_on: TrainedOn = None,
    settings: Settings,
) -> int:
    """Distil a bundle into a smaller backbone with a mask decoder, on a folder of images without labels.

    The student learns the teacher's features, and the masks of an ensemble: of the teacher's head and of
    `ncut`, each at every size of the teacher's graphs, moved onto edges by GrabCut. Its decoder answers on
    four by four cells a patch, inside the graph.

    Stopped at any point, the same command goes on where it was. A run's folder holds a log.jsonl and a
    curve.png. The mean of the weights of several runs, which differ in --order or --nothing, is better than
    each of them: --average.
    """
    from patchcut_export.cli.features import parse_precisions, parse_sizes
    from patchcut_export.distillation.recipe import DistillRequest, check_run, distill_bundle
    from patchcut_export.distillation.start import starting_weights
    from patchcut_export.distillation.student import StudentSpec
    from patchcut_export.distillation.training import DistillPlan
    from patchcut_export.progress import StepBar

    spec = StudentSpec.parse(student)
    plan = DistillPlan(
        epochs=epochs, batch=batch, seed=seed, order=order, nothing=nothing, learning_rate=learning_rate
    )
    sizes, precisions = parse_sizes(size), parse_precisions(precision)
    with StepBar() as bar:
        request = DistillRequest(
            images=images,
            settings=replace(settings, bundle=teacher),
            student=spec,
            start=None if start is None else starting_weights(spec, start, bar.say),
            freeze=freeze,
            sizes=sizes,
            precisions=precisions,
            bundle=bundle,
            work=work_dir,
            run=check_run("run", run),
            average=tuple(check_run("average", one) for one in average.split(",")) if average else (),
            dev=dev,
            name=name or bundle.stem,
            trained_on=trained_on or images.name,
            calibrate=calibrate,
        )
        distill_bundle(request, plan, bar)
    return 0
