"""`patchcut export fused`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from patchcut_export.cli.fused_file import Color, FrameSize, FusedHead, Precision, Size

if TYPE_CHECKING:
    from patchcut.settings import ColorOrder


def fused(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="An embedded bundle's name, or a .patchcut file.")
    ],
    *,
    out: Annotated[Path, typer.Option(help="The .onnx file to write.")],
    head: FusedHead = "auto",
    size: Size = None,
    precision: Precision = "fp32",
    frame: FrameSize = None,
    color: Color = "rgb",
    label_map: Annotated[
        bool, typer.Option("--label-map", help="Another output: the label of each pixel of the frame.")
    ] = False,
    features: Annotated[
        bool, typer.Option("--features", help="Another output: the features that tracks are followed by.")
    ] = False,
    planar: Annotated[
        bool,
        typer.Option(
            "--planar",
            help="Frames come as planes [batch, 3, H, W] float32, 0 to 255, as for DeepStream's nvinfer.",
        ),
    ] = False,
) -> int:
    """Write one ONNX file, frame to assignment, for programs that have nothing else of patchcut.

    `image` [batch, H, W, 3] uint8 becomes `assignment` [batch, n, k] float32:
    normalisation, backbone, affinity and the trained head in one graph, weights inside.
    It is compared with patchcut's own answers before it is written.
    """
    from patchcut.bundle import open_bundle

    from patchcut_export.fused.plan import FusedPlan, parse_frame
    from patchcut_export.fused.write import write_fused
    from patchcut_export.outputs import check_output_file
    from patchcut_export.progress import StepBar

    plan = FusedPlan(
        head=head,
        size=size,
        precision=precision,
        frame_hw=None if frame is None else parse_frame(frame),
        color=cast("ColorOrder", color),
        label_map=label_map,
        features=features,
        planar=planar,
    )
    check_output_file(out)
    with StepBar() as bar, open_bundle(bundle) as opened:
        write_fused(out, opened, plan, bar.say)
    return 0
