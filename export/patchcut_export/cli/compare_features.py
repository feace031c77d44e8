"""`patchcut export features`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from patchcut.cli.options import with_settings
from patchcut.settings import Settings


@with_settings(only=("device", "precision", "size", "threads"))
def features(
    *,
    images: Annotated[
        Path, typer.Option(help="Folder of images; without --masks searched with its subfolders.")
    ],
    masks: Annotated[
        Path | None,
        typer.Option(help="Folder of masks, called as their images; images without one are left out."),
    ] = None,
    classes: Annotated[
        bool | None,
        typer.Option(
            "--classes/--no-classes",
            help="Whether a mask has a class a pixel, 0 background, 255 unknown; else white is foreground.",
            show_default="classes where masks have a palette",
        ),
    ] = None,
    backbone: Annotated[
        str, typer.Option(help="Bundles with commas: names of embedded ones, or files.")
    ] = "default",
    sets: Annotated[
        str | None,
        typer.Option(
            help="Feature sets of the bundles, with commas. A bundle gets more of them by the --features of "
            "`patchcut export backbone`.",
            show_default="all that have a row a patch",
        ),
    ] = None,
    k: Annotated[
        int, typer.Option("--k", "-k", help="Clusters of k-means over the patches of all images.")
    ] = 8,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Of k-means, and of the patches that are drawn.")
    ] = 0,
    work_dir: Annotated[
        Path, typer.Option("--work", help="Folder for features; what is there is not computed again.")
    ] = Path("patchcut-features"),
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for features.json, features.png and features.svg.", show_default="that of --work"
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    settings: Settings,
) -> int:
    """Compare feature sets, layers and backbones by how well their patches separate.

    With masks: foreground from background, by clusters and by a linear probe; and classes from one another.
    Without: how far apart clusters are.
    """
    from patchcut.cli.printing import make_console
    from patchcut.texts import name_text, one_line

    from patchcut_export.cli.lists import parse_list
    from patchcut_export.measuring.separability.measure import SeparabilityRequest, compare_features
    from patchcut_export.progress import StepBar

    request = SeparabilityRequest(
        images=images,
        masks=masks,
        classes=classes,
        bundles=tuple(dict.fromkeys(parse_list("backbone", backbone))),
        sets=() if sets is None else tuple(dict.fromkeys(parse_list("sets", sets))),
        k=k,
        seed=seed,
        settings=settings,
        work=work_dir,
        out=out or work_dir,
    )
    with StepBar() as bar:
        report = compare_features(request, bar)
    if json:
        print(report.to_json())
        return 0
    console = make_console()
    console.print(report.table())
    for note in report.notes():
        console.print(one_line(note))
    console.print(f"wrote features.json, features.png and features.svg in {one_line(name_text(request.out))}")
    return 0
