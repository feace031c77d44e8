"""What writes one video file."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt


class NoEncoder(Exception):
    """This build has no such encoder, or it does not take that size."""


class Encoder(Protocol):
    """An open video file. Errors of writing are OSErrors or OutputErrors."""

    @property
    def takes_sound(self) -> bool:
        """Whether it copies the sound that it was given."""

    def append(self, image: npt.NDArray[np.uint8], start_s: float, duration_s: float) -> None:
        """Appends [H, W, 3] uint8 BGR, shown from a second on for some seconds."""

    def finish(self) -> None:
        """Writes what is left, and closes the file."""

    def abandon(self) -> None:
        """Closes the file as it is; harmless after `finish`."""
