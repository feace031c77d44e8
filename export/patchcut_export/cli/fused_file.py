"""Options of the commands that fuse a backbone and a head into one file."""

from __future__ import annotations

from typing import Annotated

import typer

Bundle = Annotated[str, typer.Option(help="An embedded bundle's name, or a .patchcut file.")]
FusedHead = Annotated[
    str, typer.Option(help="One of the bundle's trained heads; auto is the first for objects.")
]
Size = Annotated[
    int | None, typer.Option(help="Side of the backbone's input in pixels.", show_default="the bundle's")
]
Precision = Annotated[str, typer.Option(help="The backbone's: one that the bundle has.")]
FrameSize = Annotated[
    str | None,
    typer.Option(
        help="Size of the frames, HEIGHTxWIDTH such as 480x640: resized inside, as patchcut does it.",
        show_default="the backbone's input",
    ),
]
Color = Annotated[str, typer.Option(help="Order of the frames' channels, rgb or bgr.")]
