"""`patchcut export levels`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from patchcut.cli.options import with_settings
from patchcut.settings import Settings

from patchcut_export.cli.made_bundle import Backbone, Name, TrainedOn


@with_settings(only=("device", "precision", "size", "threads"))
def make_levels_bundle(
    *,
    images: Annotated[Path, typer.Option(help="Folder of unlabelled images, searched with its subfolders.")],
    bundle: Annotated[
        Path, typer.Option(help="The .patchcut file to write: the backbone with the head `levels`.")
    ],
    backbone: Backbone = "default",
    features: Annotated[
        str | None,
        typer.Option(
            help="Names of its feature sets: for the foreground, of the class token, for names.",
            show_default="the first of patches, the first class token, semantic",
        ),
    ] = None,
    clusters: Annotated[
        int | None,
        typer.Option("--clusters", "-k", help="Clusters of each level.", show_default="2"),
    ] = None,
    foreground: Annotated[
        str | None,
        typer.Option(
            help="Numbers of the clusters that are foreground, with commas; see clusters.jpg.",
            show_default="decided without labels",
        ),
    ] = None,
    categories: Annotated[
        int | None, typer.Option(help="Groups of images.", show_default="by silhouette")
    ] = None,
    names: Annotated[int | None, typer.Option(help="Kinds of things.", show_default="by silhouette")] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="What the kinds are called, with commas; see names.jpg.", show_default="thing 1,..."
        ),
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(help="Folder with a folder of images for each name, to call the kinds by.")
    ] = None,
    concepts: Annotated[
        Path | None,
        typer.Option(
            help="Bundle with concepts, or safetensors of vectors: a kind whose regions are one has its name."
        ),
    ] = None,
    levels: Annotated[
        str, typer.Option("--levels", help="Those that vote, with commas: dataset, category, image.")
    ] = "dataset,category,image",
    dataset_only: Annotated[
        bool,
        typer.Option(
            "--dataset-only", help="Only clusters of all patches, each a name; nothing is background."
        ),
    ] = False,
    refine_regions: Annotated[
        str, typer.Option(help="Refiner of regions before they are named: none, guided, bilateral.")
    ] = "none",
    temperature: Annotated[float, typer.Option(help="Of the votes: the smaller, the harder.")] = 0.2,
    threshold: Annotated[
        float, typer.Option(help="Patches whose cosine is above it agree on their side.")
    ] = 0.6,
    work_dir: Annotated[
        Path, typer.Option("--work", help="Folder for features, clusters and contact sheets.")
    ] = Path("patchcut-levels"),
    engine: Annotated[
        str,
        typer.Option(
            help="Where the backbone and k-means run: local, or ray, on a Ray cluster (extra scale)."
        ),
    ] = "local",
    seed: Annotated[int, typer.Option(help="The same seed gives the same clusters.")] = 0,
    name: Name = None,
    trained_on: TrainedOn = None,
    settings: Settings,
) -> int:
    """Find and name what images show by clustering alone, without labels or training.

    The multilevel clustering framework (arXiv 2311.18628): the patches of all images, of each category of
    images, and of each image are clustered; together they say what is foreground. Its regions are clustered
    into kinds of things. The backbone needs a class token; `patchcut export backbone --features
    key,semantic=token@8,cls` makes one that has all that is needed.

    Stopped at any point, the same command goes on where it was. --work gets contact sheets of the clusters
    and of the kinds: look at them, then run it again with --foreground or --labels, which takes seconds.
    """
    from patchcut.checks import check_choice
    from patchcut.stages.refiners import REFINERS

    from patchcut_export.cli.lists import parse_list, parse_numbers
    from patchcut_export.clustering.engines import open_steps
    from patchcut_export.levels.plan import LevelsPlan, LevelsRequest
    from patchcut_export.levels.recipe import make_levels
    from patchcut_export.progress import StepBar
    from patchcut_export.training.extractions import open_extraction

    check_choice("refine-regions", refine_regions, tuple(REFINERS))
    plan = LevelsPlan(
        clusters=2 if clusters is None else clusters,
        foreground=None if foreground is None else parse_numbers("foreground", foreground),
        categories=categories,
        names=names,
        levels=tuple(parse_list("levels", levels)),
        dataset_only=dataset_only,
        temperature=temperature,
        threshold=threshold,
        refine=refine_regions,
        seed=seed,
    )
    with (
        open_steps(engine, settings.device) as steps,
        open_extraction(engine) as extraction,
        StepBar() as bar,
    ):
        request = LevelsRequest(
            images=images,
            settings=replace(settings, bundle=backbone),
            bundle=bundle,
            work=work_dir,
            sets=None if features is None else tuple(parse_list("features", features)),
            labels=None if labels is None else tuple(parse_list("labels", labels)),
            examples=examples,
            concepts=concepts,
            name=name or bundle.stem,
            trained_on=trained_on or images.name,
            steps=steps,
            extraction=extraction,
        )
        make_levels(request, plan, bar)
    return 0
