"""Options of the commands that make a bundle: of weights, or of a folder of images."""

from __future__ import annotations

from typing import Annotated

import typer

Name = Annotated[str | None, typer.Option(help="Name of the new bundle.", show_default="of the file")]

# Of a folder of images.
Backbone = Annotated[
    str, typer.Option(help="Bundle whose backbone makes the features: an embedded one's name, or a file.")
]
TrainedOn = Annotated[
    str | None,
    typer.Option(help="What the images are, and their terms.", show_default="the folder's name"),
]

# Of weights.
WeightsSource = Annotated[
    str | None, typer.Option(help="Where the weights come from.", show_default="what is known")
]
WeightsLicence = Annotated[
    str | None, typer.Option(help="Licence of the weights.", show_default="what is known")
]
WeightsTrainedOn = Annotated[
    str | None, typer.Option(help="What the weights were trained on.", show_default="what is known")
]
