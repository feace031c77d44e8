"""The protocol of heads, and how one says that it cannot use a frame's features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from patchcut.errors import EngineError
from patchcut.features import Array, Features, to_host

MAX_COLUMNS = 256
MAX_SEED = 2**64 - 1


@runtime_checkable
class Head(Protocol):
    """A head ready to run.

    Attributes:
        name: what it is called, such as "gnn".
        labels: names of the columns; column 0 is background. A head that finds their number frame by frame
            names as many as there may be, and gives an assignment to the first of them.
        needs: names of the feature sets that it reads; without any it reads the default one.
        devices: where it runs, "cpu", "cuda" or both; features on a GPU where it does not run come down.
    """

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def needs(self) -> tuple[str, ...]: ...
    @property
    def devices(self) -> tuple[str, ...]: ...

    def __call__(self, features: Features) -> Array:
        """[b, n, k] float32, assignment of each patch, rows on the simplex, k at least 2; fresh memory.

        Or [b, c * c * n, k], of c times c cells of each patch, in reading order of the finer grid: its number
        of rows tells which grid it is (`patchcut.cells`).

        Args:
            features: those of b frames.
        Raises:
            EngineError: the features are not finite, or the head cannot use them.
        """
        ...


@dataclass(frozen=True, eq=False)
class Voted:
    """What comes of votes, and the votes.

    Attributes:
        assignment: [b, n, k] float32, as a head gives it.
        votes: [b, v, n] float32 in [0, 1], how much each of v voters says that a patch is foreground.
    """

    assignment: npt.NDArray[np.float32]
    votes: npt.NDArray[np.float32]


@runtime_checkable
class VotingHead(Head, Protocol):
    """A head whose foreground several voters agree on, which `Result.votes` tells.

    Attributes:
        levels: what the voters are called.
    """

    @property
    def levels(self) -> tuple[str, ...]: ...

    def vote(self, features: Features) -> Voted:
        """The assignment of b frames, and the votes; as the head itself is called.

        Raises:
            EngineError: the features are not finite, or the head cannot use them.
        """
        ...


@runtime_checkable
class StreamHead(Head, Protocol):
    """A head of one stream, which remembers the frames before."""

    def begin_scene(self) -> None:
        """Lets the next frame be judged by itself: it comes after a cut."""
        ...


@runtime_checkable
class StreamedHead(Head, Protocol):
    """A head that has one of its own for each stream."""

    def of_stream(self) -> StreamHead:
        """One for one stream, in which frames come in order."""
        ...


@contextmanager
def explained(features: Array, remedy: str) -> Iterator[None]:
    """Turns a kernel's ValueError about the features into an EngineError.

    Args:
        features: [..., d] float32.
        remedy: what to do where they are finite, yet of no use.
    """
    try:
        yield
    except ValueError as error:
        if not np.isfinite(to_host(features)).all():
            remedy = "the backbone overflows in this precision: try another one"
        raise EngineError("head", f"cannot use the features: {error}", remedy) from error
