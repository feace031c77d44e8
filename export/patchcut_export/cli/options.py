"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

SizeOption = Annotated[
    int | None, typer.Option(help="One of the bundle's sizes.", show_default="the default size")
]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads.", show_default="physical cores")]
PrecisionOption = Annotated[str, typer.Option(help="auto, int8, fp16 or fp32.")]
