"""`patchcut export concept` and `patchcut export concepts`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from patchcut.cli.options import with_settings
from patchcut.settings import Settings

from patchcut_export.cli.made_bundle import Name

if TYPE_CHECKING:
    from patchcut_export.concepts.language import Words

_Backbone = Annotated[
    str,
    typer.Option(help="Bundle that is copied: an embedded one, or a file.", show_default="default"),
]


@with_settings(only=("device", "precision", "size", "threads"))
def make_concepts_bundle(
    *,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="With --index, words that are looked up. Else those of the archives that become concepts.",
            show_default="all archives",
        ),
    ] = None,
    archive: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR", help="Folder of photographs that show it; one a concept."),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="COCO JSON with boxes on photographs of --archive; its categories are the names.",
        ),
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="An index of images, by `patchcut export index`, that words find.")
    ] = None,
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
    classes_of: Annotated[
        str | None,
        typer.Option(metavar="DATASET", help="Words: the classes of a set of `patchcut export eval`."),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Images of the index for each word.")] = 50,
    clip: Annotated[
        Path | None,
        typer.Option(help="Bundle of `patchcut export clip`.", show_default="the one of the index"),
    ] = None,
    prompts: Annotated[
        str, typer.Option(help="What a word is put into: imagenet, plain, none, or one with {} in it.")
    ] = "plain",
    guided: Annotated[
        bool | None,
        typer.Option(
            "--guided/--no-guided",
            help="Let patches count as much as the CLIP sees the word there.",
            show_default="where it can tell",
        ),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(
            help="What is around things: words with commas, which the index has images of, or none.",
            show_default="tree,sky,building,road,person with --index",
        ),
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
    name: Name = None,
    settings: Settings,
) -> int:
    """Make concepts of words or of folders of photographs, without labels or training.

    With --index, words find their photographs in an index of images; with --archive, you name a folder.
    Co-segmentation (ReCo, arXiv 2206.07045) finds what the photographs of a concept have in common. Regions
    that resemble it get its name; a region that resembles no concept enough is background.

    Features are kept in --work, so that the same command takes seconds the next time. Pictures there show
    which part of each photograph was taken: cross out what is wrong with --without, and run it again.
    """
    from patchcut_export.concepts.recipe import ConceptsPlan, ConceptsRequest, make_concepts
    from patchcut_export.progress import StepBar

    folders = _folders(archive or [])
    words = _words(names or [], folders, index, classes_of, context)
    if index is None:
        folders = {name: folders[name] for name in names} if names else folders
    plan = ConceptsPlan(recipe=recipe, prototypes=prototypes, seed=seed)
    with StepBar() as bar:
        request = ConceptsRequest(
            archives=folders,
            words=replace(words, clip=clip, k=k, prompts=prompts, guided=guided),
            boxes=boxes,
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
    name: Name = None,
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


def _folders(archives: list[str]) -> dict[str, Path]:
    """The folder of each name.

    Raises:
        OptionError: an archive is not NAME=DIR or comes twice.
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
    return folders


def _words(
    names: list[str],
    folders: dict[str, Path],
    index: Path | None,
    classes_of: str | None,
    context: str | None,
) -> Words:
    """What is looked up in the index, if there is one.

    Raises:
        OptionError: a name comes twice, has a folder as well, or has none and there is no index; or an option
            needs an index.
    """
    from patchcut.errors import OptionError

    from patchcut_export.cli.lists import parse_list
    from patchcut_export.concepts.language import CONTEXT, Words

    if twice := [name for name in names if names.count(name) > 1]:
        raise OptionError("name", f'must differ from concept to concept, got "{twice[0]}" twice')
    if index is None:
        for option, given in (("classes-of", classes_of), ("context", context)):
            if given is not None:
                raise OptionError(option, "needs an index", "--index INDEX, of `patchcut export index`")
        if missing := [name for name in names if name not in folders]:
            remedy = f"--archive '{missing[0]}=DIR', or --index INDEX"
            raise OptionError("archive", f'has no folder for "{missing[0]}"', remedy)
        return Words()
    if both := [name for name in names if name in folders]:
        what = f'must differ from the archives\', got "{both[0]}", which has a folder'
        raise OptionError("name", what, "leave it out of one")
    texts: dict[str, tuple[str, ...]] = {name: (name,) for name in names}
    if classes_of is not None:
        from patchcut_export.measuring.datasets import class_texts

        texts |= {name: each for name, each in class_texts(classes_of).items() if name not in folders}
    around = (
        () if context == "none" else CONTEXT if context is None else tuple(parse_list("context", context))
    )
    return Words(names=texts, index=index, context=around)
