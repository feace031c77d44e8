"""`patchcut export web`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchcut_export.cli.fused_file import Bundle, FusedHead, Precision, Size


def web(
    *,
    bundle: Bundle = "default",
    out: Annotated[Path, typer.Option(help="The folder to write; one of an earlier run is replaced.")],
    head: FusedHead = "auto",
    size: Size = None,
    precision: Precision = "fp32",
    onnxruntime: Annotated[
        Path | None,
        typer.Option(
            help="The npm package onnxruntime-web, unpacked or its .tgz.", show_default="fetched by npm pack"
        ),
    ] = None,
) -> int:
    """Write the page of `patchcut serve` as a folder that needs no server.

    Any web server of files can give it out: the model runs in the browser, by
    onnxruntime-web, with WebGPU where there is one and else WebAssembly.
    Photos and videos do not leave the browser.
    """
    from patchcut.bundle import open_bundle

    from patchcut_export.fused.plan import FusedPlan
    from patchcut_export.progress import StepBar
    from patchcut_export.web.folder import write_folder

    plan = FusedPlan(head=head, size=size, precision=precision, packed=True)
    with StepBar() as bar, open_bundle(bundle) as opened:
        write_folder(out, opened, plan, onnxruntime, bar.say)
    return 0
