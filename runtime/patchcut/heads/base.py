"""What every head is, and how one says that it cannot use a frame's features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from patchcut.errors import EngineError, OptionError

Array = npt.NDArray[np.float32]

MOST_COLUMNS = 256
MOST_SEED = 2**64 - 1


@runtime_checkable
class Head(Protocol):
    """A head ready to run, for one frame at a time.

    Attributes:
        name: its kind, such as "gnn".
        labels: names of the columns; column 0 is background. A head that finds their number frame by frame
            names as many as there may be, and gives an assignment to the first of them.
    """

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...

    def __call__(self, features: Array, grid_hw: tuple[int, int]) -> Array:
        """[n, k] float32, assignment of each patch, rows on the simplex, k at least 2; fresh memory.

        Args:
            features: [n, d] float32, n = h * w.
            grid_hw: rows and columns of the patch grid.
        Raises:
            EngineError: the features are not finite, or the head cannot use them.
        """
        ...


@contextmanager
def explained(features: Array, remedy: str) -> Iterator[None]:
    """Turns what a kernel says of the features into an EngineError.

    Args:
        features: [n, d] float32.
        remedy: what to do where they are finite, yet of no use.
    """
    try:
        yield
    except ValueError as error:
        if not np.isfinite(features).all():
            remedy = "the backbone overflows in this precision: try another one"
        raise EngineError("head", f"cannot use the features: {error}", remedy) from error


def check_whole(option: str, value: object, least: int, most: int) -> None:
    """Nothing, if `value` is a whole number from `least` to `most`.

    Raises:
        OptionError: "[k] must be a whole number from 2 to 256, got 1".
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise OptionError(option, f"must be a whole number from {least} to {most}, got {value!r}")


def check_number(option: str, value: object, least: float, most: float) -> None:
    """Nothing, if `value` is a number from `least` to `most`.

    Raises:
        OptionError: "[alpha] must be a number from 1e-06 to 1e+06, got 0".
    """
    known = isinstance(value, int | float | np.floating) and not isinstance(value, bool)
    if not known or not least <= float(value) <= most:  # type: ignore[arg-type]
        raise OptionError(option, f"must be a number from {least:g} to {most:g}, got {value!r}")
