"""`patchcut export index` and `patchcut export search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from patchcut.cli.options import with_settings
from patchcut.settings import Settings


@with_settings(only=("device", "threads"))
def index(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Folders of images, searched with their subfolders."),
    ],
    *,
    clip: Annotated[Path, typer.Option(help="Bundle that `patchcut export clip` made.")],
    out: Annotated[Path, typer.Option(help="Folder of the index; brought up to date where it is one.")],
    dtype: Annotated[str, typer.Option(help="Of the embeddings on disk: float16 or float32.")] = "float16",
    alike: Annotated[
        float, typer.Option(help="Images whose cosine is this or more are nearly the same.")
    ] = 0.97,
    engine: Annotated[
        str, typer.Option(help="Where images are looked at: local, or ray, on a Ray cluster (extra scale).")
    ] = "local",
    settings: Settings,
) -> int:
    """Index images to find them by words: an embedding each, by CLIP's image tower.

    Run again, it looks only at new and changed files, and drops those that have gone. Stopped at any point,
    the same command goes on where it was. With --engine ray, the machines of a cluster look at shards of the
    images, one CPU or GPU a task; images and CLIP must be there under the same paths.
    """
    from patchcut.bundle import open_bundle
    from patchcut.cli.printing import make_console
    from patchcut.texts import one_line

    from patchcut_export.progress import StepBar
    from patchcut_export.retrieval.indexing import IndexRequest, update_index
    from patchcut_export.training.extractions import open_extraction

    with open_extraction(engine, "float32") as extraction, StepBar() as bar, open_bundle(clip) as bundle:
        others = None if engine == "local" else extraction  # this machine looks at several images at once
        update = update_index(IndexRequest(folders, bundle, out, settings, dtype, alike, others), bar)
    console = make_console()
    made = update.index
    groups = made.groups()
    console.print(f"{len(made.images)} images in {out}: {update.added} looked at, {update.dropped} dropped")
    if groups:
        console.print(f"{sum(map(len, groups)) - len(groups)} are nearly the same as another, such as:")
        for rows in groups[:_SHOWN]:
            console.print(f"  {one_line(', '.join(made.images[row].path for row in rows[:_SHOWN]))}")
    _print_problems(update.problems)
    return 1 if update.problems else 0


def search(
    folder: Annotated[
        Path, typer.Argument(metavar="INDEX", help="An index that `patchcut export index` made.")
    ],
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help='What is looked for, such as "fire extinguisher".')
    ],
    *,
    k: Annotated[int, typer.Option("-k", help="How many images.")] = 50,
    clip: Annotated[
        Path | None, typer.Option(help="The bundle it was made with.", show_default="where it was")
    ] = None,
    prompts: Annotated[
        str,
        typer.Option(
            help="What the text is put into: imagenet (80 templates), plain, none, or one with {} in it."
        ),
    ] = "plain",
    repeats: Annotated[
        bool, typer.Option("--repeats", help="Also show images that are nearly the same as another.")
    ] = False,
    sheet: Annotated[
        Path | None, typer.Option(help="The contact sheet to draw.", show_default="search.png in INDEX")
    ] = None,
) -> int:
    """Find images by words: a table of the nearest, and a contact sheet."""
    from patchcut.bundle import open_bundle
    from patchcut.cli.printing import make_console
    from patchcut.texts import name_text, one_line

    from patchcut_export.outputs import check_output_file
    from patchcut_export.retrieval.index import check_clip, open_index
    from patchcut_export.retrieval.prompts import find_templates
    from patchcut_export.retrieval.sheet import write_search_sheet
    from patchcut_export.retrieval.texts import TextEncoder

    templates = find_templates(prompts)
    found_in = open_index(folder)
    target = sheet or folder / "search.png"
    check_output_file(target)
    with open_bundle(clip or found_in.clip.path) as bundle:
        check_clip(found_in, bundle)
        vector = TextEncoder.open(bundle).encode_names([text], templates)[0]
    hits = found_in.search(vector, k, repeats=repeats)
    console = make_console()
    console.print("   #  cosine  image")  # a table of rich would break long paths
    for place, hit in enumerate(hits, 1):
        console.print(f"{place:>4}  {hit.cosine:6.3f}  {one_line(name_text(hit.path))}")
    gone = write_search_sheet(target, hits)
    console.print(f"drawn: {target}")
    if gone:
        console.print(
            f"{gone} of these {len(hits)} have gone: run `patchcut export index` again", style="bold yellow"
        )
    return 0


def _print_problems(problems: tuple[str, ...]) -> None:
    from patchcut.cli.printing import make_console

    console = make_console()
    if problems:
        console.print(f"{len(problems)} left out:", style="bold yellow")
    for line in problems[:_SHOWN]:
        console.print(f"  {line}")


_SHOWN = 5
