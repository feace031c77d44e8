"""`patchcut export triton`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from patchcut_export.cli.fused_file import Bundle, Color, FrameSize, FusedHead, Precision, Size

if TYPE_CHECKING:
    from patchcut.settings import ColorOrder


def triton(
    *,
    bundle: Bundle = "default",
    out: Annotated[
        Path, typer.Option(metavar="REPOSITORY", help="The folder to write, where nothing may be yet.")
    ],
    name: Annotated[
        str | None, typer.Option(help="What clients call the model.", show_default="the bundle's name")
    ] = None,
    head: FusedHead = "auto",
    size: Size = None,
    precision: Precision = "fp32",
    frame: FrameSize = None,
    color: Color = "bgr",
    refine: Annotated[
        str, typer.Option(help="Move borders onto the frame's edges: none, guided or bilateral.")
    ] = "none",
    backend: Annotated[
        str,
        typer.Option(
            help="What runs the model: onnxruntime, or tensorrt, whose plan is built here, for the GPU and "
            "the TensorRT of this machine.",
        ),
    ] = "onnxruntime",
    max_batch: Annotated[int, typer.Option(help="Most frames in one run.")] = 8,
    batch_wait: Annotated[
        float, typer.Option(help="Milliseconds that a frame waits for others to run with.")
    ] = 2.0,
    instances: Annotated[int, typer.Option(help="Copies of each model that run beside each other.")] = 1,
) -> int:
    """Write a model repository for Triton Inference Server: frames in, labels, masks and boxes out.

    It holds a model from frame to assignment, which Triton's ONNX Runtime or
    TensorRT runs; one in Python that makes regions of the assignment, for which
    patchcut must be installed beside Triton; and an ensemble of the two, which
    clients ask. The first is compared with patchcut's own answers before it is
    written.
    """
    from patchcut.bundle import find_bundle, open_bundle

    from patchcut_export.fused.plan import FusedPlan, parse_frame
    from patchcut_export.outputs import check_new_folder
    from patchcut_export.progress import StepBar
    from patchcut_export.triton.plan import TritonPlan
    from patchcut_export.triton.repository import write_repository

    plan = TritonPlan(
        fused=FusedPlan(
            head=head,
            size=size,
            precision=precision,
            frame_hw=None if frame is None else parse_frame(frame),
            color=cast("ColorOrder", color),
        ),
        name=find_bundle(bundle).stem if name is None else name,
        backend=backend,
        refine=refine,
        max_batch=max_batch,
        batch_wait_ms=batch_wait,
        instances=instances,
    )
    check_new_folder(out)
    with StepBar() as bar, open_bundle(bundle) as opened:
        write_repository(out, opened, plan, bar.say, bar.step)
    return 0
