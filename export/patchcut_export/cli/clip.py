"""`patchcut export clip`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from patchcut.errors import OptionError

from patchcut_export.cli.made_bundle import Name, WeightsLicence, WeightsSource, WeightsTrainedOn


def clip(
    *,
    model: Annotated[
        str | None,
        typer.Option(
            help="open_clip's name, such as ViT-B-16, RN50 or ViT-B-16-SigLIP, or its config, a .json file.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="A .safetensors, .pth, .pt or .bin file, or open_clip's tag, such as laion2b_s34b_b88k.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The .patchcut file to write.", show_default="MODEL.patchcut")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Sides of the square images in pixels, with commas; the first is the default.",
            show_default="the model's own",
        ),
    ] = None,
    dense: Annotated[
        str | None,
        typer.Option(
            help="Outputs a patch in the space of texts, with commas: maskclip, naclip, or none.",
            show_default="maskclip, where the model gives it",
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="A tokenizer.json or its folder, for models whose tokenizer is not open_clip's own.",
            show_default="open_clip's, or the hub's",
        ),
    ] = None,
    download: Annotated[
        bool,
        typer.Option("--download", help="Fetch from the Hugging Face hub what is not on this machine."),
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for downloads.", show_default="the hub's own")
    ] = None,
    name: Name = None,
    source: WeightsSource = None,
    licence: WeightsLicence = None,
    trained_on: WeightsTrainedOn = None,
) -> int:
    """Export CLIP's image tower, text tower and tokenizer to ONNX, in one bundle, to find images by words.

    Without --download nothing is fetched: the line says what would be, how large it is and its licence.
    """
    from patchcut_export.backbones.origins import Told
    from patchcut_export.cli.features import parse_sizes
    from patchcut_export.cli.lists import parse_list
    from patchcut_export.outputs import check_output_file
    from patchcut_export.progress import StepBar
    from patchcut_export.retrieval.building import ClipPlan, build_clip
    from patchcut_export.retrieval.models import find_config, with_weights_of
    from patchcut_export.retrieval.origins import Access, get_clip_weights, get_tokenizer

    for option, given in (("model", model), ("weights", weights)):
        if given is None:
            raise OptionError(option, "must be given", "such as --model ViT-B-16 --weights laion2b_s34b_b88k")
    config = find_config(str(model))
    target = out or Path(f"{config.name}.patchcut")
    check_output_file(target)
    wanted = None if dense is None else () if dense == "none" else tuple(parse_list("dense", dense))
    sizes = () if size is None else parse_sizes(size)
    with StepBar() as bar:
        access = Access(download, cache, bar.say)
        told = Told(source, licence, trained_on)
        state, origin, fields = get_clip_weights(config, str(weights), told, access)
        text = get_tokenizer(config, tokenizer, access)
        plan = ClipPlan(with_weights_of(config, fields), sizes, wanted)
        build_clip(target, plan, state, origin, text, name=name or target.stem, say=bar.say)
        bar.say(
            f"wrote {target}, {target.stat().st_size / 1e6:.1f} MB; licence of its weights: {origin.licence}"
        )
    return 0
