"""Graphs that the tests of ncut and bipartition share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from patchcut_kernels import reference

from tests.kernels.backends import Ops

GRAPHS: dict[str, dict[str, Any]] = {
    "thresholded": {"threshold": 0.1},
    "binary": {"threshold": 0.2, "binary": True},
    "cosine": {"threshold": None},
}


def patches(rng: np.random.Generator, n: int, d: int) -> npt.NDArray[np.float32]:
    """Features of a large background and smaller objects, all leaning the same way."""
    centres = rng.standard_normal((4, d)) + 0.7 * rng.standard_normal(d)
    which = rng.choice(4, n, p=[0.5, 0.25, 0.15, 0.1])
    rows: npt.NDArray[np.float32] = (centres[which] + 0.6 * rng.standard_normal((n, d))).astype(np.float32)
    return rows


def weights_of(ops: Ops, features: npt.NDArray[Any], graph: dict[str, Any]) -> npt.NDArray[np.float64]:
    """W in float64, with the edges that `affinity` finds: it rounds cosines at the threshold too."""
    if graph.get("precomputed") or graph.get("threshold", 0.0) is None:
        return reference.cut_graph(features, **graph)
    edges = ops.affinity(np.ascontiguousarray(features), threshold=graph.get("threshold", 0.0))
    floor = graph.get("floor", 1e-5)
    exact = reference.cut_graph(features, **{**graph, "threshold": 0.0, "floor": 0.0})
    return np.asarray(floor + (1 - floor) * np.where(edges > 0, exact, 0.0), np.float64)
