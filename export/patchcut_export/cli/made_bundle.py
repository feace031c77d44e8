"""Options of the commands that make a bundle's head from a folder of images."""

from __future__ import annotations

from typing import Annotated

import typer

Backbone = Annotated[
    str, typer.Option(help="Bundle whose backbone makes the features: an embedded one's name, or a file.")
]
Name = Annotated[str | None, typer.Option(help="Name of the new bundle.", show_default="of the file")]
TrainedOn = Annotated[
    str | None,
    typer.Option(help="What the images are, and their terms.", show_default="the folder's name"),
]
