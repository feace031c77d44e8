"""`patchcut export concept` and `patchcut export concepts`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from patchcut.cli.options import with_settings
from patchcut.settings import Settings

_Backbone = Annotated[
    str,
    typer.Option(help="Bundle that is copied: an embedded one, or a file.", show_default="default"),
]


@with_settings(only=("device", "precision", "size", "threads"))
def make_concepts_bundle(
    *,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Those of the archives that become concepts; all if none."),
    ] = None,
    archive: Annotated[
        list[str], typer.Option(metavar="NAME=DIR", help="Folder of photographs that show it; one a concept.")
    ],
    bundle: Annotated[
        Path, typer.Option(help="The .patchcut file to write: a copy with the head `concepts`.")
    ],
    backbone: _Backbone = "default",
    negatives: Annotated[
        Path | None, typer.Option(help="Folder of photographs in which no concept is to be found.")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Photograph that is left out, by its name; see the pictures."),
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="Name of the feature set.", show_default="semantic")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="default, or published: the paper's co-segmentation as it is.")
    ] = "default",
    prototypes: Annotated[int, typer.Option(help="Vectors a concept, by k-means of what was found.")] = 1,
    work_dir: Annotated[
        Path, typer.Option("--work", help="Folder for features and for pictures of what was taken.")
    ] = Path("patchcut-concepts"),
    seed: Annotated[int, typer.Option(help="The same seed gives the same concepts.")] = 0,
    name: Annotated[
        str | None, typer.Option(help="Name of the new bundle.", show_default="of the file")
    ] = None,
    settings: Settings,
) -> int:
    """Make concepts of folders of photographs, without labels or training.

    Co-segmentation (ReCo, arXiv 2206.07045) finds what the photographs of a folder have in common. Regions
    that resemble it get its name; a region that resembles no concept enough is background.

    Features are kept in --work, so that the same command takes seconds the next time. Pictures there show
    which part of each photograph was taken: cross out what is wrong with --without, and run it again.
    """
    from patchcut_export.concepts.recipe import ConceptsPlan, ConceptsRequest, make_concepts
    from patchcut_export.progress import StepBar

    plan = ConceptsPlan(recipe=recipe, prototypes=prototypes, seed=seed)
    with StepBar() as bar:
        request = ConceptsRequest(
            archives=_folders(names or [], archive),
            negatives=negatives,
            without=tuple(without or ()),
            settings=replace(settings, bundle=backbone),
            bundle=bundle,
            work=work_dir,
            features=features,
            name=name or bundle.stem,
        )
        make_concepts(request, plan, bar)
    return 0


def make_vectors_bundle(
    *,
    vectors: Annotated[
        Path, typer.Option(metavar="FILE.safetensors", help="Vectors by the names of their concepts.")
    ],
    bundle: Annotated[
        Path, typer.Option(help="The .patchcut file to write: a copy with the head `concepts`.")
    ],
    backbone: _Backbone = "default",
    threshold: Annotated[float, typer.Option(help="Cosine that what is named must exceed.")] = 0.0,
    foreground: Annotated[
        bool, typer.Option(help="Name regions of the bundle's head for objects; else every patch by itself.")
    ] = True,
    name: Annotated[
        str | None, typer.Option(help="Name of the new bundle.", show_default="of the file")
    ] = None,
) -> int:
    """Make concepts of ready-made vectors in the space of a bundle's features.

    The file's metadata say of which backbone and which features they are: `backbone_sha256`, the backbone's
    source_sha256 that `patchcut info --json` prints, and `features`, such as semantic.
    """
    from patchcut.checks import check_number

    from patchcut_export.concepts.vectors import make_of_vectors
    from patchcut_export.progress import StepBar

    check_number("threshold", threshold, -1, 1)
    made = make_of_vectors(vectors, backbone, bundle, name or bundle.stem, threshold, foreground=foreground)
    with StepBar() as bar:
        bar.say(f"wrote {bundle} with {len(made)} concepts: {', '.join(made)}")
    return 0


def _folders(names: list[str], archives: list[str]) -> dict[str, Path]:
    """The folder of each concept that is asked for.

    Raises:
        OptionError: an archive is not NAME=DIR or comes twice, or a concept has none.
    """
    from patchcut.errors import OptionError

    folders: dict[str, Path] = {}
    for text in archives:
        name, equals, folder = text.partition("=")
        if not equals or not folder:
            raise OptionError("archive", f"must be NAME=DIR, got {text!r}", "--archive mug=photos/mug")
        if name in folders:
            raise OptionError("archive", f'gives "{name}" twice', "call one of them otherwise")
        folders[name] = Path(folder)
    if missing := [name for name in names if name not in folders]:
        remedy = f"--archive '{missing[0]}=DIR'"
        raise OptionError("archive", f'has no folder for "{missing[0]}"', remedy)
    if twice := [name for name in names if names.count(name) > 1]:
        raise OptionError("name", f'must differ from concept to concept, got "{twice[0]}" twice')
    return {name: folders[name] for name in names} if names else folders
