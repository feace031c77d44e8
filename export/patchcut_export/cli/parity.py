"""`patchcut export parity`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from patchcut.cli.options import with_settings
from patchcut.settings import Settings


@with_settings(only=("device", "threads"))
def parity(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="An embedded bundle's name, or a .patchcut file.")
    ],
    *,
    size: Annotated[
        list[int] | None,
        typer.Option("--size", help="Side of the input in pixels; again for more.", show_default="all"),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option("--engine", help="An engine to try; again for more.", show_default="all"),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option("--precision", help="A precision to try; again for more.", show_default="all"),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of images to compare on.", show_default="the sample photos")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Images to look at.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each is timed, in turns.")] = 20,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="JSON file for all of it.", show_default=False)
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture file for a plot.", show_default=False)] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Write the times into the bundle: auto heeds them on such CPUs.")
    ] = False,
    settings: Settings,
) -> int:
    """Run every engine and precision that this machine can, side by side.

    Agreement with fp32 (features, labels, masks), time in turns in one process,
    memory and loading in a process each, and size in the bundle.
    """
    from patchcut.cli.printing import make_console
    from patchcut.texts import one_line

    from patchcut_export.measuring.parity.measure import ParityRequest, measure_parity
    from patchcut_export.progress import StepBar

    request = ParityRequest(
        settings=replace(settings, bundle=bundle),
        sizes=tuple(dict.fromkeys(size or ())),
        engines=tuple(dict.fromkeys(engine or ())),
        precisions=tuple(dict.fromkeys(precision or ())),
        images=images,
        limit=limit,
        rounds=rounds,
        plot=plot,
        json_file=json_file,
        record=record,
    )
    with StepBar() as bar:
        report = measure_parity(request, bar.step)
    console = make_console()
    for table in report.tables():
        console.print(table)
    for note in report.notes():
        console.print(one_line(note))
    for path in filter(None, (json_file, plot, Path(bundle) if record else None)):
        console.print(f"wrote {one_line(str(path))}")
    return 0
