"""Heads: what turns features into an assignment. Each is one module and one line in `HEADS`."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from patchcut.bundle import Bundle
from patchcut.errors import BundleError, OptionError

Array = npt.NDArray[np.float32]

HEADS = {
    "gnn": "patchcut.heads.gnn",
}


class Head(Protocol):
    """A head ready to run, for one frame at a time.

    Attributes:
        name: its kind, a key of `HEADS`.
        labels: names of the k columns; column 0 is background.
    """

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...

    def __call__(self, features: Array, grid_hw: tuple[int, int]) -> Array:
        """[n, k] float32, assignment of each patch, rows on the simplex; fresh memory.

        Args:
            features: [n, d] float32, n = h * w.
            grid_hw: rows and columns of the patch grid.
        """
        ...


def open_head(bundle: Bundle, name: str = "auto") -> Head:
    """The head called `name` with the bundle's weights; "auto" is the one the bundle was made with.

    Raises:
        OptionError: no such head, or the bundle has no weights for it.
        BundleError: the bundle has no head, one of a newer patchcut, or weights of wrong shapes.
    """
    if name != "auto" and (not isinstance(name, str) or name not in HEADS):
        listed = ", ".join(f'"{known}"' for known in ("auto", *HEADS))
        raise OptionError("head", f"must be one of {listed}, got {name!r}")
    spec = bundle.spec.head
    if spec is None:
        remedy = "use a bundle with a head; see `patchcut info`"
        raise BundleError("head", f"{bundle.path} holds a backbone and no head", remedy)
    if spec.kind not in HEADS:
        what = f"its head is {spec.kind!r}, this one knows {', '.join(HEADS)}"
        remedy = "upgrade patchcut: pip install -U patchcut"
        raise BundleError("head", f"{bundle.path} was made by a newer patchcut: {what}", remedy)
    if name not in ("auto", spec.kind):
        raise OptionError("head", f'the bundle holds weights for "{spec.kind}", got "{name}"')
    module: Any = import_module(HEADS[spec.kind])
    return cast("Head", module.open_head(bundle, spec))
