"""`patchcut export eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from patchcut.cli.options import with_settings
from patchcut.settings import Settings

from patchcut_export.measuring import DEFAULTS

_DATASETS = (
    "As published: ecssd, duts, dut-omron, cub, voc07, voc12, coco20k, davis16, davis17, and with a class "
    "for each pixel voc12-seg, voc20, context59, context60, coco-seg, coco-stuff27, coco-stuff171, "
    "cityscapes27, cityscapes19, kitti-step. Your own folders: masks: images/ and "
    "masks/ with the same names; classes: the same, masks with a class for each pixel, to measure parts; "
    "semantic: the same, to measure classes; sequences: the same with a folder for each video; boxes: "
    "images/ and boxes.json."
)


@with_settings(**DEFAULTS)
def evaluate(
    layout: Annotated[str, typer.Argument(metavar="DATASET", help=_DATASETS)],
    *,
    root: Annotated[Path, typer.Option(help="Folder of the dataset.")],
    split: Annotated[
        str | None,
        typer.Option(help="Part of the dataset, such as val.", show_default="the one in the papers' tables"),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(
            "--list",
            help="coco20k, coco-stuff27: the list of its images.",
            show_default="searched in --root",
        ),
    ] = None,
    difficult: Annotated[
        bool | None,
        typer.Option(
            "--difficult/--no-difficult",
            help="Count boxes that are marked as difficult as objects.",
            show_default="counted for voc07 and voc12, left out for boxes",
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="Of videos: frames, each by itself; stream, in order as in a video; first-mask and "
            "first-box, followed from the first frame's true masks, or boxes around them.",
            show_default="frames",
        ),
    ] = None,
    sequences: Annotated[
        str | None, typer.Option(help="Names of the videos to take, such as dog,bear.", show_default="all")
    ] = None,
    every: Annotated[
        int | None, typer.Option(help="Of videos: take every N-th frame.", show_default="1")
    ] = None,
    background: Annotated[
        bool | None,
        typer.Option(
            "--background/--no-background",
            help="semantic: whether class 0 is background.",
            show_default="as its name in classes.txt says, background without that",
        ),
    ] = None,
    resolution: Annotated[
        str | None,
        typer.Option(
            help="Of a class for each pixel: full, or 320, the middle square with the shorter side scaled.",
            show_default="320 for coco-stuff27 and cityscapes27, else full",
        ),
    ] = None,
    match: Annotated[
        str | None,
        typer.Option(
            help="Of a class for each pixel: hungarian, which class a column is comes from the masks; names, "
            "from its name.",
            show_default="names if all columns have one of the classes', else hungarian",
        ),
    ] = None,
    empty_scenes: Annotated[
        bool,
        typer.Option(
            "--empty-scenes",
            help="With masks: also cut out each image's background and ask whether nothing is found there.",
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="JSON lines file for each image's numbers.")] = None,
    grid: Annotated[Path | None, typer.Option(help="Picture file: the best and the worst images.")] = None,
    confusion: Annotated[
        Path | None, typer.Option(help="Picture file: which classes were taken for which.")
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Write the numbers into the report of --bundle.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    settings: Settings,
) -> int:
    """Measure a bundle as the papers do, and say how it was measured.

    Masks: mean foreground IoU, pixel accuracy, max F-beta; videos: J and F of DAVIS, and how steady masks
    are; boxes: CorLoc of the best box; a class for each pixel: mIoU and pixel accuracy, clusters matched;
    classes and keypoints, for heads with parts: NMI and ARI. Nothing is downloaded.
    """
    from patchcut_export.measuring.datasets import Choices
    from patchcut_export.measuring.measure import EvalRequest, measure
    from patchcut_export.progress import StepBar

    request = EvalRequest(
        layout=layout,
        root=root,
        choices=Choices(
            split=split,
            names=names,
            difficult=difficult,
            sequences=None if sequences is None else tuple(name.strip() for name in sequences.split(",")),
            every=every,
            background=background,
            resolution=resolution,
        ),
        protocol=protocol,
        match=match,
        settings=settings,
        scores=out,
        grid=grid,
        confusion=confusion,
        record=record,
        empty_scenes=empty_scenes,
    )
    with StepBar() as bar:
        report = measure(request, bar)
    print(report.to_json() if json else report.to_text())
    return 0
